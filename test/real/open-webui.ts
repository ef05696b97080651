/**
 * Open WebUI behind SSO, as a person sees it: real Keycloak, real Open WebUI, real Chromium, the gateway between them.
 *
 *     npm run test:open-webui -- --pictures /tmp/pictures
 *
 * It wants a Keycloak with the administrator admin/admin (KEYCLOAK_URL, default http://localhost:8080, where compose has
 * it), a Redis (REDIS_URL), Chromium (CHROMIUM, default /usr/bin/chromium) and Python 3.11 or 3.12: run-openwebui.sh
 * installs Open WebUI on the first run. What is missing is said, with status 2. `--port` is Open WebUI's; any free one by default.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Browser, chromium } from 'playwright-core';
import { freePort } from '../support/free-port.ts';
import { Chat } from './open-webui/chat.ts';
import { MODELS, type Stage, startStage } from './open-webui/stage.ts';

const {
  KEYCLOAK_URL = 'http://localhost:8080',
  REDIS_URL = 'redis://localhost:6379/15',
  CHROMIUM = '/usr/bin/chromium',
} = process.env;
const { values } = parseArgs({ options: { pictures: { type: 'string' }, port: { type: 'string' } } });

const ADDRESS = 'jane.roe@example.com';
const CARD = '4111 1111 1111 1111';
const LONG =
  'Please say this back to me, word for word, so that I can watch the answer grow while it is being written.';

async function main(): Promise<number> {
  const missing = await whatIsMissing();
  if (missing !== undefined) {
    console.log(`open-webui: not run: ${missing}`);
    return 2;
  }
  const pictures = values.pictures ?? (await mkdtemp(join(tmpdir(), 'wardgate-pictures-')));
  await mkdir(pictures, { recursive: true });
  await using stage = await startStage(KEYCLOAK_URL, REDIS_URL, Number(values.port ?? (await freePort())));
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
  try {
    await new Story(stage, browser, pictures).tell();
  } catch (error) {
    console.log(`open-webui: FAILED; pictures in ${pictures}`);
    throw error;
  } finally {
    await browser.close();
  }
  console.log(`open-webui: all as it should be; pictures in ${pictures}`);
  return 0;
}

async function whatIsMissing(): Promise<string | undefined> {
  if (!existsSync(CHROMIUM)) return `no browser at ${CHROMIUM}: apt-get install chromium, or set CHROMIUM`;
  const keycloak = await fetch(`${KEYCLOAK_URL}/realms/master`).catch(() => undefined);
  if (!keycloak?.ok) return `no Keycloak answers at ${KEYCLOAK_URL}: start one, or set KEYCLOAK_URL`;
  if (!(await listens(REDIS_URL))) return `no Redis answers at ${REDIS_URL}: start one, or set REDIS_URL`;
  return undefined;
}

function listens(address: string): Promise<boolean> {
  const { hostname, port } = new URL(address);
  const socket = connect({ host: hostname, port: Number(port || 6379), timeout: 3_000 });
  const { promise, resolve } = Promise.withResolvers<boolean>();
  socket.once('connect', () => resolve(true));
  for (const event of ['error', 'timeout']) socket.once(event, () => resolve(false));
  return promise.finally(() => socket.destroy());
}

/** One chapter after the other; each leaves a picture of what the person saw last. */
class Story {
  readonly #stage: Stage;
  readonly #browser: Browser;
  readonly #pictures: string;
  #taken = 0;

  constructor(stage: Stage, browser: Browser, pictures: string) {
    this.#stage = stage;
    this.#browser = browser;
    this.#pictures = pictures;
  }

  async tell(): Promise<void> {
    const administrator = await this.#open();
    await this.#chapter('signs in by Keycloak and finds the model', administrator, () => this.signsIn(administrator));
    await this.#chapter('sees an answer grow', administrator, () => this.seesAnAnswerGrow(administrator));
    await this.#chapter('mentions an address', administrator, () => this.mentionsAnAddress(administrator));
    await this.#chapter('is refused a card number', administrator, () => this.isRefused(administrator));
    await this.#chapter('goes on in the same chat', administrator, () => this.goesOn(administrator));
    await this.#chapter('asks too often', administrator, () => this.asksTooOften(administrator));
    await this.isNoProgram();
    const other = await this.#open();
    await this.#chapter('another person, no administrator', other, () => this.signsInForAMinute(other));
    await this.#chapter('connects the browser itself', other, () => this.connectsDirectly(other));
    await this.#chapter('has a session that ended', other, () => this.hasNoSession(other));
    await this.#chapter('signs out and in again', other, () => this.signsInAgain(other));
    await this.#chapter('signs out of Keycloak too', other, () => this.signsOut(other));
    const third = await this.#open();
    await this.#chapter('is logged out by Keycloak', third, () => this.isLoggedOut(third));
  }

