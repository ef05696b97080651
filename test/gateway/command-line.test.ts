/** The program itself: its options, its exit codes, and what it says when it cannot start. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { VERSION } from '../../gateway/run.ts';
import { textStream } from '../support/chunks.ts';
import { openConnection, send } from '../support/client.ts';
import { Gate } from '../support/gate.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { readSse, SseStream } from '../support/sse.ts';
import { ask, contentOf, errorOf, prompt, says, soon } from './chat.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'wardgate-cli-'));
});
afterAll(() => rm(folder, { recursive: true }));

interface Result {
  code: number | null;
  out: string;
  err: string;
}

function wardgate(args: string[], environment: Record<string, string> = {}): ChildProcess {
  const env = { PATH: process.env.PATH, ...environment };
  return spawn(process.execPath, ['gateway/main.ts', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
}

async function outcome(child: ChildProcess): Promise<Result> {
  const [out, err, [code]] = await Promise.all([text(child.stdout!), text(child.stderr!), once(child, 'exit')]);
  return { code: code as number | null, out, err };
}

async function fileWith(yaml: string, name = 'wardgate.yaml'): Promise<string> {
  const file = join(folder, name);
  await writeFile(file, yaml);
  return file;
}

const LEAST = `providers: { up: { kind: openai, key: k } }\nmodels: { m: up }\nroutes: { /: {} }\n`;

describe('options', () => {
  test('--help, --version and --schema print and exit with 0', async () => {
    const [help, version, schema] = await Promise.all(
      ['--help', '-v', '--schema'].map((option) => outcome(wardgate([option]))),
    );
    expect(help).toMatchObject({ code: 0, err: '' });
    for (const word of ['--config FILE', '--check', '--listen', '--metrics', 'SIGHUP', 'SIGTERM'])
      expect(help!.out).toContain(word);
    expect(version).toEqual({ code: 0, out: `${VERSION}\n`, err: '' });
    expect(JSON.parse(schema!.out)).toMatchObject({ title: 'Wardgate config' });
  });

  test('an unknown one, or a word that is none, is told with exit code 1', async () => {
    const [unknown, word] = await Promise.all([outcome(wardgate(['--colour'])), outcome(wardgate(['start']))]);
    expect(unknown).toMatchObject({ code: 1, out: '' });
    expect(unknown!.err).toMatch(/^wardgate: Unknown option '--colour'.*See --help\.\n$/s);
    expect(word!.err).toMatch(/^wardgate: Unexpected argument 'start'/);
  });
});

describe('--check', () => {
  test('0 when sound; 1 with every problem when not, by option or by environment', async () => {
    const sound = await fileWith(LEAST, 'sound.yaml');
    const bad = await fileWith(
      `${LEAST}colour: blue\nplugins: { p: { at: "local:pii-guard", config: { rules: [x] } } }\n`,
      'bad.yaml',
    );
    const unfit = await fileWith(
      `${LEAST}plugins: { p: { at: "local:pii-guard", config: { rules: [x] } } }\n`,
      'unfit.yaml',
    );
    const [first, second, third, fourth, fifth] = await Promise.all([
      outcome(wardgate(['--check', '--config', sound])),
      outcome(wardgate(['--check', '-c', bad])),
      outcome(wardgate(['--check'], { WARDGATE_CONFIG: unfit })),
      outcome(wardgate(['--check', '-c', join(folder, 'nowhere.yaml')])),
      outcome(wardgate(['--check'])),
    ]);
    expect(first).toEqual({ code: 0, out: `${sound} is sound.\n`, err: '' });
    expect(second).toEqual({
      code: 1,
      out: '',
      err: `wardgate: ${bad} cannot be used:\n  line 4: colour: is not a key of the config\n`,
    });
    expect(third).toMatchObject({
      code: 1,
      err: expect.stringContaining('line 4: plugins.p.config.rules.0: There is no rule "x".'),
    });
    expect(fourth).toMatchObject({ code: 1, err: expect.stringContaining('the file cannot be read (ENOENT)') });
    expect(fifth).toMatchObject({ code: 0, out: expect.stringContaining('default.yaml is sound.') });
  });
});

test('a port that is taken is told with what to do, without a stack', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port } = other.address() as { port: number };
  const file = await fileWith(LEAST);
  const { code, err } = await outcome(wardgate(['-c', file, '--listen', `127.0.0.1:${port}`, '--metrics', 'off']));
  expect({ code, err }).toEqual({
    code: 1,
    err: `wardgate: The address 127.0.0.1:${port} is taken by another program; stop that one, or choose another port.\n`,
  });
  const metrics = await outcome(wardgate(['-c', file, '--listen', '127.0.0.1:0', '--metrics', `127.0.0.1:${port}`]));
  expect(metrics).toMatchObject({ code: 1, err: expect.stringContaining(`The address 127.0.0.1:${port} is taken`) });
  other.close();
});

/** A gateway as a process of its own, in front of a scripted upstream. */
async function startProcess(settings = '', options: string[] = ['--metrics', 'off']) {
  const upstream = await startScriptedUpstream();
  const config = (more: string) =>
    `providers: { up: { kind: openai-compatible, baseUrl: "${upstream.url}/v1" } }\nmodels: { "*": up }\nroutes: { /: {} }\n${more}`;
  const file = await fileWith(config(settings), `${upstream.url.split(':').at(-1)}.yaml`);
  const child = wardgate(['-c', file, '--listen', '127.0.0.1:0', ...options]);
  let [out, err] = ['', ''];
  child.stdout!.on('data', (bytes: Buffer) => (out += bytes));
  child.stderr!.on('data', (bytes: Buffer) => (err += bytes));
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  await soon(() => err).toMatch(/Try it:/);
  const url = /listens on (http:\/\/\S+?),? /.exec(`${err.split('\n')[0]} `)![1]!;
  return {
    upstream,
    url,
    child,
    exited,
    output: () => out,
    errors: () => err,
    metricsUrl: /metrics on (http:\/\/[\d.:]+)/.exec(err)?.[1],
    rewrite: (more: string) => writeFile(file, config(more)),
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await exited;
      await upstream.close();
    },
  };
}

