/** What a person does and sees in Open WebUI, in a headless Chromium with a profile of its own. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Browser, Locator, Page } from 'playwright-core';

/** Where the text of an answer stands, an error's box among it; the last one is the newest. */
const ANSWER = '#messages-container #response-content-container';
/** An answer is complete when Open WebUI offers to regenerate it. */
const COMPLETE = 'button[aria-label="Regenerate"]';

export class Chat {
  readonly page: Page;
  readonly #url: string;

  private constructor(page: Page, url: string) {
    this.page = page;
    this.#url = url;
  }

  /** Opens a profile of its own, without cookies, with nothing loaded yet. */
  static async open(browser: Browser, url: string): Promise<Chat> {
    const profile = await browser.newContext({ viewport: { width: 1200, height: 800 }, locale: 'en-US' });
    const page = await profile.newPage();
    page.setDefaultTimeout(30_000);
    return new Chat(page, url);
  }

  /** Goes to Open WebUI, which leads to Keycloak's form, and fills that in. */
  async signIn(username: string): Promise<void> {
    await this.goToForm();
    await this.fillForm(username);
  }

  async goToForm(): Promise<void> {
    await this.page.goto(this.#url);
    await this.form.waitFor();
  }

  /** Keycloak's. */
  get form(): Locator {
    return this.page.locator('#kc-form-login');
  }

  async fillForm(username: string): Promise<void> {
    await this.page.fill('#username', username);
    await this.page.fill('#password', 'user123');
    await this.page.click('#kc-login');
    await this.page.locator('#chat-input').waitFor();
  }

  /** An empty chat, with the models read anew. */
  async newChat(): Promise<void> {
    await this.page.goto(this.#url);
    await this.page.locator('#chat-input').waitFor();
  }

  /** Leaves by the menu behind the person's picture. */
  async signOut(): Promise<void> {
    await this.page.getByRole('button', { name: 'User menu' }).click();
    await this.page.getByRole('menuitem', { name: 'Sign Out' }).click();
  }

  /** The page of a person who has left: a button that leads to Keycloak. */
  get signInButton(): Locator {
    return this.page.getByRole('button', { name: 'Continue with Keycloak' });
  }

  /** The name of the chosen model; empty when there is none. */
  async model(): Promise<string> {
    const picker = this.page.locator('[id^="model-selector-"][id$="-button"]').first();
    return textOf(picker);
  }

  /** Sends a prompt, and gives back how much of the answer was there each time more of it was, and the whole in the end. */
  async ask(prompt: string): Promise<{ grown: number[]; answer: string }> {
    const answers = this.page.locator(ANSWER);
    const before = await answers.count();
    await this.page.click('#chat-input');
    await this.page.keyboard.insertText(prompt);
    await this.page.keyboard.press('Enter');
    const answer = answers.nth(before);
    await answer.waitFor({ state: 'attached' });
    const grown = await this.#watch(answer, this.page.locator(COMPLETE).nth(before));
    return { grown, answer: await textOf(answer) };
  }

  async #watch(answer: Locator, complete: Locator): Promise<number[]> {
    const lengths: number[] = [];
    for (let left = 600; left > 0; left -= 1) {
      const { length } = await textOf(answer);
      if (length > (lengths.at(-1) ?? 0)) lengths.push(length);
      if (await complete.isVisible()) return lengths;
      await sleep(50);
    }
    throw new Error('the answer was not complete within 30 s');
  }

  /** What the short-lived notices in the corner say, the newest first. */
  async notices(): Promise<string[]> {
    return (await this.page.locator('[data-sonner-toast]').allInnerTexts()).map((text) => text.trim());
  }

  /** Settings, Connections, Direct Connections, "+": an OpenAI-compatible address that the browser itself asks. */
  async addDirectConnection(url: string): Promise<void> {
    await this.page.keyboard.press('Control+.');
    const settings = this.page.getByRole('dialog').first();
    await settings.getByRole('tab', { name: 'Connections' }).first().click();
    await settings.getByRole('button', { name: 'Add Connection' }).click();
    await this.page.fill('#url-input', url);
    await this.page.selectOption('#select-bearer-or-session', 'none');
    await this.page.getByRole('button', { name: 'Save' }).last().click();
    await this.page.locator('#url-input').waitFor({ state: 'detached' });
    await settings.getByRole('button', { name: 'Save' }).last().click();
    await this.newChat();
  }

  async chooseModel(name: string): Promise<void> {
    await this.page.locator('[id^="model-selector-"][id$="-button"]').first().click();
    await this.page.getByRole('option', { name }).first().click();
  }
}

async function textOf(element: Locator): Promise<string> {
  return ((await element.textContent()) ?? '').trim();
}
