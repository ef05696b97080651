/**
 * Requests that no client would send, on bare sockets: each gets an HTTP answer or a clean close, none is a fault of the
 * gateway (500), and the gateway answers as before afterwards.
 */
import { connect } from 'node:net';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { ask, contentOf, prompt, soon } from '../gateway/chat.ts';
import { completion, textStream } from '../support/chunks.ts';
import { configFor, startGateway, type TestGateway } from '../support/gateway.ts';
import type { Script } from '../support/script.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';

const KEY = 'fuzz-key';

let upstream: ScriptedUpstream;
let gateway: TestGateway;
const stray: unknown[] = [];
const note = (error: unknown) => stray.push(error);

beforeAll(async () => {
  process.on('unhandledRejection', note);
  process.on('uncaughtException', note);
  upstream = await startScriptedUpstream();
  upstream.always((request) => scriptFor(upstream.requests.indexOf(request)));
  const plugins = {
    pii: { at: 'local:pii-guard', history: 'mask' },
    limit: { at: 'local:local-limit', config: { limits: [{ requestsPerMinute: 1_000_000 }] } },
  };
  const keys = { at: 'local:api-key-auth', config: { keys: [{ key: KEY, subject: 'fuzz' }] } };
  const config = configFor(upstream.url, {
    plugins: { ...plugins, keys },
    limits: { headers: '8KiB', body: '64KiB', bodyTime: '100ms' },
  });
  config.routes = {
    '/': { plugins: ['pii', 'limit'], cors: true },
    '/keyed': { plugins: ['keys', 'pii'] },
    '/plain': { model: 'fixed' },
  };
  gateway = await startGateway(config, { log: 'info' });
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
  process.off('unhandledRejection', note);
  process.off('uncaughtException', note);
});

/** Providers misbehave in turn as well. */
function scriptFor(index: number): Script {
  const scripts: Script[] = [
    { whole: completion('Hi jane@example.com') },
    { stream: { events: textStream('Hi jane@example.com') } },
    { whole: '<html>', status: 502 },
    { stream: { events: textStream('Hi'), end: 'cut' } },
    { fault: 'reset' },
    { raw: 'no http\r\n\r\n' },
    { whole: completion('Hi'), headers: { 'x-odd': 'é' } },
  ];
  return scripts[index % scripts.length]!;
}

/** What came back until the other side closed: after its answer, or when it had waited long enough for the rest. */
function exchange(bytes: Buffer): Promise<string> {
  const { hostname, port } = new URL(gateway.url);
  return new Promise((resolve) => {
    const socket = connect({ host: hostname, port: Number(port) });
    let text = '';
    const done = () => {
      socket.destroy();
      resolve(text);
    };
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
    });
    socket.on('close', done);
    socket.on('error', done);
    // A connection that is kept alive after its answer.
    socket.setTimeout(500, done);
    socket.write(bytes);
  });
}