describe('a stop', () => {
  test('SIGTERM lets a stream finish, refuses new connections, says so, and exits with 0', async () => {
    await using rig = await startProcess('drain: 20s\n', ['--metrics', '127.0.0.1:0']);
    const gate = new Gate();
    const [first, ...rest] = textStream('Hello there');
    rig.upstream.next({ stream: { events: [first!, gate, ...rest] } });
    const idle = await openConnection(rig.url);
    await idle.request({ path: '/healthz' });
    expect(await (await idle.response()).json()).toEqual({ status: 'ok' });
    const stream = new SseStream(await ask(rig, prompt('x', { stream: true })));
    await stream.next();
    expect((await send(`${rig.metricsUrl}/readyz`)).status).toBe(200);
    rig.child.kill('SIGTERM');
    await soon(rig.errors).toContain('Stopping: open answers may finish.');
    const ready = await send(`${rig.metricsUrl}/readyz`);
    expect([ready.status, await ready.json()]).toMatchObject([503, { status: 'draining' }]);
    await expect(openConnection(rig.url)).rejects.toThrow('ECONNREFUSED');
    gate.open();
    expect(await stream.rest()).toMatchObject({ content: ['Hello there'], done: true, errors: [] });
    expect(await rig.exited).toBe(0);
    // What was counted before the end has been written down.
    expect(rig.output()).toMatch(/"outcome":"finished"/);
  });

  test('after `drain` an open stream ends in an error event, never in a `[DONE]`', async () => {
    await using rig = await startProcess('drain: 50ms\n');
    rig.upstream.next({ stream: { events: [...textStream('Hello').slice(0, 2), new Gate()] } });
    const stream = new SseStream(await ask(rig, prompt('x', { stream: true })));
    await stream.next();
    rig.child.kill('SIGTERM');
    const said = await stream.rest();
    expect(said).toMatchObject({ done: false, cut: undefined, errors: [{ code: 'draining', type: 'server_error' }] });
    expect(await rig.exited).toBe(0);
  });

  test('a whole answer under way is finished, on a connection that is then closed', async () => {
    await using rig = await startProcess();
    const gate = new Gate();
    rig.upstream.next({ ...says('late but whole'), after: gate });
    const connection = await openConnection(rig.url);
    await connection.request({ path: '/v1/chat/completions', body: prompt() });
    await rig.upstream.arrived();
    rig.child.kill('SIGINT');
    await soon(rig.errors).toContain('Stopping');
    gate.open();
    expect(await contentOf(await connection.response())).toBe('late but whole');
    expect(await rig.exited).toBe(0);
  });

  test('a second signal exits at once', async () => {
    await using rig = await startProcess('drain: 60s\n');
    rig.upstream.next({ stream: { events: [...textStream('Hello').slice(0, 2), new Gate()] } });
    const stream = new SseStream(await ask(rig, prompt('x', { stream: true })));
    await stream.next();
    rig.child.kill('SIGTERM');
    await soon(rig.errors).toContain('Stopping');
    rig.child.kill('SIGTERM');
    expect(await rig.exited).toBe(1);
    expect((await stream.rest()).cut).toBeDefined();
  });
});

