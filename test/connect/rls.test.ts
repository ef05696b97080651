/** Services that limit for Envoy, by the messages of the real protocol. */
import { status } from '@grpc/grpc-js';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Connection } from '../../gateway/connect/connection.ts';
import type { Allow, Identity, LimitInput, ObserveInput, Reject, RequestFacts } from '../../proto/contract.ts';
import { verdictProblem } from '../../proto/verdict.ts';
import { facts, limit, outcome, prompt } from '../contract/facts.ts';
import { connectTo } from '../contract/ways.ts';
import { ask, prompt as chat, errorOf, says, soon } from '../gateway/chat.ts';
import { completion } from '../support/chunks.ts';
import { configFor, startGateway } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { freePort } from './foreign.ts';
import { type Asked, hitsIn, type RlsServer, rlsServer } from './rls-server.ts';
import type { Answer, Refused } from './unary-server.ts';
import { itIsAUnaryWay } from './unary-way.ts';

const UNKNOWN = 0;
const OK = 1;
const OVER = 2;
const YES = { overallCode: OK };
const MINUTE = 2;

/** A status of a limit of 10 a minute, 34 seconds before its window ends. */
function standing(code: number, limitRemaining: number, more: object = {}): object {
  const currentLimit = { requestsPerUnit: 10, unit: MINUTE };
  return { code, currentLimit, limitRemaining, durationUntilReset: { seconds: 34 }, ...more };
}

const REQUESTS = { domain: 'agentgateway', descriptors: [{ entries: { route: 'openai' } }] };
const TOKENS = { domain: 'agentgateway', descriptors: [{ entries: { route: 'anthropic' }, type: 'tokens' }] };
const ESTIMATED = {
  domain: 'agentgateway',
  descriptors: [{ entries: { route: 'anthropic' }, type: 'tokens', estimate: true }],
};

type Given = (asked: Asked) => Answer | Refused;

async function withService(
  answer: Given,
  use: (connection: Connection, server: RlsServer) => Promise<void>,
  { config = REQUESTS, headers = [] as string[] }: { config?: unknown; headers?: string[] } = {},
): Promise<void> {
  await using server = await rlsServer(answer);
  const connection = await connectTo(server.at, { config, options: { shownHeaders: headers } });
  await use(connection, server).finally(() => connection.close());
}

/** What became of a question: a sound verdict, or the error. */
async function outcomeOf(connection: Connection, input = limit(), signal?: AbortSignal): Promise<unknown> {
  try {
    const verdict = await connection.ask('limit', input, { signal });
    expect(verdictProblem('limit', input, verdict)).toBeUndefined();
    return verdict;
  } catch (error) {
    return error;
  }
}

async function outcomeOn(answer: Answer | Refused, config: unknown = REQUESTS, input = limit()): Promise<unknown> {
  let outcome: unknown;
  await withService(
    () => answer,
    async (connection) => {
      outcome = await outcomeOf(connection, input, AbortSignal.timeout(2_000));
    },
    { config },
  );
  return outcome;
}

async function allowedBy(answer: object, config: unknown = REQUESTS): Promise<Allow> {
  const outcome = await outcomeOn(answer, config);
  expect(outcome).toHaveProperty('allow');
  return (outcome as { allow: Allow }).allow;
}

async function rejectedBy(answer: object, config: unknown = REQUESTS, input = limit()): Promise<Reject> {
  const outcome = await outcomeOn({ overallCode: OVER, ...answer }, config, input);
  expect(outcome).toHaveProperty('reject');
  return (outcome as { reject: Reject }).reject;
}

/** What the service was asked, when the mount is asked at `limit`. */
async function askedOf(
  config: unknown,
  request: Partial<RequestFacts> = {},
  more: Partial<LimitInput> & { headers?: string[] } = {},
): Promise<Asked[]> {
  const { headers, ...input } = more;
  let asked: Asked[] = [];
  await withService(
    () => YES,
    async (connection, server) => {
      await connection.ask('limit', { ...limit(), ...input, request: { ...facts, ...request } });
      asked = server.asked;
    },
    { config, headers },
  );
  return asked;
}

/** The value that a template has for a request; undefined when the service is not asked. */
async function filled(text: string, request: Partial<RequestFacts> = {}, headers: string[] = []) {
  const [asked] = await askedOf({ domain: 'd', descriptors: [{ entries: { it: text } }] }, request, { headers });
  return asked?.descriptors[0]?.entries[0]?.value;
}

