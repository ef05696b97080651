import { createHash, createHmac } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand } from '@aws-sdk/client-bedrock-runtime';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { GatewayError } from '../../../gateway/errors.ts';
import { type Find, fixedCredentials, foundCredentials } from '../../../gateway/providers/bedrock/credentials.ts';
import { bedrock } from '../../../gateway/providers/bedrock/provider.ts';
import { signer } from '../../../gateway/providers/bedrock/sign.ts';
import type { Provider, UnsignedCall } from '../../../gateway/providers/provider.ts';
import { fixtureNames, replyFixture, streamFixture } from '../../support/fixture.ts';

const NOW = new Date('2026-11-21T16:50:03Z');
const KEYS = { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY' };
const MODELS = [
  'global.anthropic.claude-sonnet-4-20250514-v1:0',
  'arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/a.b_c-1',
  "odd (name)'s !*~ é/../x",
];
const COMMON = {
  kind: 'bedrock',
  region: 'us-west-2',
  timeouts: { connect: 1, firstByte: 1, idle: 1 },
  streamUsage: true,
  unmapped: 'refuse' as const,
};

function made(settings: object = {}): Provider {
  return bedrock.make('aws', { ...COMMON, ...settings } as never);
}

function headersOf({ headers }: { headers: string[] }): Record<string, string> {
  const all: Record<string, string> = {};
  for (let i = 0; i < headers.length; i += 2) all[headers[i]!] = headers[i + 1]!;
  return all;
}

const CALL: UnsignedCall = { method: 'POST', path: '/model/a.b/converse', headers: [], body: '{}' };

type Next = (args: { request: { headers: Record<string, string> } }) => Promise<never>;

/** What the official client would have sent; nothing but what the gateway signs too is left for it to sign. */
async function sentByClient(modelId: string, sessionToken?: string) {
  let sent: { path: string; body: Uint8Array; headers: Record<string, string> } | undefined;
  const client = new BedrockRuntimeClient({
    region: 'us-west-2',
    credentials: { ...KEYS, sessionToken },
    requestHandler: {
      metadata: { handlerProtocol: 'http/1.1' },
      handle: (request: never) => {
        sent = request;
        return Promise.reject(new Error('sent'));
      },
    } as never,
    maxAttempts: 1,
  });
  const bare = (next: Next) => (args: Parameters<Next>[0]) => {
    const { headers } = args.request;
    for (const name of Object.keys(headers)) if (name !== 'host' && name !== 'content-type') delete headers[name];
    return next(args);
  };
  client.middlewareStack.addRelativeTo(bare as never, { relation: 'before', toMiddleware: 'httpSigningMiddleware' });
  const input = { modelId, messages: [{ role: 'user' as const, content: [{ text: 'Grüße' }] }] };
  await client.send(new ConverseCommand(input)).catch(() => undefined);
  return sent!;
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html */
function documented(canonical: string[], time: string, scope: string): string {
  const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest();
  const text = ['AWS4-HMAC-SHA256', time, scope, sha256(canonical.join('\n'))].join('\n');
  const key = scope.split('/').reduce<string | Buffer>(hmac, `AWS4${KEYS.secretAccessKey}`);
  return hmac(key, text).toString('hex');
}

describe('the signature (S1-23)', () => {
  beforeEach(() => vi.useFakeTimers({ now: NOW, toFake: ['Date'] }));
  afterEach(() => vi.useRealTimers());

  test.each(MODELS)('for %s is the official client’s', async (model) => {
    for (const sessionToken of [undefined, 'IQoJb3JpZ2luX2VjE+/=']) {
      const provider = made({ ...KEYS, sessionToken });
      const { path, body, headers } = await sentByClient(model, sessionToken);
      const path_ = provider.endpoints.chat[0]!.path({ model, stream: false });
      expect(path_).toBe(path);
      const call = {
        method: 'POST',
        path: path_,
        headers: ['x-request-id', 'abc'],
        body: Buffer.from(new Uint8Array(body)),
      };
      const signed = headersOf(await provider.sign(call));
      expect(signed.authorization).toBe(headers.authorization);
      expect(signed['x-amz-security-token']).toBe(sessionToken);
      expect(signed['content-type']).toBe('application/json');
    }
  });

  test('is made of what AWS documents, step by step', async () => {
    // The first of AWS's published examples (get-vanilla) shows that the steps are the right ones.
    const vanilla = [
      'GET',
      '/',
      '',
      'host:example.amazonaws.com',
      'x-amz-date:20150830T123600Z',
      '',
      'host;x-amz-date',
    ];
    expect(documented([...vanilla, sha256('')], '20150830T123600Z', '20150830/us-east-1/service/aws4_request')).toBe(
      '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31',
    );
    const body = '{"a":"é"}';
    const sign = signer({ region: 'eu-west-1', host: 'localhost:8080' }, fixedCredentials(KEYS), () => NOW);
    const path = '/model/a%3A0/converse?b=2&a=x%20y&a=%2F';
    const { headers } = await sign({ method: 'POST', path, headers: ['content-type', 'application/json'], body });
    const names = 'content-type;host;x-amz-content-sha256;x-amz-date';
    const canonical = [
      'POST',
      '/model/a%253A0/converse',
      'a=%2F&a=x%20y&b=2',
      'content-type:application/json',
      'host:localhost:8080',
      `x-amz-content-sha256:${sha256(body)}`,
      'x-amz-date:20261121T165003Z',
      '',
      names,
      sha256(body),
    ];
    const scope = '20261121/eu-west-1/bedrock/aws4_request';
    const signature = documented(canonical, '20261121T165003Z', scope);
    expect(headersOf({ headers }).authorization).toBe(
      `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/${scope}, SignedHeaders=${names}, Signature=${signature}`,
    );
  });

  test('takes the place of one that the client made, and of its host', async () => {
    const theirs = [
      'Authorization',
      'theirs',
      'x-amz-date',
      'theirs',
      'x-amz-security-token',
      'theirs',
      'Host',
      'theirs',
    ];
    const { headers } = await made(KEYS).sign({ ...CALL, headers: [...theirs, 'x-amz-meta', 'a  b'] });
    expect(headers).not.toContain('theirs');
    expect(headersOf({ headers }).authorization).toContain('SignedHeaders=content-type;host;x-amz-content-sha256');
    expect(headersOf({ headers }).authorization).toContain(';x-amz-meta,');
  });

  test('of a query that is none is the client’s mistake', async () => {
    const signed = made(KEYS).sign({ ...CALL, path: '/x?a=%', method: 'GET', body: undefined });
    await expect(signed).rejects.toMatchObject({ code: 'invalid_request' });
  });
});

describe('credentials', () => {
  const found = (settings: object = {}) => made(settings).sign(CALL);

  beforeEach(async () => {
    for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN', 'AWS_PROFILE'])
      vi.stubEnv(name, undefined);
    for (const name of ['AWS_BEARER_TOKEN_BEDROCK', 'AWS_CONTAINER_CREDENTIALS_FULL_URI']) vi.stubEnv(name, undefined);
    vi.stubEnv('AWS_CONFIG_FILE', '/nonexistent');
    vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', '/nonexistent');
    vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');
  });

  test('come from the environment', async () => {
    vi.stubEnv('AWS_ACCESS_KEY_ID', 'AKIDENV');
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'secret');
    vi.stubEnv('AWS_SESSION_TOKEN', 'token');
    const headers = headersOf(await found());
    expect(headers.authorization).toContain('Credential=AKIDENV/');
    expect(headers['x-amz-security-token']).toBe('token');
  });

  test('come from a profile file', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'wardgate-'));
    try {
      const file = join(folder, 'credentials');
      await writeFile(file, '[team]\naws_access_key_id = AKIDFILE\naws_secret_access_key = secret\n');
      vi.stubEnv('AWS_SHARED_CREDENTIALS_FILE', file);
      expect(headersOf(await found({ profile: 'team' })).authorization).toContain('Credential=AKIDFILE/');
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('come from a container’s endpoint, asked once for all who wait', async () => {
    let asked = 0;
    const server = createServer((_request, response) => {
      asked += 1;
      const Expiration = new Date(Date.now() + 3_600_000).toISOString();
      response.end(JSON.stringify({ AccessKeyId: 'AKIDTASK', SecretAccessKey: 'secret', Token: 'token', Expiration }));
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    try {
      const { port } = server.address() as AddressInfo;
      vi.stubEnv('AWS_CONTAINER_CREDENTIALS_FULL_URI', `http://127.0.0.1:${port}/credentials`);
      const provider = made();
      const calls = await Promise.all(Array.from({ length: 20 }, () => provider.sign(CALL)));
      await provider.sign(CALL);
      expect(calls.every((call) => headersOf(call).authorization?.includes('Credential=AKIDTASK/'))).toBe(true);
      expect(asked).toBe(1);
    } finally {
      server.close();
    }
  });

  test('that are nowhere are told as such, without a word of where they were looked for', async () => {
    await expect(found()).rejects.toMatchObject({
      code: 'upstream_refused_key',
      message:
        'The gateway has no AWS credentials: the provider “aws” was not asked. Ask the gateway’s operator to see to it.',
    });
  });

  test('a key of Bedrock’s own is sent as it is, from the config or the environment', async () => {
    expect(headersOf(await found({ key: 'ABSKconfig' })).authorization).toBe('Bearer ABSKconfig');
    vi.stubEnv('AWS_BEARER_TOKEN_BEDROCK', 'ABSKenv');
    const { headers } = await made().sign({ ...CALL, headers: ['authorization', 'theirs', 'x-amz-date', 'theirs'] });
    expect(headersOf({ headers }).authorization).toBe('Bearer ABSKenv');
    expect(headers).not.toContain('theirs');
    expect(headersOf(await found(KEYS)).authorization).toContain('Credential=AKIDEXAMPLE/');
  });

  test('are looked for again when Bedrock says that they are too old', async () => {
    vi.useFakeTimers({ now: NOW, toFake: ['Date'] });
    try {
      vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'secret');
      vi.stubEnv('AWS_ACCESS_KEY_ID', 'AKIDOLD');
      const provider = made();
      const idOf = async () => /Credential=(\w+)/.exec(headersOf(await provider.sign(CALL)).authorization ?? '')?.[1];
      expect(await idOf()).toBe('AKIDOLD');
      vi.stubEnv('AWS_ACCESS_KEY_ID', 'AKIDNEW');
      vi.setSystemTime(NOW.getTime() + 60_000);
      provider.readError(403, { message: 'No.' }, { 'x-amzn-errortype': 'AccessDeniedException' });
      expect(await idOf()).toBe('AKIDOLD');
      provider.readError(403, { message: 'Old.' }, { 'x-amzn-errortype': 'ExpiredTokenException' });
      expect(await idOf()).toBe('AKIDNEW');
    } finally {
      vi.useRealTimers();
    }
  });

  test('need both halves', () => {
    expect(() => made({ accessKeyId: 'a' })).toThrow('needs `accessKeyId` and `secretAccessKey`, both or none');
  });

  describe('that are looked for', () => {
    const asked: boolean[] = [];
    let answer: () => Promise<typeof KEYS> = () => Promise.resolve(KEYS);
    const find: Find = ({ forceRefresh }) => {
      asked.push(forceRefresh);
      return answer();
    };
    beforeEach(() => {
      asked.length = 0;
      answer = () => Promise.resolve(KEYS);
      vi.useFakeTimers({ now: NOW, toFake: ['Date'] });
    });
    afterEach(() => vi.useRealTimers());

    test('and are not there are asked for again after 5 seconds only', async () => {
      answer = () => Promise.reject(new Error('The SSO session has expired. Run aws sso login.'));
      const source = foundCredentials('aws', undefined, find);
      await expect(source.get()).rejects.toThrow('The gateway’s AWS credentials have expired');
      await expect(source.get()).rejects.toBeInstanceOf(GatewayError);
      expect(asked).toEqual([false]);
      answer = () => Promise.resolve(KEYS);
      vi.setSystemTime(NOW.getTime() + 5_000);
      expect(await source.get()).toBe(KEYS);
    });

    test('and were refused as too old are looked for anew, once', async () => {
      const source = foundCredentials('aws', undefined, find);
      await source.get();
      vi.setSystemTime(NOW.getTime() + 60_000);
      source.forget();
      await source.get();
      source.forget();
      await source.get();
      expect(asked).toEqual([false, true, false]);
    });
  });
});

describe('the official client reads the samples', () => {
  function client(contentType: string, body: Buffer | string): BedrockRuntimeClient {
    const headers = { 'content-type': contentType };
    const requestHandler = {
      metadata: { handlerProtocol: 'http/1.1' },
      handle: async () => ({ response: { statusCode: 200, headers, body: asStream(body) } }),
    };
    const settings = { region: 'us-west-2', credentials: KEYS, maxAttempts: 1 };
    return new BedrockRuntimeClient({ ...settings, requestHandler: requestHandler as never });
  }

  const whole = fixtureNames('streams', 'bedrock').filter((name) => name !== 'error');

  test.each(whole)('of %s, whole and streamed, with the same words', async (name) => {
    const json = JSON.stringify(replyFixture('bedrock', name));
    const answer = await client('application/json', json).send(new ConverseCommand({ modelId: 'm' }));
    const frames = client('application/vnd.amazon.eventstream', streamFixture('bedrock', `${name}.bin`));
    const { stream } = await frames.send(new ConverseStreamCommand({ modelId: 'm' }));
    let text = '';
    let last = '';
    for await (const event of stream ?? []) {
      text += event.contentBlockDelta?.delta?.text ?? '';
      last = Object.keys(event)[0] ?? '';
    }
    const blocks = answer.output?.message?.content ?? [];
    const said = blocks.flatMap((block) => [block.text, ...(block.citationsContent?.content ?? []).map((c) => c.text)]);
    expect(text).toBe(said.join(''));
    expect(last).toBe('metadata');
    expect(answer.stopReason).toBe(replyFixture('bedrock', name).stopReason);
  });
});

async function* bytesOf(body: Buffer | string): AsyncGenerator<Buffer> {
  yield Buffer.from(body);
}

function asStream(body: Buffer | string): Readable {
  return Readable.from(bytesOf(body));
}