/** The statuses of the answers that stand in a text; throws when it is no sequence of answers. */
function statusesIn(text: string): number[] {
  if (text !== '' && !text.startsWith('HTTP/1.1 ')) throw new Error(`Not an answer: ${text.slice(0, 200)}`);
  return [...text.matchAll(/(?:^|[\r\n}])HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
}

async function survives(bytes: Buffer): Promise<void> {
  const statuses = statusesIn(await exchange(bytes));
  for (const status of statuses) {
    if (status === 500 || status === 501 || status > 504) throw new Error(`Answered ${status}`);
  }
}

/** Many at a time; the counterexample is small all the same. */
async function fuzz<T>(arbitrary: fc.Arbitrary<T>, toBytes: (value: T) => Buffer, runs: number): Promise<void> {
  const batch = fc.array(arbitrary, { minLength: 20, maxLength: 60, size: 'max' });
  const property = fc.asyncProperty(batch, async (values) => {
    await Promise.all(values.map((value) => survives(toBytes(value))));
  });
  await fc.assert(property, {
    numRuns: Math.ceil(runs / 40),
    interruptAfterTimeLimit: 8_000,
    markInterruptAsFailure: false,
  });
  expect(stray).toEqual([]);
  await soon(() => gateway.gateway.metrics.openRequests.value).toBe(0);
  expect(gateway.logged.filter(({ code }) => code === 'internal')).toEqual([]);
  // It goes on as if nothing had been: providers fail in turn, so the first good one is waited for.
  let content: string | undefined;
  for (let i = 0; i < 14 && content === undefined; i += 1) {
    const response = await ask(gateway, prompt('still there?'), { route: '/plain' });
    if (response.status === 200 && response.header('content-type') === 'application/json')
      content = await contentOf(response);
    else await response.text().catch(() => undefined);
  }
  expect(content).toMatch(/^Hi/);
}

// --- What is sent -----------------------------------------------------------------------------------------------------

const PATHS = [
  '/v1/chat/completions',
  '/keyed/v1/chat/completions',
  '/plain/v1/chat/completions',
  '/v1/models',
  '/v1/models/x',
  '/health',
  '/healthz',
  '/',
];

function request({ method = 'POST', path = PATHS[0]!, headers = [] as string[], body = Buffer.alloc(0) }): Buffer {
  const lines = [
    `${method} ${path} HTTP/1.1`,
    'Host: x',
    'Content-Type: application/json',
    `Content-Length: ${body.length}`,
    'Connection: close',
    ...headers,
  ];
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), body]);
}

const SOUND = request({
  body: Buffer.from(JSON.stringify(prompt('my card is 4111 1111 1111 1111', { stream: true, temperature: 0.5 }))),
});

const mutation = fc.record({
  at: fc.nat(SOUND.length),
  drop: fc.nat(4),
  insert: fc.oneof(
    fc.uint8Array({ maxLength: 6 }).map((bytes) => Buffer.from(bytes)),
    fc
      .constantFrom(
        '\r\n',
        '\n',
        '\0',
        ' ',
        ':',
        '\t',
        '{',
        '}',
        '"',
        '\\',
        '\\u0000',
        '[',
        '\r\n\r\n',
        'HTTP/1.1',
        '\xff',
      )
      .map((text) => Buffer.from(text, 'latin1')),
  ),
});

test('bytes of a sound request, changed anywhere', async () => {
  const mutated = fc.array(mutation, { minLength: 1, maxLength: 5 });
  await fuzz(
    mutated,
    (changes) =>
      changes.reduce(
        (bytes, { at, drop, insert }) => Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(at + drop)]),
        SOUND,
      ),
    1_200,
  );
});

test('bytes that are no request at all', async () => {
  await fuzz(fc.uint8Array({ maxLength: 300 }), (bytes) => Buffer.from(bytes), 300);
});

/** JSON that goes for the fields that the gateway reads. */
const { body: bodyOf } = fc.letrec((tie) => ({
  leaf: fc.oneof(
    fc.string({ unit: 'binary', maxLength: 30 }),
    fc.constantFrom(
      'user',
      'system',
      'tool',
      'text',
      'image_url',
      'jane@example.com',
      'data:image/png;base64,AA',
      '',
      '__proto__',
      '\ud800',
    ),
    fc.double(),
    fc.boolean(),
    fc.constant(null),
  ),
  value: fc.oneof({ maxDepth: 4 }, tie('leaf'), fc.array(tie('value'), { maxLength: 4 }), tie('object')),
  object: fc.dictionary(
    fc.constantFrom(
      'role',
      'content',
      'type',
      'text',
      'image_url',
      'url',
      'tool_calls',
      'function',
      'arguments',
      'name',
      'refusal',
      'custom',
      'input',
      'file',
      'input_audio',
      'audio',
      'annotations',
      '__proto__',
      'constructor',
      'a/b~c',
      '',
    ),
    tie('value'),
    { maxKeys: 5 },
  ),
  message: fc.oneof({ weight: 4, arbitrary: tie('object') }, { weight: 1, arbitrary: tie('value') }),
  body: fc.oneof(
    { weight: 1, arbitrary: tie('value') },
    {
      weight: 6,
      arbitrary: fc.record(
        {
          model: fc.oneof({ weight: 5, arbitrary: fc.constant('m') }, { weight: 1, arbitrary: tie('value') }),
          messages: fc.oneof(
            { weight: 5, arbitrary: fc.array(tie('message'), { maxLength: 4 }) },
            { weight: 1, arbitrary: tie('value') },
          ),
          stream: fc.oneof(fc.boolean(), tie('leaf')),
          stream_options: tie('value'),
          tools: tie('value'),
          functions: tie('value'),
          response_format: tie('value'),
          prediction: tie('value'),
          max_tokens: tie('leaf'),
          __proto__: tie('value'),
        },
        { requiredKeys: ['messages'] },
      ),
    },
  ),
}));