/** What the service is told at `observe`. */
async function chargedBy(config: unknown, input: Partial<ObserveInput>, answer: Given = () => YES): Promise<Asked[]> {
  let asked: Asked[] = [];
  await withService(
    answer,
    async (connection, server) => {
      const told = await connection.ask('observe', { ...outcome(), grant: undefined, ...input });
      expect(verdictProblem('observe', input, told ?? { allow: {} })).toBeUndefined();
      asked = server.asked;
    },
    { config },
  );
  return asked;
}

async function problemsOf(config: unknown): Promise<string[]> {
  const error = await connectTo('rls://host:1', { config }).catch((thrown: unknown) => thrown);
  const { problems } = error as { problems: { path: (string | number)[]; message: string }[] };
  return problems.map(({ path, message }) => `${path.join('.')}: ${message}`);
}

describe('what the service is asked', () => {
  test('S1-44: the domain, and the descriptor route=openai with one hit', async () => {
    expect(await askedOf(REQUESTS)).toEqual([
      {
        domain: 'agentgateway',
        descriptors: [{ entries: [{ key: 'route', value: 'openai' }], hitsAddend: { value: 1 } }],
      },
    ]);
  });

  test('S1-42: tokens are only looked at before the answer: no hit, where the request’s own 0 would count as 1', async () => {
    const [asked] = await askedOf(TOKENS);
    expect(asked!.descriptors[0]!.hitsAddend).toEqual({ value: 0 });
  });

  test('S1-41: with `estimate` the prompt is counted before', async () => {
    expect(hitsIn((await askedOf(ESTIMATED, {}, { estimatedInputTokens: 123.5 }))[0]!)).toEqual({ anthropic: 124 });
    const most = (await askedOf(ESTIMATED, {}, { estimatedInputTokens: 1e300 }))[0]!;
    expect(hitsIn(most)).toEqual({ anthropic: 0xffffffff });
  });

  test('several descriptors in one call, each entry in its order', async () => {
    const descriptors = [
      { entries: { route: '{route}', user: '{identity.subject}', a: 'b' } },
      { entries: { tier: '{context.tier}' }, type: 'tokens', limit: { requestsPerUnit: 0, unit: 'hour' } },
    ];
    const [asked] = await askedOf({ domain: 'd', descriptors });
    expect(asked!.descriptors).toEqual([
      {
        entries: [
          { key: 'route', value: 'openai' },
          { key: 'user', value: 'jo' },
          { key: 'a', value: 'b' },
        ],
        hitsAddend: { value: 1 },
      },
      {
        entries: [{ key: 'tier', value: 'gold' }],
        hitsAddend: { value: 0 },
        limit: { requestsPerUnit: 0, unit: 3 },
      },
    ]);
  });

  test.each([
    ['{route}', {}, 'openai'],
    ['{route}', { route: '/' }, '/'],
    ['{route}', { route: '/policy/openai' }, 'policy/openai'],
    ['{method} {path}', {}, 'POST /openai/v1/chat/completions'],
    ['{provider}/{model}', {}, 'openai/gpt-4o-mini'],
    ['{identity.claims.level}', {}, '3'],
    ['{ identity.groups }', {}, 'staff'],
    ['{context.tier:-none}', {}, 'gold'],
    ['{context.none:-none}', {}, 'none'],
    ['x{context.none:-}y', {}, 'xy'],
    ['{context.none:-}', {}, undefined],
    ['{context.none}y', {}, undefined],
  ])('%s of %o is %s', async (text, request, expected) => {
    expect(await filled(text, request)).toBe(expected);
  });

  test('a header that the mount is shown', async () => {
    const request = { headers: { 'x-team': 'red', 'x-empty': '' } };
    expect(await filled('{header.X-Team}', request, ['x-team'])).toBe('red');
    expect(await filled('{header.x-empty}', request, ['x-empty'])).toBeUndefined();
    expect(await filled('{header.constructor}', request, ['constructor'])).toBeUndefined();
    expect(await filled('{context.toString}', request)).toBeUndefined();
  });

  test('a long value as its digest, and text that is no Unicode with a mark in its place', async () => {
    const long = await filled('{model}', { model: 'm'.repeat(100_000) });
    expect(long).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(await filled('{model}', { model: 'm'.repeat(100_001) })).not.toBe(long);
    expect(await filled('{model}', { model: 'a\ud800b' })).toBe('a\ufffdb');
    expect(await filled('c'.repeat(300))).toBe('c'.repeat(300));
  });

  test('not of a descriptor that lacks a value; without any it is not asked, and nothing is limited', async () => {
    const descriptors = [
      { entries: { user: '{identity.subject}' } },
      { entries: { route: '{route}', team: '{context.team}' } },
    ];
    const config = { domain: 'd', descriptors };
    expect((await askedOf(config)).map(hitsIn)).toEqual([{ jo: 1 }]);
    const stranger = { identity: undefined };
    expect(await askedOf(config, stranger)).toEqual([]);
    await withService(
      () => ({ overallCode: OVER }),
      async (connection) => {
        expect(await outcomeOf(connection, { ...limit(), request: { ...facts, ...stranger } })).toEqual({ allow: {} });
      },
      { config },
    );
  });

  test('nothing at other hooks', () =>
    withService(
      () => YES,
      async (connection) => {
        expect(connection.description).toMatchObject({ hooks: ['limit'], rewrites: false });
        expect(() => connection.ask('request', prompt('hello'))).toThrow('does not answer');
      },
    ));
});

