import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { afterEach, expect, test } from 'vitest';
import { type Simulator, type SimulatorOptions, startSimulator } from '../../simulator/server.ts';
import { send } from '../support/client.ts';
import { readSse, SseStream } from '../support/sse.ts';

const running: Simulator[] = [];
afterEach(async () => {
  for (const simulator of running.splice(0)) await simulator.close();
});

async function start(options: SimulatorOptions): Promise<Simulator> {
  const simulator = await startSimulator(options);
  running.push(simulator);
  return simulator;
}

function ask({ url }: Simulator, content: string) {
  const body = { model: 'any', stream: true, messages: [{ role: 'user', content }] };
  return send(`${url}/v1/chat/completions`, { body });
}

test('a stream takes its time between tokens', async () => {
  const simulator = await start({ tokenDelayMs: 20 });
  const startMs = performance.now();
  await readSse(await ask(simulator, 'one two three'));
  expect(performance.now() - startMs).toBeGreaterThan(5 * 20 - 10);
});

test('a stream stops when the client goes away', async () => {
  const left = Promise.withResolvers<string>();
  const simulator = await start({ tokenDelayMs: 5, log: left.resolve });
  const response = await ask(simulator, 'word '.repeat(10_000));
  await new SseStream(response).until(({ content }) => (content[0]?.length ?? 0) > 20);
  response.connection.destroy();
  expect(await left.promise).toBe('POST /v1/chat/completions the client left');
});

test('the log has a line per request and nothing of its text', async () => {
  const lines: string[] = [];
  const simulator = await start({ tokenDelayMs: 0, log: (line) => lines.push(line) });
  await readSse(await ask(simulator, 'a secret'));
  expect(lines).toEqual(['POST /v1/chat/completions 200']);
});

test('close breaks off an answer in flight', async () => {
  const simulator = await startSimulator({ tokenDelayMs: 5 });
  const stream = new SseStream(await ask(simulator, 'word '.repeat(10_000)));
  await stream.until(({ content }) => (content[0]?.length ?? 0) > 20);
  await simulator.close();
  expect(await stream.rest()).toMatchObject({ done: false, cut: expect.any(Error) });
});

test('close with grace lets an answer in flight end', async () => {
  const simulator = await startSimulator({ tokenDelayMs: 5 });
  const stream = new SseStream(await ask(simulator, 'one two three four'));
  await stream.until(({ chunks }) => chunks.length > 0);
  const [said] = await Promise.all([stream.rest(), simulator.close(60_000)]);
  expect(said).toMatchObject({ content: ['You said: one two three four'], done: true });
});

test('an address that is taken is an error', async () => {
  const { url } = await start({});
  await expect(startSimulator({ port: Number(new URL(url).port) })).rejects.toThrow('EADDRINUSE');
});

test('the program says where it listens, answers, and stops at SIGTERM', async () => {
  const program = spawn(process.execPath, ['simulator/main.ts', '--port', '0', '--token-delay', '0']);
  const [line] = (await once(createInterface(program.stdout), 'line')) as [string];
  const url = /http:\/\/127\.0\.0\.1:\d+/.exec(line)?.[0] ?? '';
  expect(line).toContain('simulated');
  expect((await send(`${url}/health`)).status).toBe(200);
  program.kill('SIGTERM');
  expect(await once(program, 'exit')).toEqual([0, null]);
});

test('the program refuses a port that is none', async () => {
  const program = spawn(process.execPath, ['simulator/main.ts', '--port', 'x']);
  const [message] = (await once(createInterface(program.stderr), 'line')) as [string];
  expect(message).toBe("simulated model: the port must be a whole number from 0 to 65535, not 'x'.");
  expect(await once(program, 'exit')).toEqual([1, null]);
});

test('the program takes its models’ behaviour from options and environment, and says that answers are simulated', async () => {
  const options = ['--port', '0', '--token-delay', '0', '--fail-every', '2', '--require-key', '--wrong-keys', 'a,b'];
  const env = { ...process.env, SIMULATOR_FAULTS: '{"busy":"status=429","half":{"truncate-after":1}}' };
  const program = spawn(process.execPath, ['simulator/main.ts', ...options], { env });
  const lines = createInterface(program.stdout)[Symbol.asyncIterator]();
  const url = /http:\/\/127\.0\.0\.1:\d+/.exec((await lines.next()).value as string)?.[0] ?? '';
  const status = async (model: string, key = 'any') => {
    const body = { model, messages: [{ role: 'user', content: 'hi' }] };
    const headers: Record<string, string> = key ? { authorization: `Bearer ${key}` } : {};
    return (await send(`${url}/v1/chat/completions`, { body, headers })).status;
  };
  expect([await status('any', ''), await status('any', 'b')]).toEqual([401, 401]);
  expect([await status('any'), await status('any')]).toEqual([200, 503]);
  expect([await status('busy'), await status('busy')]).toEqual([200, 429]);
  expect((await lines.next()).value).toBe('simulated: POST /v1/chat/completions 401');
  program.kill('SIGTERM');
  expect(await once(program, 'exit')).toEqual([0, null]);
});

test.each([
  [['--faults', '["status=429"]'], '--faults must be a JSON object'],
  [['--faults', '{"a":"stauts=429"}'], 'stauts'],
  [['--faults', '{'], '--faults must be a JSON object'],
  [['--fail-every', '0'], 'fail-every'],
])('the program refuses %j', async (options, reason) => {
  const program = spawn(process.execPath, ['simulator/main.ts', '--port', '0', ...options]);
  const [message] = (await once(createInterface(program.stderr), 'line')) as [string];
  expect(message).toContain(reason);
  expect(await once(program, 'exit')).toEqual([1, null]);
});
