import { afterEach, describe, expect, test } from 'vitest';
import { type Simulator, type SimulatorOptions, startSimulator } from '../../simulator/server.ts';
import { openConnection, type RawResponse, send } from '../support/client.ts';
import { type Format, formats, type Question } from './formats.ts';

const running: Simulator[] = [];
afterEach(async () => {
  for (const simulator of running.splice(0)) await simulator.close();
});

async function start(options: SimulatorOptions = {}): Promise<Simulator> {
  const simulator = await startSimulator({ tokenDelayMs: 0, ...options });
  running.push(simulator);
  return simulator;
}

const WORDS = { text: 'one two three', model: 'any' };

function ask({ url }: Simulator, format: Format, question: Partial<Question>, simulate = ''): Promise<RawResponse> {
  const all = { ...WORDS, ...question };
  return send(url + format.path(all), {
    body: format.body(all),
    headers: { ...format.headers, ...(simulate ? { 'x-simulate': simulate } : {}) },
  });
}

async function streamed(simulator: Simulator, format: Format, simulate: string) {
  const response = await ask(simulator, format, { stream: true }, simulate);
  expect(response.status).toBe(200);
  const cut = await response.bytes().then(
    () => undefined,
    (error: Error) => error,
  );
  return { ...format.read(response.received), cut: cut !== undefined };
}

describe.each(formats)('$name', (format) => {
  test('says the same words as all others, whole and streamed', async () => {
    const simulator = await start();
    const whole = await ask(simulator, format, {});
    expect(whole.header('x-simulated')).toBe('true');
    expect(format.textOf(await whole.json())).toBe('You said: one two three');
    const stream = await streamed(simulator, format, '');
    expect(stream).toMatchObject({ text: 'You said: one two three', finished: true, failed: false, cut: false });
  });

  test('goes on with what the assistant has begun, or refuses to, or starts anew', async () => {
    const simulator = await start({ models: { strict: 'prefill=reject', deaf: 'prefill=ignore' } });
    const begun = 'You said: one';
    const said = async (question: Partial<Question>) => {
      return format.textOf(await (await ask(simulator, format, { begun, ...question })).json());
    };
    expect(await said({})).toBe(' two three');
    expect(await said({ begun: 'Well,' })).toBe('You said: one two three');
    expect(await said({ model: 'deaf' })).toBe('You said: one two three');
    const refused = await ask(simulator, format, { begun, model: 'strict' });
    expect([refused.status, await refused.text()]).toEqual([400, expect.stringContaining('assistant message prefill')]);
  });

  test('answers a status with the vendor’s own wait', async () => {
    for (const stream of [false, true]) {
      const response = await ask(await start(), format, { stream }, 'status=429;retry-after=7');
      const answer = await response.json();
      expect(response.status).toBe(429);
      expect(format.waitOf((name) => response.header(name), answer as never)).toBe('7');
    }
  });

  test('breaks a stream after the tokens that are asked for', async () => {
    const simulator = await start();
    const broken = { text: 'You said: ', finished: false };
    expect(await streamed(simulator, format, 'reset-after=2')).toMatchObject({ ...broken, failed: false, cut: true });
    expect(await streamed(simulator, format, 'end-after=2')).toMatchObject({ ...broken, failed: false, cut: false });
    expect(await streamed(simulator, format, 'error-after=2')).toMatchObject({ ...broken, failed: true, cut: false });
    const truncated = await streamed(simulator, format, 'truncate-after=2');
    expect(truncated).toMatchObject({ ...broken, failed: false, cut: false });
    expect(truncated.rest).toBeGreaterThan(0);
  });

  test('breaks a stream before its first token, after the framing', async () => {
    const simulator = await start();
    const stream = await streamed(simulator, format, 'error-after=0');
    expect(stream).toMatchObject({ text: '', finished: false, failed: true });
    const framing = await (await ask(simulator, format, { stream: true }, 'end-after=0')).bytes();
    expect(framing.length > 0).toBe(!format.name.startsWith('Gemini'));
  });

  test('breaks a stream after its last token, before the finish', async () => {
    const stream = await streamed(await start(), format, 'end-after=5');
    expect(stream).toMatchObject({ text: 'You said: one two three', finished: false });
  });

  test('sends garbage', async () => {
    const response = await ask(await start(), format, { stream: true }, 'garbage-after=0');
    expect(await response.text()).toContain('neither an event nor JSON');
  });

  test('breaks a whole answer in the middle', async () => {
    const simulator = await start();
    const reset = await ask(simulator, format, {}, 'reset-after=1');
    await expect(reset.bytes()).rejects.toThrow();
    expect(reset.received.length).toBeLessThan(Number(reset.header('content-length')));
    const cut = await (await ask(simulator, format, {}, 'truncate-after=1')).text();
    expect(() => JSON.parse(cut)).toThrow();
    expect(await (await ask(simulator, format, {}, 'end-after=1')).text()).toBe('');
    expect((await ask(simulator, format, {}, 'error-after=1')).status).toBe(500);
    const garbage = await (await ask(simulator, format, {}, 'garbage-after=1')).text();
    expect(() => JSON.parse(garbage)).toThrow();
  });

  test('stalls until the client leaves', async () => {
    const left = Promise.withResolvers<string>();
    const simulator = await start({ log: left.resolve });
    const response = await ask(simulator, format, { stream: true }, 'stall-after=2');
    for await (const _ of response.chunks) if (format.read(response.received).text === 'You said: ') break;
    response.connection.destroy();
    expect(await left.promise).toMatch(/ the client left$/);
  });
});