describe('a config that makes no sense is told with its places', () => {
  test.each<[string, unknown, string]>([
    ['none', undefined, 'domain: Name the domain'],
    ['no descriptors', { domain: 'd' }, 'descriptors: List the descriptors'],
    ['an empty list', { domain: 'd', descriptors: [] }, 'descriptors: Name at least one descriptor.'],
    ['an unknown setting', { ...REQUESTS, failOpen: true }, 'failOpen: This setting is not known.'],
  ])('%s', async (_title, config, problem) => {
    expect((await problemsOf(config)).join('\n')).toContain(problem);
  });

  test.each<[string, object, string]>([
    ['no entries', {}, 'descriptors.0.entries: Write keys and texts'],
    ['an empty map', { entries: {} }, 'descriptors.0.entries: Name at least one key.'],
    ['a number', { entries: { a: 1 } }, 'descriptors.0.entries.a: Write a text'],
    ['no text', { entries: { a: '' } }, 'descriptors.0.entries.a: It is empty.'],
    ['keys whose order would be lost', { entries: { b: 'c', 1: 'd' } }, 'descriptors.0.entries.1: '],
    ['an unknown fact', { entries: { a: '{user}' } }, 'descriptors.0.entries.a: {user} is not known'],
    ['an unknown field', { entries: { a: '{identity.password}' } }, '{identity.password} is not known'],
    ['a name of every object', { entries: { a: '{constructor}' } }, '{constructor} is not known'],
    ['a brace', { entries: { a: 'x}' } }, 'descriptors.0.entries.a: A brace here'],
    ['a header that is not shown', { entries: { a: '{header.x-a}' } }, 'name it in its `headers`'],
    ['another type', { entries: { a: 'b' }, type: 'cost' }, 'descriptors.0.type: Write requests or tokens.'],
    ['an estimate of requests', { entries: { a: 'b' }, estimate: true }, 'descriptors.0.estimate: Only a descriptor'],
    [
      'another unit',
      { entries: { a: 'b' }, limit: { requestsPerUnit: 1, unit: 'week' } },
      'descriptors.0.limit.unit: Write one of second',
    ],
  ])('%s', async (_title, descriptor, problem) => {
    expect((await problemsOf({ domain: 'd', descriptors: [descriptor] })).join('\n')).toContain(problem);
  });

  test('by the gateway with line and path', async () => {
    const rls = { at: 'rls://host:1', config: { domain: 'd', descriptors: [{ entries: { route: '{rout}' } }] } };
    await expect(startGateway(configFor('http://127.0.0.1:1', { plugins: { rls } }))).rejects.toThrow(
      /line \d+: plugins\.rls\.config\.descriptors\.0\.entries\.route: \{rout\} is not known/,
    );
  });
});

