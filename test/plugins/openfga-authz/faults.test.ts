/** OpenFGA on a bad day: whatever it does instead of deciding, nobody gets through, and nobody is told no either. */
import { describe, expect, test } from 'vitest';
import { errorOf, soon } from '../../gateway/chat.ts';
import { freePort } from '../../support/free-port.ts';
import { FakeOpenfga, type Odd, startFakeOpenfga } from './fake-openfga.ts';
import { startGuarded } from './gateway.ts';

const BOB = 'user:bob can_use model:gpt-4o';
const validation = { code: 'validation_error', message: "invalid 'user' field: user:secret-bob" };

const ODD: [string, Odd, RegExp][] = [
  ['hangs', 'hang', /openfga_late: OpenFGA gave no answer within 150 ms/],
  ['drops the connection', 'cut', /openfga_unreachable: .*Is it running/],
  [
    'answers 500',
    { status: 500, body: { code: 'internal_error', message: 'x' } },
    /openfga_failed: .*500 internal_error/,
  ],
  ['answers 503 without a word', { status: 503, body: '' }, /openfga_failed: .*503/],
  [
    'answers 400',
    { status: 400, body: validation },
    /openfga_odd_question: .*400 validation_error\. Check that the model/,
  ],
  [
    'answers 401',
    { status: 401, body: { code: 'bearer_token_missing', message: 'x' } },
    /openfga_refused: .*`credentials`/,
  ],
  ['answers 403', { status: 403, body: { code: 'forbidden', message: 'x' } }, /openfga_refused/],
  ['answers 404 of no store', { status: 404, body: 'not here' }, /openfga_failed: .*404/],
  ['answers 429', { status: 429, body: {}, headers: { 'retry-after': '60' } }, /openfga_(late|busy)/],
  ['redirects', { status: 302, body: '', headers: { location: '/elsewhere' } }, /openfga_failed: .*302/],
  ['answers nothing', { body: '' }, /openfga_malformed/],
  ['answers garbage', { body: '<html>true</html>' }, /openfga_malformed/],
  ['answers half an object', { body: '{"allowed":tr' }, /openfga_malformed/],
  ['answers null', { body: 'null' }, /openfga_malformed/],
  ['answers an object without a decision', { body: {} }, /openfga_malformed/],
  ['answers "true"', { body: { allowed: 'true' } }, /openfga_malformed/],
  ['answers 1', { body: { allowed: 1 } }, /openfga_malformed/],
  [
    'answers without end',
    { body: `{"allowed":true,"x":"${'x'.repeat(5_000_000)}"}` },
    /openfga_unreachable|openfga_failed|openfga_late/,
  ],
];

describe.each(ODD)('an OpenFGA that %s', (_what, odd, fault) => {
  test('stops the request with 503, and says to the operator why', async () => {
    await using fga = await startFakeOpenfga(BOB);
    await using guarded = await startGuarded({ apiUrl: fga.url, timeout: '150ms', retries: 0 });
    fga.odd = (path) => (path === '/check' ? odd : undefined);
    const error = await errorOf(await guarded.use('bob', 'gpt-4o'));
    expect(error).toMatchObject({ status: 503, code: 'guard_unavailable' });
    await soon(() => guarded.faults).toEqual([expect.stringMatching(fault)]);
    expect(guarded.gateway.logText).not.toContain('bob');
  });

  test('lists no models', async () => {
    await using fga = await startFakeOpenfga(BOB);
    await using guarded = await startGuarded({ apiUrl: fga.url, timeout: '150ms', retries: 0 });
    fga.odd = (path) => (path === '/batch-check' ? odd : undefined);
    const response = await guarded.models('bob');
    expect((await errorOf(response)).status).toBe(503);
  });
});

test('an OpenFGA that is not there stops the request, and when it comes the next one passes', async () => {
  const port = await freePort();
  await using guarded = await startGuarded({ apiUrl: `http://127.0.0.1:${port}` });
  expect(await guarded.status('bob', 'gpt-4o')).toBe(503);
  await using fga = await new FakeOpenfga([BOB]).listen(port);
  expect(await guarded.status('bob', 'gpt-4o')).toBe(200);
  expect(fga.asked).toHaveLength(1);
});

test('what is slower than the mount’s own deadline is a fault, too', async () => {
  await using fga = await startFakeOpenfga(BOB);
  await using guarded = await startGuarded({ apiUrl: fga.url, timeout: '1h' }, undefined, { deadline: '100ms' });
  fga.odd = () => 'hang';
  expect(await guarded.status('bob', 'gpt-4o')).toBe(503);
  await soon(() => guarded.faults).toEqual([expect.stringContaining('no answer within 100 ms')]);
});

test('a fault is forgiven only where the config says so', async () => {
  await using fga = await startFakeOpenfga();
  await using guarded = await startGuarded({ apiUrl: fga.url }, undefined, { onFault: 'allow' });
  expect(await guarded.status('bob', 'gpt-4o')).toBe(403);
  fga.odd = () => ({ status: 500, body: {} });
  expect(await guarded.status('ann', 'gpt-4o')).toBe(200);
});

test('a connection that breaks once is tried again', async () => {
  await using fga = await startFakeOpenfga(BOB);
  await using guarded = await startGuarded({ apiUrl: fga.url });
  let broken = 0;
  fga.odd = (path) => (path === '/check' && broken++ === 0 ? 'cut' : undefined);
  expect(await guarded.status('bob', 'gpt-4o')).toBe(200);
});

