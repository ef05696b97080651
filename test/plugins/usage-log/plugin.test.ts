import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { usageLog } from '../../../plugins/usage-log/plugin.ts';
import type { ObserveInput, Plugin } from '../../../proto/contract.ts';
import { ConfigProblem } from '../../../proto/contract.ts';

const MODULE = fileURLToPath(new URL('../../../plugins/usage-log/plugin.ts', import.meta.url));

const END: ObserveInput = {
  request: {
    id: 'r1',
    method: 'POST',
    path: '/openai/v1/chat/completions',
    route: '/openai',
    model: 'fast',
    provider: 'groq',
    headers: { authorization: 'Bearer top-secret' },
    context: { note: 'top-secret' },
    identity: {
      subject: 'ann',
      issuer: 'sso',
      tenant: 'tenant-A',
      email: 'ann@example.com',
      claims: { x: 'top-secret' },
    },
  },
  status: 200,
  outcome: 'finished',
  streamed: true,
  upstreamModel: 'llama-3.3-70b-versatile',
  provider: 'groq',
  usage: { inputTokens: 10, outputTokens: 20, cachedInputTokens: 5 },
  costUsd: 0.00012,
  durationMs: 1234.56789,
  firstTokenMs: 99.1,
  grant: 'top-secret',
  trace: [
    {
      plugin: 'pii',
      hook: 'request',
      verdict: 'rewrite',
      findings: [{ label: 'EMAIL', count: 2 }],
      ms: 0.31234,
      calls: 1,
    },
    { plugin: 'armor', hook: 'request', verdict: 'reject', code: 'unsafe', ms: 12, calls: 1, shadow: true },
  ],
};

let folder: string;
let file: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'usage-log-'));
  file = join(folder, 'usage.jsonl');
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

function linesOf(path: string): Record<string, unknown>[] {
  const text = readFileSync(path, 'utf8');
  expect(text === '' || text.endsWith('\n')).toBe(true);
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line));
}

/** Logs some requests with a plugin of its own, closes it, and reads the file. */
async function logged(inputs: ObserveInput[], config: object = {}): Promise<Record<string, unknown>[]> {
  const plugin = usageLog.create({ to: file, ...config });
  for (const input of inputs) expect(plugin.observe!(input)).toBeUndefined();
  await plugin.close!();
  return linesOf(file);
}

async function until(condition: () => boolean): Promise<void> {
  for (let waited = 0; waited < 5000 && !condition(); waited += 10) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  expect(condition()).toBe(true);
}

describe('a line of the usage log', () => {
  it('tells who asked for what, what became of it and what it cost', async () => {
    const [line] = await logged([END]);
    expect(line).toEqual({
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      requestId: 'r1',
      route: '/openai',
      model: 'fast',
      upstreamModel: 'llama-3.3-70b-versatile',
      provider: 'groq',
      subject: 'ann',
      issuer: 'sso',
      tenant: 'tenant-A',
      status: 200,
      outcome: 'finished',
      streamed: true,
      usage: { inputTokens: 10, outputTokens: 20, cachedInputTokens: 5 },
      costUsd: 0.00012,
      durationMs: 1234.568,
      firstTokenMs: 99.1,
      trace: [
        {
          plugin: 'pii',
          hook: 'request',
          verdict: 'rewrite',
          findings: [{ label: 'EMAIL', count: 2 }],
          ms: 0.312,
          calls: 1,
        },
        { plugin: 'armor', hook: 'request', verdict: 'reject', code: 'unsafe', ms: 12, calls: 1, shadow: true },
      ],
    });
  });

  it('tells of a rejected stranger without inventing anything', async () => {
    const { id, method, path, route } = END.request;
    const [line] = await logged([
      {
        request: { id, method, path, route },
        status: 401,
        outcome: 'rejected',
        code: 'invalid_api_key',
        streamed: false,
        durationMs: 1,
        trace: [],
      },
    ]);
    expect(line).toEqual({
      time: expect.any(String),
      requestId: 'r1',
      route: '/openai',
      status: 401,
      outcome: 'rejected',
      code: 'invalid_api_key',
      streamed: false,
      durationMs: 1,
      trace: [],
    });
  });

  it('holds no header, claim, grant, text or field that nobody knows', async () => {
    const finding = { label: 'EMAIL', count: 1, text: 'top-secret' };
    const entry = { ...END.trace[0]!, findings: [finding], reason: 'top-secret' };
    await logged([{ ...END, trace: [entry], prompt: 'top-secret' } as ObserveInput]);
    expect(readFileSync(file, 'utf8')).not.toContain('top-secret');
  });

  it('leaves out identity and trace where the config says so', async () => {
    const [line] = await logged([END], { identity: false, trace: false });
    expect(line).not.toHaveProperty('subject');
    expect(line).not.toHaveProperty('tenant');
    expect(line).not.toHaveProperty('trace');
    expect(line).toHaveProperty('usage');
  });

  it('stays one line, and short, whatever a client calls its model', async () => {
    const [line, ...others] = await logged([
      { ...END, request: { ...END.request, model: `a\n{"b":1}${'x'.repeat(100_000)}` } },
    ]);
    expect(others).toEqual([]);
    expect(line?.model).toHaveLength(257);
  });
});