describe('a yes', () => {
  test('OK alone, as a service says that keeps its figures to itself', async () => {
    expect(await allowedBy(YES)).toEqual({ headers: {} });
    expect(await allowedBy({ ...YES, statuses: [{ code: OK }] })).toEqual({ headers: {} });
  });

  test('S1-40: with the limit as it stands', async () => {
    expect(await allowedBy({ ...YES, statuses: [standing(OK, 9)] })).toEqual({
      headers: {
        'x-ratelimit-limit': '10',
        'x-ratelimit-remaining': '9',
        'x-ratelimit-reset': '34',
        'ratelimit-policy': '"it";q=10;w=60',
        ratelimit: '"it";r=9;t=34',
      },
    });
  });

  test('of several limits the one of which the least is left', async () => {
    const config = { domain: 'd', descriptors: ['a', 'b', 'c'].map((a) => ({ entries: { a }, type: 'tokens' })) };
    const roomy = { currentLimit: { requestsPerUnit: 1_000, unit: 3, name: 'per-hour' } };
    const unlimited = { code: OK, limitRemaining: 0xffffffff };
    const { headers } = await allowedBy(
      { ...YES, statuses: [standing(OK, 3), standing(OK, 200, roomy), unlimited] },
      config,
    );
    expect(headers).toMatchObject({
      'x-ratelimit-limit': '1000',
      'ratelimit-policy': '"per-hour";q=1000;w=3600;qu="tokens"',
      ratelimit: '"per-hour";r=200;t=34',
    });
  });

  test('the service’s own headers stand before ours', async () => {
    const responseHeadersToAdd = [
      { key: 'RateLimit-Limit', value: '10, 10;w=60' },
      { key: 'x-ratelimit-remaining', rawValue: Buffer.from('7') },
      { key: 'x-empty' },
    ];
    const { headers } = await allowedBy({ ...YES, statuses: [standing(OK, 9)], responseHeadersToAdd });
    expect(headers).toMatchObject({ 'ratelimit-limit': '10, 10;w=60', 'x-ratelimit-remaining': '7' });
    expect(headers).not.toHaveProperty('x-empty');
  });

  test.each([
    ['a line break', { key: 'x-a', value: 'a\r\nset-cookie: b' }],
    ['a bad name', { key: 'x a', value: 'b' }],
    ['a framing', { key: 'Content-Length', value: '0' }],
    ['a cookie', { key: 'Set-Cookie', value: 'a=b' }],
    ['10 KB', { key: 'x-a', value: 'a'.repeat(10_000) }],
  ])('with %s among them, none of them is sent', async (_title, header) => {
    const responseHeadersToAdd = [{ key: 'x-ok', value: '1' }, header];
    const allow = await allowedBy({ ...YES, statuses: [standing(OK, 9)], responseHeadersToAdd });
    expect(Object.keys(allow.headers!)).not.toContain('x-ok');
    expect(allow.headers).toMatchObject({ 'x-ratelimit-limit': '10' });
    const reject = await rejectedBy({ responseHeadersToAdd });
    expect(reject.headers).toEqual({});
  });
});