describe('what is said of a model', () => {
  const [chat] = formats as [Format];
  const statuses = async (simulator: Simulator, model: string, times: number) => {
    const all: number[] = [];
    for (let at = 0; at < times; at++) all.push((await ask(simulator, chat, { model })).status);
    return all;
  };

  test('is true of every so-manieth request, or of the first ones, model by model', async () => {
    const simulator = await start({
      models: { flaky: 'fail-every=3', 'slow-start': { 'fail-first': 2, status: 500 } },
    });
    expect(await statuses(simulator, 'flaky', 6)).toEqual([200, 200, 503, 200, 200, 503]);
    expect(await statuses(simulator, 'slow-start', 3)).toEqual([500, 500, 200]);
    expect(await statuses(simulator, 'other~fail-every=2', 4)).toEqual([200, 503, 200, 503]);
  });

  test('may strike in the middle of every so-manieth stream', async () => {
    const simulator = await start({ models: { flaky: 'fail-every=2;end-after=1' } });
    const texts: string[] = [];
    for (let at = 0; at < 2; at++) {
      texts.push(chat.read(await (await ask(simulator, chat, { model: 'flaky', stream: true })).bytes()).text);
    }
    expect(texts).toEqual(['You said: one two three', 'You ']);
  });

  test('is overruled by its name, and that by the header', async () => {
    const simulator = await start({ models: { '*': 'status=500', known: 'status=501' } });
    const status = async (model: string, simulate?: string) => (await ask(simulator, chat, { model }, simulate)).status;
    expect(await status('any')).toBe(500);
    expect(await status('known')).toBe(501);
    expect(await status('known~status=502')).toBe(502);
    expect(await status('known~status=502', 'status=503')).toBe(503);
  });

  test('is a 400 when it is no directive, and an error when the process starts with it', async () => {
    const response = await ask(await start(), chat, { model: 'any~stauts=429' });
    expect([response.status, await response.text()]).toEqual([400, expect.stringContaining('stauts')]);
    await expect(startSimulator({ models: { any: 'status=200' } })).rejects.toThrow(/status/);
  });

  test('has a code, and a reset in the vendor’s own header', async () => {
    const simulator = await start();
    const quota = await ask(simulator, chat, {}, 'status=429;code=insufficient_quota;limit-reset=7');
    expect(quota.header('x-ratelimit-reset-requests')).toBe('7s');
    expect(quota.header('retry-after')).toBeUndefined();
    expect(await quota.json()).toMatchObject({ error: { code: 'insufficient_quota' } });
    const anthropic = formats.find(({ name }) => name === 'Anthropic')!;
    const overloaded = await ask(simulator, anthropic, {}, 'status=529;limit-reset=7');
    expect(Date.parse(overloaded.header('anthropic-ratelimit-requests-reset') ?? '')).toBeGreaterThan(Date.now());
    expect(await overloaded.json()).toMatchObject({ error: { type: 'overloaded_error' } });
  });
});

describe('before anything is answered', () => {
  const [chat] = formats as [Format];

  test('a model may hang: others are answered meanwhile', async () => {
    const simulator = await start();
    const connection = await openConnection(simulator.url);
    await connection.request({ path: chat.path(WORDS), body: chat.body({ ...WORDS, model: 'any~hang' }) });
    expect((await ask(simulator, chat, {})).status).toBe(200);
    expect(connection.socket.bytesRead).toBe(0);
    connection.destroy();
  });

  test('a model may reset the connection', async () => {
    await expect(ask(await start(), chat, {}, 'reset')).rejects.toThrow();
  });

  test('a model takes its time before the answer, and before the first token', async () => {
    const simulator = await start();
    const startMs = performance.now();
    await (await ask(simulator, chat, {}, 'latency=30')).bytes();
    expect(performance.now() - startMs).toBeGreaterThan(25);
    const sentMs = performance.now();
    const response = await ask(simulator, chat, { stream: true }, 'first-token-delay=30');
    await response.bytes();
    expect(performance.now() - sentMs).toBeGreaterThan(25);
  });

  test.each(formats)('$name keeps the connection alive while the model is silent, if it ever does', async (format) => {
    const response = await ask(await start(), format, { stream: true }, 'first-token-delay=30;keepalives=10');
    const bytes = await response.bytes();
    const keepAlives: Record<string, number> = { Anthropic: bytes.toString().split('event: ping').length - 2 };
    const comments = bytes.toString().split(': keep-alive\n\n').length - 1;
    const silent = format.name === 'Bedrock' || format.name.includes('without');
    expect(keepAlives[format.name] ?? comments).toBe(silent ? 0 : 2);
    expect(format.read(bytes)).toMatchObject({ text: 'You said: one two three', finished: true });
  });
});

test('OpenAI’s paths want a key when they are told to, and a wrong one is refused', async () => {
  const simulator = await start({ requireKey: true, wrongKeys: ['sk-wrong'] });
  const status = async (headers: Record<string, string>) => {
    return (await send(`${simulator.url}/v1/models`, { headers })).status;
  };
  expect(await status({})).toBe(401);
  expect(await status({ authorization: 'Bearer sk-wrong' })).toBe(401);
  expect(await status({ authorization: 'Bearer sk-any' })).toBe(200);
});
