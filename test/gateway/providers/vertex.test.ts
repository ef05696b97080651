/** Google Cloud's addresses and credentials, and Claude there. What Gemini's bodies are is gemini.test.ts. */
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import Anthropic from '@anthropic-ai/sdk';
import { JWT } from 'google-auth-library';
import OpenAI from 'openai';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import type { ChatEndpoint, Provider } from '../../../gateway/providers/provider.ts';
import { vertex } from '../../../gateway/providers/vertex/provider.ts';
import { startSimulator } from '../../../simulator/server.ts';
import { startGateway } from '../../support/gateway.ts';
import { hubRequest, says } from '../../support/hub.ts';

const CLAUDE = 'claude-sonnet-4@20250514';

const COMMON = {
  kind: 'vertex',
  project: 'my-project',
  location: 'global',
  token: 'ya29.token',
  maxTokens: 4096,
  thinking: 'auto',
  timeouts: { connect: 1, firstByte: 1, idle: 1 },
  streamUsage: true,
  unmapped: 'refuse',
};

function made(settings: Json = {}): Provider {
  return vertex.make('cloud', { ...COMMON, ...settings } as never);
}

function chatOf(provider: Provider): ChatEndpoint {
  return provider.endpoints.chat[0]!;
}

const CALL = { method: 'POST', path: '/x', headers: [], body: '{}' };
const GEMINI = { model: 'gemini-3-flash', stream: false };

describe('the address', () => {
  test.each([
    ['global', 'https://aiplatform.googleapis.com'],
    ['eu', 'https://aiplatform.eu.rep.googleapis.com'],
    ['europe-west4', 'https://europe-west4-aiplatform.googleapis.com'],
  ])('is the location’s: %s', (location, origin) => {
    const provider = made({ location });
    expect(provider.origin).toBe(origin);
    expect(chatOf(provider).path({ ...GEMINI, stream: true })).toBe(
      `/v1/projects/my-project/locations/${location}/publishers/google/models/gemini-3-flash:streamGenerateContent?alt=sse`,
    );
  });

  test('is what the config says', () => {
    const provider = made({ baseUrl: 'http://127.0.0.1:9/x/v1beta1' });
    expect(provider.endpoints.embeddings?.[0]?.path(GEMINI)).toBe(
      '/x/v1beta1/projects/my-project/locations/global/publishers/google/models/gemini-3-flash:predict',
    );
  });

  test.each([
    ['a project', { project: 'a/../b' }],
    ['a location', { location: 'eu.evil.example/' }],
  ])('is refused where it holds what is not %s', async (_, settings) => {
    const provider = { kind: 'vertex', project: 'p', token: 't', ...settings };
    const config = { providers: { v: provider }, models: { '*': 'v' }, routes: { '/': {} } };
    await expect(startGateway(config)).rejects.toThrow(/providers\.v\.(project|location): must be/);
  });
});