describe('a no', () => {
  test('S1-40: says what the limit is, and until when', async () => {
    expect(await rejectedBy({ statuses: [standing(OVER, 0)] })).toEqual({
      code: 'rate_limit_exceeded',
      message: 'The limit of 10 requests per minute is reached. Try again in 34 seconds.',
      headers: {
        'x-ratelimit-limit': '10',
        'x-ratelimit-remaining': '0',
        'x-ratelimit-reset': '34',
        'ratelimit-policy': '"it";q=10;w=60',
        ratelimit: '"it";r=0;t=34',
        'retry-after': '34',
      },
    });
  });

  test('without a reason, for a service that gives none', async () => {
    const told = { code: 'rate_limit_exceeded', message: expect.stringContaining('Try again later.'), headers: {} };
    expect(await rejectedBy({})).toEqual(told);
    expect(await rejectedBy({ statuses: [standing(OVER, 0), standing(OVER, 0)] })).toEqual(told);
    expect(await rejectedBy({ statuses: [{ code: OVER }] })).toEqual(told);
  });

  test('of several limits waits for the last one, and no longer', async () => {
    const config = { domain: 'd', descriptors: ['a', 'b', 'c'].map((a) => ({ entries: { a } })) };
    const day = { currentLimit: { requestsPerUnit: 1, unit: 4 }, durationUntilReset: { seconds: 7_300, nanos: 1 } };
    const year = { currentLimit: { requestsPerUnit: 1, unit: 6 }, durationUntilReset: { seconds: 9_000_000 } };
    const { message, headers } = await rejectedBy(
      { statuses: [standing(OVER, 0), standing(OVER, 0, day), standing(OK, 1, year)] },
      config,
    );
    expect(message).toBe('The limit of 1 request per day is reached. Try again in 3 hours.');
    expect(headers).toMatchObject({ 'retry-after': '7301', 'x-should-retry': 'false' });
  });

  test('S1-41: a prompt that alone is more than the limit is told to be shorter, not to wait', async () => {
    const { message, headers } = await rejectedBy({ statuses: [standing(OVER, 0)] }, ESTIMATED, limit(11));
    expect(message).toBe('This request is estimated at 11 tokens, and the limit is 10 tokens per minute. Shorten it.');
    expect(headers).not.toHaveProperty('retry-after');
    expect(headers).toMatchObject({ 'x-should-retry': 'false' });
    const fits = await rejectedBy({ statuses: [standing(OVER, 0)] }, ESTIMATED, limit(10));
    expect(fits.message).toBe('The limit of 10 tokens per minute is reached. Try again in 34 seconds.');
  });

  test.each([
    [1, '1 second'],
    [60, '1 minute'],
    [61, '61 seconds'],
    [120, '2 minutes'],
    [3_600, '1 hour'],
    [172_800, '2 days'],
    [0, '1 second'],
    [-5, '1 second'],
    [9e15, '366 days'],
  ])('%d seconds are %s', async (seconds, words) => {
    const { message } = await rejectedBy({ statuses: [standing(OVER, 0, { durationUntilReset: { seconds } })] });
    expect(message).toContain(`Try again in ${words}.`);
  });

  test('brings the service’s own body along', async () => {
    const rawBody = Buffer.from('{"why":"größe"}');
    const plain = await rejectedBy({ rawBody });
    expect(plain).toMatchObject({ body: '{"why":"größe"}', contentType: 'application/json' });
    const responseHeadersToAdd = [{ key: 'content-type', value: 'text/html' }];
    const typed = await rejectedBy({ rawBody, responseHeadersToAdd });
    expect(typed).toMatchObject({ contentType: 'text/html', headers: {} });
    expect(await rejectedBy({ rawBody: Buffer.from([0xff, 0xfe]) })).not.toHaveProperty('body');
    expect((await rejectedBy({ rawBody: Buffer.alloc(200_000, 'x') })).body).toHaveLength(65_536);
  });
});

describe('no decision', () => {
  test.each<[string, Answer | Refused]>([
    ['an empty reply', {}],
    ['UNKNOWN', { overallCode: UNKNOWN, statuses: [standing(OK, 9)] }],
    ['a code that there is not', { overallCode: 3 }],
    ['OK with a status too many', { ...YES, statuses: [standing(OK, 9), standing(OK, 9)] }],
    ['OK with a status that is UNKNOWN', { ...YES, statuses: [{ limitRemaining: 9 }] }],
    ['a reply that is not of the protocol', Buffer.from('ffffffff0f01', 'hex')],
    ['half a reply', Buffer.from('1205', 'hex')],
    ['a reply of 2 MiB', { ...YES, rawBody: Buffer.alloc(2 * 1024 * 1024) }],
  ])('%s', async (_title, answer) => {
    expect(await outcomeOn(answer)).toMatchObject({ name: 'PluginFault' });
  });

  test('whatever the reply holds, only a plain OK is a yes, and OVER_LIMIT is always a no', async () => {
    const code = fc.oneof(fc.constantFrom(0, 1, 2), fc.integer({ min: -9, max: 9 }));
    const number = fc.oneof(fc.constantFrom(0, 1, 10, 0xffffffff), fc.nat());
    const current = fc.record({ requestsPerUnit: number, unit: fc.nat(9), name: fc.string() }, { requiredKeys: [] });
    const duration = fc.record({ seconds: fc.maxSafeInteger(), nanos: fc.integer() }, { requiredKeys: [] });
    const one = fc.record(
      { code, currentLimit: current, limitRemaining: number, durationUntilReset: duration },
      { requiredKeys: [] },
    );
    const header = fc.record({ key: fc.string(), value: fc.string() }, { requiredKeys: [] });
    const reply = fc.record(
      {
        overallCode: code,
        statuses: fc.array(one, { maxLength: 3 }),
        responseHeadersToAdd: fc.array(header, { maxLength: 3 }),
        rawBody: fc.uint8Array({ maxLength: 9 }).map((bytes) => Buffer.from(bytes)),
      },
      { requiredKeys: [] },
    );
    let answer: object = {};
    await withService(
      () => answer,
      async (connection) => {
        await fc.assert(
          fc.asyncProperty(reply, async (given) => {
            answer = given;
            const { overallCode, statuses = [] } = given;
            const isSound = statuses.length === 0 || (statuses.length === 1 && [1, 2].includes(statuses[0]!.code ?? 0));
            const verdict = (await outcomeOf(connection)) as object;
            expect('allow' in verdict).toBe(overallCode === OK && isSound);
            expect('reject' in verdict).toBe(overallCode === OVER);
          }),
          { numRuns: 500 },
        );
      },
    );
  });

  test('whatever bytes come, they are a yes only when they say so', async () => {
    let bytes = Buffer.alloc(0);
    const given = fc.oneof(
      fc.uint8Array({ maxLength: 24 }),
      fc.uint8Array({ maxLength: 12 }).map((rest) => Uint8Array.of(0x08, 0x01, ...rest)),
    );
    await withService(
      () => bytes,
      async (connection) => {
        await fc.assert(
          fc.asyncProperty(given, async (reply) => {
            bytes = Buffer.from(reply);
            const verdict = await outcomeOf(connection);
            // Field 1 is the overall code: without its tag and OK there is no yes.
            if ('allow' in (verdict as object)) expect(bytes.toString('hex')).toMatch(/08(?:[89a-f].)*01/);
          }),
          { numRuns: 500 },
        );
      },
    );
  });
});

