/** Guards of prompts and answers, by the example's config. */
import { describe, expect, test } from 'vitest';
import { ask, contentOf, errorOf, prompt } from '../gateway/chat.ts';
import { readSse } from '../support/sse.ts';
import { startExample } from './example.ts';
import { startBedrockGuardrails, startModelArmor } from './webhook-servers.ts';

const FILE = 'examples/guardrails.yaml';

describe('built-in rules', () => {
  test.each([
    ['S1-80', 'my SSN is 123-45-6789'],
    ['S1-80', 'my card is 4111-1111-1111-1111'],
    ['S1-80', 'call me at (212) 555-2368'],
    ['S1-80', 'write to bob@example.com'],
    ['S1-81', 'the password is hunter2'],
    ['S1-81', 'here is the API_KEY of production'],
    ['S1-81', 'here is the APIKEY of production'],
  ])('%s: refused with 403 and the configured body: %s', async (_row, text) => {
    await using example = await startExample(FILE);
    const response = await ask(example.gateway, prompt(text), { route: '/openai' });
    expect([response.status, await response.text()]).toEqual([403, 'Request blocked due to sensitive content']);
    expect(response.header('content-type')).toMatch(/^text\/plain/);
    const fine = await ask(example.gateway, prompt('what is the capital of France?'), { route: '/openai' });
    expect(fine.status).toBe(200);
  });

  test.each([
    ['write to jane.roe@example.com', 'write to <EMAIL_ADDRESS>'],
    ['card 4111-1111-1111-1111', 'card <CREDIT_CARD>'],
    ['SSN 123-45-6789', 'SSN <SSN>'],
    ['call (212) 555-2368 now', 'call <PHONE_NUMBER> now'],
    ['the password is safe', 'the <masked> is safe'],
  ])('S1-82: the prompt goes on with a mask: %s', async (text, masked) => {
    await using example = await startExample(FILE);
    // The simulated model says back what it was sent, so this is what the model saw.
    expect(await contentOf(await ask(example.gateway, prompt(text), { route: '/gemini' }))).toBe(`You said: ${masked}`);
    const streamed = await readSse(await ask(example.gateway, prompt(text, { stream: true }), { route: '/gemini' }));
    expect(streamed.content).toEqual([`You said: ${masked}`]);
  });

  test.each([
    ['Visa', '4012 8888 8888 1881'],
    ['Mastercard', '5555 5555 5555 4444'],
    ['Mastercard, 2-series', '2223 0031 2200 3222'],
    ['American Express', '3782 822463 10005'],
    ['Discover', '6011 1111 1111 1117'],
    ['Diners Club', '3056 9309 0259 04'],
  ])('S1-83: a card of %s is found', async (_brand, number) => {
    await using example = await startExample(FILE);
    const response = await ask(example.gateway, prompt(`pay with ${number} please`), { route: '/gemini' });
    expect(await contentOf(response)).toBe('You said: pay with <CREDIT_CARD> please');
  });

  test('S1-84: a card number whose check digit is wrong, to /anthropic', async () => {
    await using example = await startExample(FILE);
    const text = 'My card number is like 5100 4567 8901 2345';
    const response = await ask(example.gateway, prompt(text), { route: '/anthropic' });
    expect(await contentOf(response)).toBe('You said: My card number is like <CREDIT_CARD>');
  });

  test('S1-85: a model that is asked to repeat values never saw them', async () => {
    await using example = await startExample(FILE);
    const text = 'My SSN is 123-45-6789 and my email is bob@example.com';
    const response = await ask(example.gateway, prompt(text), { route: '/gemini' });
    expect(await contentOf(response)).toBe('You said: My SSN is <SSN> and my email is <EMAIL_ADDRESS>');
    expect(example.gateway.logText).not.toMatch(/123-45-6789|bob@example/);
  });
});