describe('where the lines go', () => {
  it('is a file that is appended to and that others may not read', async () => {
    await logged([END]);
    expect(await logged([END, END])).toHaveLength(3);
    expect(statSync(file).mode & 0o007).toBe(0);
  });

  it('gets them without waiting for the end', async () => {
    const plugin = usageLog.create({ to: file });
    plugin.observe!(END);
    await until(() => linesOf(file).length === 1);
    plugin.observe!(END);
    await until(() => linesOf(file).length === 2);
    await plugin.close!();
  });

  it('keeps order and loses nothing up to its buffer', async () => {
    const inputs = Array.from({ length: 3000 }, (_, index) => ({ ...END, status: index }));
    const lines = await logged(inputs);
    expect(lines.map((line) => line.status)).toEqual(inputs.map((input) => input.status));
  });

  it('is standard output by default', () => {
    const script = `import { usageLog } from ${JSON.stringify(MODULE)};
      const plugin = usageLog.create({});
      for (let i = 0; i < 100; i++) plugin.observe({ ...${JSON.stringify(END)}, status: i });`;
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    const lines = output.trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line).status)).toEqual(Array.from({ length: 100 }, (_, index) => index));
  });
});

describe('a disk that is too slow', () => {
  async function overrun(plugin: Plugin): Promise<number> {
    let sent = 0;
    // In one turn of the event loop nothing can be written, so the buffer of 64 KiB overflows.
    for (; sent < 500; sent++) plugin.observe!(END);
    await until(() => linesOf(file).length > 0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    return sent;
  }

  it('costs lines, which are counted in the next one', async () => {
    const plugin = usageLog.create({ to: file, maxBuffer: 65_536 });
    const sent = await overrun(plugin);
    plugin.observe!(END);
    plugin.observe!(END);
    await plugin.close!();
    const lines = linesOf(file);
    const kept = lines.length - 2;
    expect(kept).toBeLessThan(sent);
    expect(lines.at(-2)).toHaveProperty('droppedBefore', sent - kept);
    expect(lines.at(-1)).not.toHaveProperty('droppedBefore');
  });

  it.skipIf(!existsSync('/dev/full'))('delays nobody when it is full, warns once and still closes', () => {
    const script = `import { usageLog } from ${JSON.stringify(MODULE)};
      const plugin = usageLog.create({ to: '/dev/full', maxBuffer: 65536 });
      const startedAt = performance.now();
      for (let i = 0; i < 1000; i++) plugin.observe(${JSON.stringify(END)});
      const took = performance.now() - startedAt;
      await new Promise((resolve) => setTimeout(resolve, 300));
      await plugin.close();
      console.log(took < 1000 ? 'quick' : 'slow');`;
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
      timeout: 4500,
    });
    expect({ stdout, status }).toEqual({ stdout: 'quick\n', status: 0 });
    expect(stderr).toContain('usage-log: cannot write to /dev/full (ENOSPC); lines wait up to 65536 bytes');
    expect(stderr.match(/cannot write/g)).toHaveLength(1);
    expect(stderr).toContain('1000 lines could not be written to /dev/full');
  });

  it('may be closed twice', async () => {
    const plugin = usageLog.create({ to: file });
    plugin.observe!(END);
    await Promise.all([plugin.close!(), plugin.close!()]);
    expect(linesOf(file)).toHaveLength(1);
  });
});

describe('the config of usage-log', () => {
  function problemsOf(config: unknown): { path: (string | number)[]; message: string }[] {
    try {
      usageLog.create(config);
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigProblem);
      return (error as ConfigProblem).problems;
    }
    return [];
  }

  it('refuses a file that cannot be written, with the reason', () => {
    expect(problemsOf({ to: join(folder, 'nowhere', 'usage.jsonl') })).toEqual([
      { path: ['to'], message: 'The file cannot be opened for appending (ENOENT).' },
    ]);
  });

  it('refuses what it does not know', () => {
    expect(problemsOf({ file: 'x' })).toEqual([{ path: ['file'], message: 'This setting is not known.' }]);
    expect(problemsOf({ to: 1, maxBuffer: 5 }).map((problem) => problem.path)).toEqual([['to'], ['maxBuffer']]);
  });

  it('is described by a JSON Schema, and needs nothing', () => {
    const description = usageLog.create(undefined).describe();
    expect(description).toMatchObject({ name: 'usage-log', hooks: ['observe'], rewrites: false });
    expect(description.configSchema).toMatchObject({ type: 'object', additionalProperties: false });
    expect(description.configSchema?.required).toBeUndefined();
  });
});