test('bodies of any shape, in the fields that are read', async () => {
  const any = fc.record({ path: fc.constantFrom(...PATHS.slice(0, 3)), body: bodyOf });
  await fuzz(
    any,
    ({ path, body }) =>
      request({ path, body: Buffer.from(JSON.stringify(body) ?? ''), headers: [`Authorization: Bearer ${KEY}`] }),
    1_200,
  );
});

const segment = fc.oneof(
  fc.constantFrom(
    'v1',
    'chat',
    'completions',
    'models',
    'keyed',
    'plain',
    '.',
    '..',
    '%2e',
    '%2E%2e',
    '',
    '%2f',
    '%00',
    '%',
    '%zz',
    '%ff',
    '%c0%ae',
    'constructor',
    '__proto__',
    '?',
    '#',
    ';',
    '*',
    '\\',
    '~',
    '%25',
    'http:',
  ),
  fc.string({ maxLength: 8 }).map((text) => text.replace(/[^!-~]/g, '')),
);

test('paths, methods and headers of any spelling', async () => {
  const name = fc.constantFrom(
    'X-A',
    'Cookie',
    'Authorization',
    'X-Api-Key',
    'X-Request-Id',
    'Origin',
    'Access-Control-Request-Headers',
    'Content-Type',
    'Content-Encoding',
    'Transfer-Encoding',
    'Expect',
    'Upgrade',
    'Connection',
    'Host',
    'Traceparent',
    'Accept',
    'Range',
    '__proto__',
    'Content-Length',
    'Te',
    'Keep-Alive',
  );
  const value = fc.oneof(
    fc.string({ maxLength: 40 }),
    fc.constantFrom(
      `Bearer ${KEY}`,
      'chunked',
      'gzip',
      '100-continue',
      'websocket',
      'close',
      'h2c',
      '*',
      'x'.repeat(9_000),
      '0',
      '\xe9',
    ),
  );
  const odd = fc.record({
    method: fc.constantFrom(
      'GET',
      'POST',
      'OPTIONS',
      'HEAD',
      'PUT',
      'DELETE',
      'PATCH',
      'TRACE',
      'CONNECT',
      'get',
      'M-SEARCH',
      'X',
    ),
    path: fc.oneof(
      fc.constantFrom(...PATHS),
      fc.array(segment, { maxLength: 6 }).map((parts) => `/${parts.join('/')}`),
      fc.constantFrom('*', 'http://x/v1/models', 'x:1'),
    ),
    headers: fc.array(
      fc.tuple(name, value).map(([key, text]) => `${key}: ${text}`),
      { maxLength: 5 },
    ),
    body: fc.constantFrom('', '{}', JSON.stringify(prompt())),
  });
  await fuzz(odd, ({ body, ...rest }) => request({ ...rest, body: Buffer.from(body) }), 1_200);
});

test('a request cut off after any of its bytes', async () => {
  await fuzz(fc.nat(SOUND.length), (length) => SOUND.subarray(0, length), 300);
  onTestFinished(() => expect(stray).toEqual([]));
});