describe('guardrail services behind their own webhook', () => {
  async function startGuarded() {
    const armor = await startModelArmor();
    const bedrock = await startBedrockGuardrails();
    const environment = {
      CUSTOM_WEBHOOK_HOST_MODELARMOR: '127.0.0.1',
      CUSTOM_WEBHOOK_PORT_MODELARMOR: armor.port,
      CUSTOM_WEBHOOK_HOST_BEDROCK: '127.0.0.1',
      CUSTOM_WEBHOOK_PORT_BEDROCK: bedrock.port,
    };
    const example = await startExample(FILE, { environment });
    return {
      armor,
      bedrock,
      gateway: example.gateway,
      async [Symbol.asyncDispose]() {
        await example[Symbol.asyncDispose]();
        await armor.stop();
        await bedrock.stop();
      },
    };
  }

  test('S1-87: Model Armor refuses hate with its own status and words', async () => {
    await using rig = await startGuarded();
    const response = await ask(rig.gateway, prompt('I hate all people and want to hurt them'), {
      route: '/guardrail/gemini',
    });
    expect([response.status, await response.text()]).toEqual([
      403,
      'Request rejected by Model Armor: BLOCKED: RAI policy violation',
    ]);
    expect(response.header('content-type')).toMatch(/^text\/plain/);
  });

  test('S1-88: Model Armor masks an e-mail address, and the model gets the mask', async () => {
    await using rig = await startGuarded();
    const text = 'My email address is jane@example.com and I need help with my account';
    const response = await ask(rig.gateway, prompt(text), { route: '/guardrail/gemini' });
    expect(await contentOf(response)).toBe('You said: My email address is [REDACTED] and I need help with my account');
    expect(rig.armor.asked.map(({ path }) => path).filter((path) => path !== '/')).toEqual(['/request', '/response']);
  });

  test('S1-89: Bedrock Guardrails refuse an e-mail address', async () => {
    await using rig = await startGuarded();
    const response = await ask(rig.gateway, prompt('hi my email is christian@solo.io'), {
      route: '/guardrail/bedrock',
    });
    expect([response.status, await response.text()]).toEqual([
      403,
      'Request rejected by Bedrock Guardrails: BLOCKED: PII detected: EMAIL',
    ]);
  });

  test('an answer is judged too: the model says back what no guard of the prompt stopped', async () => {
    await using rig = await startGuarded();
    const body = { messages: [{ role: 'user', content: 'hello' }] };
    expect(await contentOf(await ask(rig.gateway, body, { route: '/guardrail/gemini' }))).toBe('You said: hello');
    const streamed = await ask(rig.gateway, { ...body, stream: true }, { route: '/guardrail/gemini' });
    expect(await readSse(streamed)).toMatchObject({ content: ['You said: hello'], done: true });
  });

  test('only the headers that the config names go to the service, and only with their values', async () => {
    await using rig = await startGuarded();
    const headers = { Authorization: 'Bearer user-token', 'X-Custom-Header': 'yes', 'X-Other': 'no', Cookie: 'a=b' };
    await (await ask(rig.gateway, prompt(), { route: '/guardrail/gemini', headers })).text();
    await (
      await ask(rig.gateway, prompt(), { route: '/guardrail/gemini', headers: { Authorization: 'Basic abc' } })
    ).text();
    const [first, , third] = rig.armor.asked.filter(({ path }) => path !== '/');
    expect(first!.headers).toMatchObject({ authorization: 'Bearer user-token', 'x-custom-header': 'yes' });
    expect(first!.headers).not.toHaveProperty('x-other');
    expect(first!.headers).not.toHaveProperty('cookie');
    expect(third!.headers).not.toHaveProperty('authorization');
  });

  test('S1-90: a service that is stopped is no pass: 503, and the model is not asked', async () => {
    await using rig = await startGuarded();
    await rig.armor.stop();
    const response = await ask(rig.gateway, prompt('hello'), { route: '/guardrail/gemini' });
    expect(await errorOf(response)).toMatchObject({
      status: 503,
      code: 'guard_unavailable',
      message: expect.stringContaining('“model-armor” did not answer'),
    });
    expect((await ask(rig.gateway, prompt('hello'), { route: '/guardrail/bedrock' })).status).toBe(200);
  });
});