test('connections are used again', async () => {
  await using fga = await startFakeOpenfga(BOB);
  await using guarded = await startGuarded({ apiUrl: fga.url, cache: false });
  for (let i = 0; i < 5; i++) expect(await guarded.status('bob', 'gpt-4o')).toBe(200);
  expect(fga.connections).toBe(1);
});

describe('in a batch', () => {
  const MODELS = ['a', 'b', 'c'];
  const items: [string, unknown][] = [
    ['an error of ours', { error: { input_error: 'validation_error', message: 'user:secret-bob' } }],
    ['an error of its own', { error: { internal_error: 'deadline_exceeded', message: 'x' } }],
    ['an error beside a yes', { allowed: true, error: { message: 'x' } }],
    ['an empty answer', {}],
    ['no answer', undefined],
    ['null', null],
    ['something that is no decision', { allowed: 'true' }],
  ];

  test.each(items)('%s for one of them stops the whole list', async (_what, item) => {
    await using fga = await startFakeOpenfga();
    await using guarded = await startGuarded({ apiUrl: fga.url }, MODELS);
    fga.odd = (path) =>
      path === '/batch-check'
        ? { body: { result: { 2: { allowed: true }, 0: { allowed: true }, 1: item } } }
        : undefined;
    expect((await errorOf(await guarded.models('bob'))).status).toBe(503);
    await soon(() => guarded.faults).toHaveLength(1);
    expect(guarded.gateway.logText).not.toContain('bob');
  });

  test('answers are matched by their id, in whatever order they come', async () => {
    await using fga = await startFakeOpenfga('user:bob can_use model:c');
    await using guarded = await startGuarded({ apiUrl: fga.url }, MODELS);
    expect(await guarded.list('bob')).toEqual(['c']);
  });

  test('an answer under the name of what every object has is none', async () => {
    await using fga = await startFakeOpenfga();
    await using guarded = await startGuarded({ apiUrl: fga.url }, MODELS);
    fga.odd = (path) => (path === '/batch-check' ? { body: { result: [] } } : undefined);
    expect((await errorOf(await guarded.models('bob'))).status).toBe(503);
  });

  test('more than 50 are asked in pages, each with the groups, and small enough for OpenFGA', async () => {
    const models = Array.from({ length: 120 }, (_, i) => `m${i}`);
    await using fga = await startFakeOpenfga('user:bob can_use model:m7', 'user:bob can_use model:m119');
    await using guarded = await startGuarded({ apiUrl: fga.url, groups: {} }, models);
    expect(await guarded.list('bob')).toEqual(['m119', 'm7']);
    expect(fga.asked.map(({ body }) => body.checks!.length).sort()).toEqual([20, 50, 50]);
    const groups = Array.from({ length: 100 }, (_, i) => `${i}${'g'.repeat(150)}`);
    fga.asked.length = 0;
    expect(await guarded.list({ username: 'bob', groups })).toEqual(['m119', 'm7']);
    const sizes = fga.asked.map(({ body }) => JSON.stringify(body).length);
    expect(Math.max(...sizes)).toBeLessThan(600_000);
    expect(
      fga.asked.every(({ body }) => body.checks!.every((one) => one.contextual_tuples!.tuple_keys.length === 100)),
    );
  });
});

describe('list-objects', () => {
  const MODELS = ['a', 'b', 'c'];

  test('is one question for all', async () => {
    await using fga = await startFakeOpenfga('user:bob can_use model:a', 'user:bob can_use model:c');
    await using guarded = await startGuarded({ apiUrl: fga.url, listing: 'list-objects' }, MODELS);
    expect(await guarded.list('bob')).toEqual(['a', 'c']);
    expect(fga.asked.map(({ path }) => path)).toEqual(['/list-objects']);
    expect(await guarded.status('bob', 'b')).toBe(403);
    expect(fga.asked).toHaveLength(1);
  });

  test('that was cut at its greatest length is finished by checks', async () => {
    await using fga = await startFakeOpenfga('user:bob can_use model:a', 'user:bob can_use model:c');
    const config = { apiUrl: fga.url, listing: 'list-objects', listMaxResults: 1 };
    await using guarded = await startGuarded(config, MODELS);
    fga.odd = (path) => (path === '/list-objects' ? { body: { objects: ['model:a'] } } : undefined);
    expect(await guarded.list('bob')).toEqual(['a', 'c']);
    expect(fga.asked.map(({ body }) => body.checks?.map((one) => one.tuple_key.object))).toEqual([
      undefined,
      ['model:b', 'model:c'],
    ]);
  });

  test('that took as long as the server gives it may have been cut, and is finished by checks', async () => {
    await using fga = await startFakeOpenfga('user:bob can_use model:c');
    const config = { apiUrl: fga.url, listing: 'list-objects', listDeadline: '0.001ms' };
    await using guarded = await startGuarded(config, MODELS);
    fga.odd = (path) => (path === '/list-objects' ? { body: { objects: [] } } : undefined);
    expect(await guarded.list('bob')).toEqual(['c']);
  });

  test.each([[{}], [{ objects: null }], [{ objects: [1] }], [{ objects: 'model:a' }]])(
    'that is %j is a fault',
    async (body) => {
      await using fga = await startFakeOpenfga();
      await using guarded = await startGuarded({ apiUrl: fga.url, listing: 'list-objects' }, MODELS);
      fga.odd = (path) => (path === '/list-objects' ? { body } : undefined);
      expect((await errorOf(await guarded.models('bob'))).status).toBe(503);
    },
  );
});