describe('the tokens of an answer', () => {
  const usage = { inputTokens: 20, outputTokens: 400 };

  test('S1-41, S1-42: are told when it has ended', async () => {
    expect((await chargedBy(TOKENS, { usage })).map(hitsIn)).toEqual([{ anthropic: 420 }]);
  });

  test('S1-41: less the estimate that was counted before', async () => {
    let grant: string | undefined;
    await withService(
      () => YES,
      async (connection) => {
        ({ grant } = ((await connection.ask('limit', limit(30))) as { allow: Allow }).allow);
      },
      { config: ESTIMATED },
    );
    expect(grant).toBe('30');
    expect((await chargedBy(ESTIMATED, { usage, grant })).map(hitsIn)).toEqual([{ anthropic: 390 }]);
    expect((await chargedBy(TOKENS, { usage, grant })).map(hitsIn)).toEqual([{ anthropic: 420 }]);
  });

  test.each<[string, unknown, Partial<ObserveInput>]>([
    ['nothing was used', TOKENS, { usage: undefined }],
    ['no token was', TOKENS, { usage: { inputTokens: 0, outputTokens: 0 } }],
    ['less was than estimated: the protocol cannot give back', ESTIMATED, { usage, grant: '1000' }],
    ['only requests count', REQUESTS, { usage }],
    ['figures are none', TOKENS, { usage: { inputTokens: Number.NaN, outputTokens: -5 } }],
  ])('are not told when %s', async (_title, config, input) => {
    expect(await chargedBy(config, input)).toEqual([]);
  });

  test('of strange figures are counted as far as they go', async () => {
    const huge = { inputTokens: 1e300, outputTokens: 1 };
    expect((await chargedBy(TOKENS, { usage: huge })).map(hitsIn)).toEqual([{ anthropic: 0xffffffff }]);
    expect((await chargedBy(ESTIMATED, { usage, grant: 'x' })).map(hitsIn)).toEqual([{ anthropic: 420 }]);
  });

  test.each([OVER, UNKNOWN])('the verdict %i on them is too late to matter', async (overallCode) => {
    expect(await chargedBy(TOKENS, { usage }, () => ({ overallCode }))).toHaveLength(1);
  });

  test('a service that fails is a fault, for the log', () =>
    withService(
      () => ({ code: status.INTERNAL }),
      async (connection) => {
        await expect(connection.ask('observe', outcome())).rejects.toMatchObject({ name: 'PluginFault' });
      },
      { config: TOKENS },
    ));
});

describe('the way there', () => {
  itIsAUnaryWay({
    scheme: 'rls',
    serve: rlsServer,
    ask: (connection, signal) => outcomeOf(connection, limit(), signal),
    yes: YES,
    service: 'RateLimitService',
    config: REQUESTS,
  });
});