describe('a reload', () => {
  const isTraced = async (url: string) => (await send(`${url}/v1/nothing`, { headers: { Origin: 'x' } })).status;
  const LIMIT = 'limits: { body: 64B }\n';

  test('on SIGHUP, and when the file changes; a bad file changes nothing and is told', async () => {
    await using rig = await startProcess('', ['--metrics', '127.0.0.1:0']);
    rig.upstream.always(says());
    expect((await ask(rig)).status).toBe(200);
    // The file's change is seen without a signal; SIGHUP reads it in any case.
    await rig.rewrite(LIMIT);
    await soon(rig.output).toContain('"config reloaded"');
    expect(await errorOf(await ask(rig))).toMatchObject({ status: 413 });
    await rig.rewrite(`${LIMIT}colour: blue\n`);
    await soon(rig.output).toContain('config not reloaded');
    expect(rig.output()).toMatch(/"problems":\["line 5: colour: is not a key of the config"\]/);
    expect((await ask(rig)).status).toBe(413);
    const reloads = async () =>
      (await (await send(`${rig.metricsUrl}/metrics`)).text()).match(/^wardgate_config_reloads_total.*$/gm);
    expect(await reloads()).toEqual([
      'wardgate_config_reloads_total{result="success"} 1',
      'wardgate_config_reloads_total{result="failure"} 1',
    ]);
    rig.child.kill('SIGHUP');
    await soon(() => rig.output().split('config not reloaded').length).toBe(3);
    expect(await isTraced(rig.url)).toBe(404);
  });
});

test('without a config it runs a simulated model behind a guard, and shows a line to paste that works', async () => {
  const child = wardgate(['--listen', '127.0.0.1:0', '--metrics', 'off']);
  let err = '';
  child.stderr!.on('data', (bytes: Buffer) => (err += bytes));
  await soon(() => err).toMatch(/Try it:\n.*\n/);
  expect(err).toContain('guarded by pii');
  const [, url, body] = /curl -s (\S+) .* -d '(.*)'\n/.exec(err)!;
  const response = await send(url!, { body, headers: { 'Content-Type': 'application/json' } });
  expect(await contentOf(response)).toBe('You said: My e-mail is <EMAIL_1>, my card <CARD_1>.');
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  expect((await exited)[0]).toBe(0);
});

test('a stream that is broken off by the client is no trouble to the next', async () => {
  await using rig = await startProcess();
  rig.upstream.next(
    { stream: { events: [...textStream('Hello').slice(0, 2), new Gate()] } },
    { stream: { events: textStream('Hi') } },
  );
  const gone = await ask(rig, prompt('x', { stream: true }));
  await gone.chunks.next();
  gone.connection.reset();
  expect(await (await rig.upstream.arrived()).closed).toBe('left');
  expect(await readSse(await ask(rig, prompt('x', { stream: true })))).toMatchObject({ content: ['Hi'], done: true });
});
