/** The official clients, unmodified, with a key of the gateway's: each puts it where its vendor wants it, and it stays here. */
import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import OpenAI from 'openai';
import { describe, expect, test } from 'vitest';
import { send } from '../support/client.ts';
import { replyFixture } from '../support/fixture.ts';
import { startGateway } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';

const KEY = 'wg-key-of-a-client';

async function started() {
  const upstream = await startScriptedUpstream();
  upstream.always({ whole: replyFixture('openai', 'text') });
  const gateway = await startGateway(
    {
      providers: { up: { kind: 'openai-compatible', baseUrl: `${upstream.url}/v1`, key: 'key-of-the-gateway' } },
      models: { any: 'up' },
      plugins: { keys: { at: 'local:api-key-auth', config: { keys: [{ key: KEY, subject: 'client' }] } } },
      routes: { '/': { plugins: ['keys'], cors: true } },
    },
    { log: 'debug' },
  );
  return {
    upstream,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

const MESSAGES = [{ role: 'user' as const, content: 'Hello' }];
const ASKED = { model: 'any', messages: MESSAGES };

/** What each client does with a key at a gateway. */
const CLIENTS: [string, (url: string, key: string) => Promise<unknown>][] = [
  [
    'openai',
    (url, apiKey) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 }).chat.completions.create(ASKED),
  ],
  [
    'openai, Responses',
    (url, apiKey) =>
      new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 }).responses.create({ model: 'any', input: 'Hello' }),
  ],
  [
    'anthropic, by its key',
    (baseURL, apiKey) =>
      new Anthropic({ baseURL, apiKey, authToken: null, maxRetries: 0 }).messages.create({ ...ASKED, max_tokens: 9 }),
  ],
  [
    'anthropic, by its token',
    (baseURL, authToken) =>
      new Anthropic({ baseURL, apiKey: null, authToken, maxRetries: 0 }).messages.create({ ...ASKED, max_tokens: 9 }),
  ],
  [
    'google',
    (baseUrl, apiKey) =>
      new GoogleGenAI({ apiKey, httpOptions: { baseUrl } }).models.generateContent({ model: 'any', contents: 'Hello' }),
  ],
];

describe.each(CLIENTS)('%s', (_name, ask) => {
  test('is known by its key, which goes no further', async () => {
    await using rig = await started();
    await ask(rig.gateway.url, KEY);
    const [request] = rig.upstream.requests;
    expect(JSON.stringify([request!.path, request!.headers])).not.toContain(KEY);
    expect(request!.headerValues('authorization')).toEqual(['Bearer key-of-the-gateway']);
    expect(rig.gateway.logText).not.toContain(KEY);
    expect(rig.gateway.logText).toContain('client');
  });

  test('with another key is told so, by a 401 of its own kind, and nothing of the key', async () => {
    await using rig = await started();
    const refused = ask(rig.gateway.url, 'wg-key-of-nobody');
    await expect(refused).rejects.toMatchObject({ status: 401 });
    const error = (await refused.catch((thrown: unknown) => thrown)) as Error;
    expect(error.message).toContain('The API key is not known here');
    expect(error.message + rig.gateway.logText).not.toContain('wg-key-of-nobody');
    expect(rig.upstream.requests).toEqual([]);
  });
});

test('browsers may send what the official clients send there', async () => {
  await using rig = await started();
  const names = [
    ...[
      'authorization',
      'x-api-key',
      'api-key',
      'x-goog-api-key',
      'content-type',
      'anthropic-version',
      'anthropic-beta',
    ],
    ...['anthropic-dangerous-direct-browser-access', 'x-goog-api-client', 'openai-beta', 'x-stainless-lang'],
    ...['x-stainless-retry-count', 'x-stainless-timeout', 'last-event-id'],
  ].join(', ');
  for (const path of ['/v1/chat/completions', '/v1/messages', '/v1/responses', '/v1beta/models/any:generateContent']) {
    const response = await send(`${rig.gateway.url}${path}`, {
      method: 'OPTIONS',
      headers: {
        origin: 'https://app.example',
        'access-control-request-method': 'POST',
        'access-control-request-headers': names,
      },
    });
    expect([response.status, response.header('access-control-allow-headers')]).toEqual([204, names]);
  }
});