  async signsIn(chat: Chat): Promise<void> {
    await chat.goToForm();
    await this.#picture(chat, 'the form of Keycloak');
    await chat.fillForm('mcp-user');
    assert.equal(await chat.model(), MODELS.chat);
    assert.equal(await this.#lastUser(), 'mcp-user');
  }

  /** A program without a token gets the demo's own answer at the same address (S1-30), and a browser its preflight. */
  async isNoProgram(): Promise<void> {
    const url = `${this.#stage.gateway.url}/openai/v1/chat/completions`;
    const body = JSON.stringify({ model: MODELS.chat, messages: [{ role: 'user', content: 'Hello' }] });
    const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    assert.equal(answer.status, 403);
    assert.equal(await answer.text(), 'authorization failed');
  }

  async seesAnAnswerGrow(chat: Chat): Promise<void> {
    const { grown, answer } = await chat.ask(LONG);
    assert.equal(answer, `You said: ${LONG}`);
    assert.ok(grown.length > 4, `the answer came in ${grown.length} pieces: ${grown}`);
  }

  async mentionsAnAddress(chat: Chat): Promise<void> {
    const { answer } = await chat.ask(`Write to ${ADDRESS}, please.`);
    assert.equal(answer, 'You said: Write to <EMAIL_1>, please.');
  }

  async isRefused(chat: Chat): Promise<void> {
    await chat.newChat();
    const { answer } = await chat.ask(`Pay with ${CARD}, please.`);
    assert.match(answer, /contains a credit card number/);
    assert.match(answer, /Remove it and send the message again/);
    assert.doesNotMatch(answer, /4111|pii|403/);
    assert.deepEqual(await chat.notices(), [answer]);
  }

  async goesOn(chat: Chat): Promise<void> {
    const { answer } = await chat.ask('Then tell me about the weather.');
    assert.equal(answer, 'You said: Then tell me about the weather.');
  }

  async asksTooOften(chat: Chat): Promise<void> {
    await this.#stage.limit(1);
    await chat.newChat();
    assert.equal((await chat.ask('One more.')).answer, 'You said: One more.');
    const { answer } = await chat.ask('And another one.');
    assert.match(answer, /You have used your 1 request .*Try again in /);
    await this.#picture(chat, 'the limit');
    await this.#stage.limit();
    assert.equal((await chat.ask('Is it over?')).answer, 'You said: Is it over?');
  }

  async connectsDirectly(chat: Chat): Promise<void> {
    const { gateway } = this.#stage;
    const asked: string[] = [];
    chat.page.on('request', (request) => {
      if (request.url().startsWith(gateway.url)) asked.push(`${request.method()} ${new URL(request.url()).pathname}`);
    });
    await chat.addDirectConnection(`${gateway.url}/anthropic/v1`);
    await chat.chooseModel(MODELS.direct);
    const { grown, answer } = await chat.ask(`${LONG} Write to ${ADDRESS}.`);
    assert.equal(answer, `You said: ${LONG} Write to <EMAIL_1>.`);
    assert.ok(grown.length > 4, `the answer came in ${grown.length} pieces: ${grown}`);
    assert.ok(asked.includes('GET /anthropic/v1/models'), 'the browser itself asks for the models');
    assert.ok(asked.includes('POST /anthropic/v1/chat/completions'), 'the browser itself asks for the answer');
    await this.#picture(chat, 'an answer to the browser');
    const refused = await chat.ask(`Pay with ${CARD}, please.`);
    assert.match(refused.answer, /contains a credit card number/);
  }

  async signsInForAMinute(chat: Chat): Promise<void> {
    await this.#stage.realm.setTokenLife(60);
    await chat.signIn('other-user');
    assert.equal(await chat.model(), MODELS.chat);
    assert.equal((await chat.ask('Hello.')).answer, 'You said: Hello.');
    assert.equal(await this.#lastUser(), 'other-user');
  }

  /** Open WebUI finds no way to a new token, drops the old one, and calls without any. */
  async hasNoSession(chat: Chat): Promise<void> {
    await chat.newChat();
    await chat.chooseModel(MODELS.chat);
    await this.#stage.realm.endSessions('other-user');
    const { answer } = await chat.ask('Am I still here?');
    assert.match(answer, /sign out .*and (?:sign )?in again/i);
  }

  /** Open WebUI holds a token that is good for minutes, but Keycloak has told the gateway that its session is over. */
  async isLoggedOut(chat: Chat): Promise<void> {
    await this.#stage.realm.setTokenLife(900);
    await chat.signIn('alice');
    assert.equal((await chat.ask('Hello.')).answer, 'You said: Hello.');
    await this.#stage.realm.endSessions('alice');
    assert.equal((await chat.ask('Still?')).answer, 'Your sign-in has expired. Sign out and in again.');
  }

  async signsInAgain(chat: Chat): Promise<void> {
    await chat.signOut();
    await chat.signInButton.waitFor();
    await this.#picture(chat, 'signed out of Open WebUI');
    await chat.signInButton.click();
    await chat.fillForm('other-user');
    assert.equal((await chat.ask('I am back.')).answer, 'You said: I am back.');
  }

  /** Signing out of Open WebUI ends the session at Keycloak as well: the next who sits down here is asked who they are. */
  async signsOut(chat: Chat): Promise<void> {
    await chat.signOut();
    await chat.signInButton.click();
    await chat.form.waitFor();
  }

  #open(): Promise<Chat> {
    return Chat.open(this.#browser, this.#stage.webuiUrl);
  }

  async #chapter(title: string, chat: Chat, events: () => Promise<void>): Promise<void> {
    const started = Date.now();
    try {
      await events();
      console.log(`ok      ${((Date.now() - started) / 1000).toFixed(1)} s  ${title}`);
    } catch (error) {
      console.log(`FAILED  ${((Date.now() - started) / 1000).toFixed(1)} s  ${title}`);
      throw error;
    } finally {
      await this.#picture(chat, title);
    }
  }

  async #picture(chat: Chat, title: string): Promise<void> {
    this.#taken += 1;
    const name = `${String(this.#taken).padStart(2, '0')}-${title.replaceAll(/\W+/g, '-')}.png`;
    await chat.page.screenshot({ path: join(this.#pictures, name) });
  }

  /** Whom the gateway took the last request for: the token is the person's own. */
  async #lastUser(): Promise<unknown> {
    return this.#stage.gateway.logged.findLast(({ msg }) => msg === 'request')?.username;
  }
}

process.exitCode = await main();