describe('through the gateway', () => {
  const demo = {
    domain: 'agentgateway',
    descriptors: [
      { entries: { route: '{context.requests}' } },
      { entries: { route: '{context.tokens}' }, type: 'tokens' },
    ],
  };
  const routes = {
    '/openai': { plugins: ['quota'], context: { requests: 'openai' } },
    '/bedrock': { plugins: ['quota'], context: { tokens: 'bedrock' } },
    '/gemini': { plugins: ['quota'] },
  };

  test('S1-43: one mount for all routes: each has the descriptors that its context names, and one has none', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.always({
      whole: completion('Hi there', { usage: { prompt_tokens: 11, completion_tokens: 9, total_tokens: 20 } }),
    });
    await using server = await rlsServer(() => YES);
    const quota = { at: server.at, config: demo };
    await using gateway = await startGateway({ ...configFor(upstream.url, { plugins: { quota } }), routes });
    for (const route of Object.keys(routes)) expect((await ask(gateway, chat(), { route })).status).toBe(200);
    await soon(() => server.asked.map(hitsIn)).toEqual([{ openai: 1 }, { bedrock: 0 }, { bedrock: 20 }]);
  });

  test('S1-40: a no is 429 in the client’s dialect, or as the mount says', async () => {
    await using upstream = await startScriptedUpstream();
    await using server = await rlsServer(() => ({ overallCode: OVER, statuses: [standing(OVER, 0)] }));
    const quota = { at: server.at, config: REQUESTS };
    const rejection = { body: 'rate limit exceeded', contentType: 'text/plain' };
    const plugins = { quota, plain: { ...quota, rejection } };
    await using gateway = await startGateway({
      ...configFor(upstream.url, { plugins }),
      routes: { '/a': { plugins: ['quota'] }, '/b': { plugins: ['plain'] } },
    });
    const refused = await ask(gateway, chat(), { route: '/a' });
    expect(refused.header('retry-after')).toBe('34');
    expect(await errorOf(refused)).toMatchObject({
      status: 429,
      code: 'rate_limit_exceeded',
      message: 'The limit of 10 requests per minute is reached. Try again in 34 seconds.',
    });
    const plain = await ask(gateway, chat(), { route: '/b' });
    expect([plain.status, await plain.text()]).toEqual([429, 'rate limit exceeded']);
    expect(['limit', 'remaining', 'reset'].map((name) => plain.header(`x-ratelimit-${name}`))).toEqual([
      '10',
      '0',
      '34',
    ]);
    expect(upstream.requests).toHaveLength(0);
  });

  test.each(['reject', 'allow'])('S1-45: a limiter that is away, with onFault: %s', async (onFault) => {
    await using upstream = await startScriptedUpstream();
    upstream.always(says());
    const quota = { at: `rls://127.0.0.1:${await freePort()}`, config: REQUESTS, onFault };
    await using gateway = await startGateway(configFor(upstream.url, { plugins: { quota } }));
    const response = await ask(gateway);
    if (onFault === 'allow') expect(response.status).toBe(200);
    else expect(await errorOf(response)).toMatchObject({ status: 503, code: 'guard_unavailable' });
    expect(upstream.requests).toHaveLength(onFault === 'allow' ? 1 : 0);
  });

  test('who asks, and a header, tell the service whose request it is', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.always(says());
    await using server = await rlsServer(() => YES);
    const config = {
      domain: 'd',
      descriptors: [{ entries: { user: '{identity.subject}', task: '{header.x-task:-chat}' } }],
    };
    const jo: Identity = { subject: 'jo' };
    const plugins = {
      keys: { at: 'local:api-key-auth', config: { keys: [{ key: 'sk-a-long-and-random-key', ...jo }] } },
      quota: { at: server.at, config, headers: ['X-Task'] },
    };
    await using gateway = await startGateway(configFor(upstream.url, { plugins }));
    const authorization = 'Bearer sk-a-long-and-random-key';
    await ask(gateway, chat(), { headers: { authorization, 'x-task': 'title' } });
    await ask(gateway, chat(), { headers: { authorization } });
    expect(server.asked.map(hitsIn)).toEqual([{ 'jo,title': 1 }, { 'jo,chat': 1 }]);
  });
});