describe('credentials', () => {
  // Google's library warns whoever takes credentials from strangers; these are the operator's.
  beforeEach(() => void vi.spyOn(console, 'warn').mockImplementation(() => {}));
  afterEach(() => void vi.restoreAllMocks());

  test('may be a token that somebody else renews', async () => {
    const { headers } = await made().sign(CALL);
    expect(headers.join(' ')).toContain('authorization Bearer ya29.token');
    expect((await made({ token: undefined, key: 'ya29.key' }).sign(CALL)).headers).toContain('Bearer ya29.key');
  });

  /** A workload's credentials, whose own token is exchanged for one of Google's. */
  async function workload(answer: { status: number; json: object }) {
    let calls = 0;
    const server = createServer((request, response) => {
      calls += request.url === '/token' ? 1 : 0;
      const json = request.url === '/token' ? answer.json : { token: 'subject' };
      response.writeHead(request.url === '/token' ? answer.status : 200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(json));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const credentials = JSON.stringify({
      type: 'external_account',
      audience: 'a',
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      token_url: `${url}/token`,
      credential_source: { url: `${url}/subject`, format: { type: 'json', subject_token_field_name: 'token' } },
    });
    return {
      provider: made({ token: undefined, credentials }),
      calls: () => calls,
      [Symbol.asyncDispose]: async () => {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      },
    };
  }

  test('are exchanged for a token once, which is kept', async () => {
    const json = { access_token: 'ya29.exchanged', expires_in: 3600, token_type: 'Bearer' };
    await using cloud = await workload({ status: 200, json });
    const signed = await Promise.all([cloud.provider.sign(CALL), cloud.provider.sign(CALL)]);
    signed.push(await cloud.provider.sign(CALL));
    for (const { headers } of signed) expect(headers).toContain('Bearer ya29.exchanged');
    expect(cloud.calls()).toBe(1);
  });

  test('of a service account are signed with its key', async () => {
    const { privateKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    });
    const account = { type: 'service_account', client_email: 'a@p.iam', private_key: privateKey };
    const request = vi.spyOn(JWT.prototype, 'getAccessToken').mockImplementation(async function (this: JWT) {
      return { token: `${this.email} ${this.key === privateKey} ${this.scopes}` };
    });
    const { headers } = await made({ token: undefined, credentials: JSON.stringify(account) }).sign(CALL);
    expect(headers).toContain('Bearer a@p.iam true https://www.googleapis.com/auth/cloud-platform');
    request.mockRestore();
  });

  test('that are refused are told, and not what they were', async () => {
    await using cloud = await workload({ status: 400, json: { error: 'invalid_grant' } });
    await expect(cloud.provider.sign(CALL)).rejects.toMatchObject({
      code: 'upstream_refused_key',
      message: 'The gateway has no credentials for the provider “cloud”. Ask the gateway’s operator to check them.',
    });
  });

  test('in a file that is not there are told too', async () => {
    const provider = made({ token: undefined, credentials: '/nowhere/key.json' });
    await expect(provider.sign(CALL)).rejects.toMatchObject({ code: 'upstream_refused_key' });
  });
});

describe('Gemini there', () => {
  test('keeps nothing anyway, so that nothing is said of it', () => {
    expect(chatOf(made()).supports.store).toBe('left out');
  });

  test('counts a whole request’s fields', () => {
    const request = hubRequest({ messages: [says('system', 'a'), says('user', 'b')] });
    expect(JSON.parse(JSON.stringify(made().endpoints.count![0]!.write(request, GEMINI)))).toEqual({
      systemInstruction: { parts: [{ text: 'a' }] },
      contents: [{ role: 'user', parts: [{ text: 'b' }] }],
    });
  });

  test('gives vectors by predictions', () => {
    const endpoint = made().endpoints.embeddings![0]!;
    const request = { input: ['a', 'b'], dimensions: 2, used: new Map(), unknown: [] };
    expect(endpoint.write(request, GEMINI)).toEqual({
      instances: [{ content: 'a' }, { content: 'b' }],
      parameters: { outputDimensionality: 2 },
    });
    const embeddings = (values: unknown) => ({ embeddings: { values, statistics: { token_count: 2 } } });
    expect(endpoint.read({ predictions: [embeddings([1]), embeddings([2])] })).toEqual({
      vectors: [[1], [2]],
      usage: { inputTokens: 4, outputTokens: 0 },
    });
    for (const odd of [{}, { predictions: [] }, { predictions: [1] }, { predictions: [embeddings(['x'])] }])
      expect(() => endpoint.read(odd)).toThrow(expect.objectContaining({ code: 'upstream_bad_answer' }));
  });
});

describe('Claude there', () => {
  const claude = made({ kind: 'vertex-anthropic' });
  const chat = chatOf(claude);

  test('is named by the path, and told its version in the body', () => {
    expect(chat.path({ model: CLAUDE, stream: false })).toBe(
      `/v1/projects/my-project/locations/global/publishers/anthropic/models/${CLAUDE}:rawPredict`,
    );
    const written = chat.write(hubRequest(), { model: CLAUDE, stream: true });
    expect(written).toMatchObject({ anthropic_version: 'vertex-2023-10-16', max_tokens: 4096, stream: true });
    expect(written).not.toHaveProperty('model');
    const passed: Json = { model: CLAUDE, messages: [] };
    chat.adapt?.(passed, { model: CLAUDE, stream: false });
    expect(passed).toEqual({ anthropic_version: 'vertex-2023-10-16', messages: [] });
  });

  test('counts under a name of its own', () => {
    const count = claude.endpoints.count![0]!;
    expect(count.path({ model: CLAUDE, stream: false })).toContain('/models/count-tokens:rawPredict');
    const written = count.write(hubRequest(), { model: CLAUDE, stream: false });
    expect(written).toMatchObject({ anthropic_version: 'vertex-2023-10-16', model: CLAUDE });
  });

  test('fails in its own words or in Google’s', () => {
    const own = { type: 'error', error: { type: 'invalid_request_error', message: 'max_tokens: too large' } };
    const google = [{ error: { code: 400, message: 'No such location.', status: 'FAILED_PRECONDITION' } }];
    expect(claude.readError(400, own, {}).message).toBe('max_tokens: too large');
    expect(claude.readError(400, google, {})).toMatchObject({
      message: 'No such location.',
      details: { publicCode: 'FAILED_PRECONDITION' },
    });
  });

  test('answers Anthropic’s and OpenAI’s clients, whole and streamed', async () => {
    await using stack = new AsyncDisposableStack();
    const simulator = await startSimulator({ tokenDelayMs: 0 });
    stack.defer(() => simulator.close());
    const provider = { kind: 'vertex-anthropic', project: 'p', token: 'ya29', baseUrl: `${simulator.url}/v1` };
    const gateway = stack.use(
      await startGateway({ providers: { cloud: provider }, models: { '*': 'cloud' }, routes: { '/': {} } }),
    );
    const anthropic = new Anthropic({ baseURL: gateway.url, apiKey: 'client', maxRetries: 0 });
    const openai = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'client', maxRetries: 0 });
    const messages = [{ role: 'user' as const, content: 'Good morning' }];
    const own = await anthropic.messages.create({ model: CLAUDE, max_tokens: 99, messages });
    expect(own.content).toMatchObject([{ type: 'text', text: 'You said: Good morning' }]);
    const streamed = await anthropic.messages.stream({ model: CLAUDE, max_tokens: 99, messages }).finalText();
    expect(streamed).toBe('You said: Good morning');
    const other = await openai.chat.completions.create({ model: CLAUDE, messages });
    expect(other.choices[0]?.message.content).toBe('You said: Good morning');
    let text = '';
    for await (const chunk of await openai.chat.completions.create({ model: CLAUDE, messages, stream: true }))
      text += chunk.choices[0]?.delta.content ?? '';
    expect(text).toBe('You said: Good morning');
  });
});
