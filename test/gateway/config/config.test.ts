/** A config is read whole: every problem is listed, with its place and what would be right. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { ConfigError, loadConfig } from '../../../gateway/config/load.ts';
import { ConfigProblem } from '../../../proto/contract.ts';
import { startGateway } from '../../support/gateway.ts';

type Environment = Record<string, string | undefined>;

async function load(text: string, environment: Environment = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'wardgate-config-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = join(folder, 'wardgate.yaml');
  await writeFile(file, text);
  return (await loadConfig(file, environment)).config;
}

async function problems(text: string, environment: Environment = {}): Promise<string[]> {
  const error = await load(text, environment).catch((thrown: unknown) => thrown);
  if (!(error instanceof ConfigError)) throw new Error(`This was taken: ${JSON.stringify(error)}`);
  return error.problems;
}

const LEAST = `providers: { up: { kind: openai, key: k } }
models: { m: up }
routes: { /: {} }
`;

describe('problems', () => {
  test('are all listed at once, each with its line and path', async () => {
    const text = `listen: nowhere
metrics: 127.0.0.1:15020
colour: blue
limits: { body: 3 apples, deepness: 4 }
providers:
  up: { kind: nobody, key: k }
  down:
    kind: openai-compatible
    baseUrl: ftp://x
models:
  a: up
  b: { provider: up, modell: x }
plugins:
  p: { at: gopher://x, deadline: soon }
routes:
  openai: {}
  /x: { pluginz: [] }
`;
    expect(await problems(text)).toEqual([
      'line 1: listen: must be HOST:PORT, such as 127.0.0.1:3000',
      expect.stringMatching(/^line 4: limits\.body: /),
      'line 4: limits.deepness: is not a key of the config',
      expect.stringMatching(/^line 6: providers\.up\.kind: .*openai-compatible/),
      'line 9: providers.down.baseUrl: must be an http or https URL',
      'line 12: models.b.modell: is not a key of the config',
      expect.stringMatching(/^line 14: plugins\.p\.at: must begin with local:, grpc:/),
      'line 14: plugins.p.deadline: must be a duration such as 50ms, 30s or 1m',
      expect.stringMatching(/^line 16: routes\.openai: /),
      'line 17: routes./x.pluginz: is not a key of the config',
      'line 3: colour: is not a key of the config',
    ]);
  });

  test('are found where a setting could only fail later: at the first request, or when a timer runs over', async () => {
    const text = `listen: 127.0.0.1:70000
drain: 720h
providers:
  up:
    kind: openai
    key: "secret\\n"
    headers: { "x y": a, Transfer-Encoding: chunked, x-team: "a’b" }
models: { m: up }
plugins:
  p: { at: local:p, deadline: 577h, rejection: { contentType: "text/plain\\nx: y" } }
routes:
  /: { context: { "a b": "any\\ntext’s fine" }, upstreamHeaders: { x-team: "a\\0" } }
`;
    const value = 'must be a header’s value: no line breaks, no “”’…';
    expect(await problems(text)).toEqual([
      'line 1: listen: has a port above 65535',
      'line 2: drain: must be 24 days (576h) at most',
      `line 6: providers.up.key: ${value}`,
      'line 7: providers.up.headers.x y: is not the name of a header',
      'line 7: providers.up.headers.Transfer-Encoding: is for the gateway to say',
      `line 7: providers.up.headers.x-team: ${value}`,
      'line 10: plugins.p.deadline: must be 24 days (576h) at most',
      `line 10: plugins.p.rejection.contentType: ${value}`,
      `line 12: routes./.upstreamHeaders.x-team: ${value}`,
    ]);
  });

  test('name what is known where a name is not', async () => {
    const text = `providers: { up: { kind: openai, key: k }, other: { kind: groq, key: k } }
models:
  a: upp
  b: { targets: [{ provider: up }, { provider: down }] }
plugins: { pii: { at: "local:pii-guard" } }
routes:
  /: { plugins: [pii, quota], models: [a, c] }
`;
    expect(await problems(text)).toEqual([
      'line 3: models.a: there is no provider `upp`; known: up, other',
      'line 4: models.b.targets.1.provider: there is no provider `down`; known: up, other',
      'line 7: routes./.plugins.1: there is no plugin `quota`; known: pii',
      'line 7: routes./.models.1: there is no model `c`; known: a, b',
    ]);
  });

  test('name a plugin that stands twice on a route: what it grants is settled once', async () => {
    const text = `providers: { up: { kind: openai, key: k } }
models: { a: up }
plugins: { pii: { at: 'local:pii-guard' } }
routes:
  /: { plugins: [pii, pii] }
`;
    expect(await problems(text)).toEqual(['line 5: routes./.plugins.1: the plugin `pii` stands here twice']);
  });

  test.each(['constructor', '__proto__', 'toString'])('`%s` is no provider, plugin or model', async (name) => {
    const text = `providers: { up: { kind: openai, key: k } }
models: { a: "${name}" }
routes: { /: { plugins: ["${name}"] , models: ["${name}"] } }
`;
    expect(await problems(text)).toHaveLength(name === '__proto__' ? 1 : 3);
  });

  test.each([
    ['broken YAML', 'listen: [1, 2\nmodels: {', /^line \d+: /],
    ['a key twice', `${LEAST}models: {}\n`, /^line 4: .*unique/],
    ['a tab for indentation', 'providers:\n\tup: {}\n', /^line 2: /],
    ['an empty file', '', /config: .*object/],
    ['a list', '- a\n', /config: .*object/],
    [
      'a provider without an address',
      LEAST.replace('openai, key: k', 'vllm'),
      /^line 1: providers\.up\.baseUrl: is needed: `vllm` has no base URL of its own/,
    ],
    ['a route that ends in a slash', LEAST.replace('/:', '/a/:'), /: must be a path such as \//],
    ['a number where a duration is', `${LEAST}drain: 5\n`, /^line 4: drain: /],
    [
      'too many aliases',
      `a: &a [${'x,'.repeat(50)}]\nb: &b [${'*a,'.repeat(50)}]\nc: [${'*b,'.repeat(50)}]\n`,
      /alias|is not a key/i,
    ],
  ])('%s', async (_what, text, wanted) => {
    expect((await problems(text)).join('\n')).toMatch(wanted);
  });

  test('a file that is not there says so', async () => {
    await expect(loadConfig('/nowhere/wardgate.yaml', {})).rejects.toThrow(
      '/nowhere/wardgate.yaml cannot be used:\n  the file cannot be read (ENOENT)',
    );
  });

  test('a plugin’s own config is checked by the plugin, with the line in the gateway’s file', async () => {
    const text = `${LEAST.replace('/: {}', '/: { plugins: [pii, limit] }')}plugins:
  pii:
    at: local:pii-guard
    config:
      action: mask
      rules:
        - email
        - fingerprint
  limit:
    at: local:local-limit
    config: { limits: [] }
`;
    await expect(startGateway(text)).rejects.toMatchObject({
      problems: [
        expect.stringMatching(/^line 11: plugins\.pii\.config\.rules\.1: There is no rule "fingerprint"\. Rules are: /),
        expect.stringMatching(/^line 14: plugins\.limit\.config\.limits: Name at least one limit\./),
      ],
    });
  });

  test('an unknown plugin in process lists those there are', async () => {
    const text = `${LEAST}plugins: { x: { at: "local:nobody" } }\n`;
    await expect(startGateway(text)).rejects.toMatchObject({
      problems: [
        expect.stringMatching(
          /^line 4: plugins\.x\.at: there is no plugin `nobody` \(there is: api-key-auth, .*usage-log\); a file is written local:\.\/file\.ts$/,
        ),
      ],
    });
  });

  test('a plugin that breaks when it is made is no config problem, and is not swallowed', async () => {
    const breaking = {
      name: 'breaking',
      create: () => {
        throw new RangeError('a defect');
      },
    };
    await expect(
      startGateway(`${LEAST}plugins: { x: { at: "local:breaking" } }\n`, { factories: [breaking] }),
    ).rejects.toThrow(RangeError);
    const refusing = {
      name: 'refusing',
      create: () => {
        throw new ConfigProblem([{ path: [], message: 'Not like this.' }]);
      },
    };
    await expect(
      startGateway(`${LEAST}plugins: { x: { at: "local:refusing" } }\n`, { factories: [refusing] }),
    ).rejects.toMatchObject({
      problems: ['line 4: plugins.x.config: Not like this.'],
    });
  });
});

describe('the environment', () => {
  const withKey = (key: string) => LEAST.replace('key: k', () => `key: ${key}`);
  const keyOf = async (value: string, environment: Environment = {}) =>
    (await load(withKey(value), environment)).providers.up!.key;

  test.each([
    ['"${KEY}"', 'secret'],
    ['"a-${KEY}-${OTHER}"', 'a-secret-2'],
    ['"$KEY"', 'secret'],
    ['"${MISSING:-default}"', 'default'],
    ['"${MISSING:-}"', ''],
    ['"${KEY:-default}"', 'secret'],
    ['"${EMPTY:-default}"', 'default'],
    ['"${MISSING:-http://x:1/y?z=$1}"', 'http://x:1/y?z=$1'],
    ['"$${KEY}"', '${KEY}'],
    ['"$0.15 and ^a$ and $KEY-x and ${1}"', '$0.15 and ^a$ and $KEY-x and ${1}'],
  ])('%s is %s', async (value, wanted) => {
    expect(await keyOf(value, { KEY: 'secret', OTHER: '2', EMPTY: '' })).toBe(wanted);
  });

  test('a missing variable says what to do, each with its line', async () => {
    const text = withKey('"${NOT_THERE}"').replace('m: up', 'm: "$NEITHER"');
    expect(await problems(text)).toEqual(
      expect.arrayContaining([
        'line 1: providers.up.key: the environment variable NOT_THERE is not set; set it or write ${NOT_THERE:-default}',
        'line 2: models.m: the environment variable NEITHER is not set; set it or write ${NEITHER:-default}',
      ]),
    );
  });

  test.each([
    '", baseUrl: "http://evil.example',
    'k\n  evil: { kind: openai }\nlisten: 0.0.0.0:1',
    '*alias',
    '&anchor',
    '!!binary x',
    '{ a: b }',
    '# comment',
    '${OTHER}',
    '$OTHER',
    'it\'s: "quoted"',
    'null',
    '123',
    'true',
    '\u0000\u2028',
  ])('a secret such as %j cannot change the structure', async (secret) => {
    const text = LEAST.replace('m: up', 'm: { provider: up, model: "${KEY}" }');
    const config = await load(text, { KEY: secret, OTHER: 'expanded twice' });
    expect(config.models).toEqual({ m: { provider: 'up', model: secret } });
    expect(Object.keys(config.providers)).toEqual(['up']);
    expect(config.listen).toBe('127.0.0.1:3000');
  });

  test('names in keys and comments are left alone', async () => {
    const config = await load(`# \${NOT_SET} $NOT_SET\n${LEAST}prices: { "\${NOT_SET}": { input: 1, output: 2 } }\n`);
    expect(Object.keys(config.prices)).toEqual(['${NOT_SET}']);
  });
});

describe('the short form', () => {
  test('listens on port 4000 unless it says otherwise, and two models may share a provider', async () => {
    const models =
      '[{ name: a, provider: openai, params: { apiKey: k } }, { name: b, provider: openai, params: { model: c } }]';
    expect((await load(`llm: { models: ${models} }`)).listen).toBe('127.0.0.1:4000');
    const config = await load(`llm: { port: 4001, models: ${models} }`);
    expect(config.listen).toBe('127.0.0.1:4001');
    expect(config.models).toMatchObject({ a: { provider: 'openai-1' }, b: { provider: 'openai-2', model: 'c' } });
  });

  test('has its own problems, with their lines', async () => {
    const text = `llm:
  port: 70000
  models:
    - { name: a, provider: nobody }
    - { provider: openai, prams: {} }
`;
    const found = await problems(text);
    expect(found).toEqual([
      expect.stringMatching(/^line 2: llm\.port: /),
      expect.stringMatching(/^line 4: llm\.models\.0\.provider: /),
      expect.stringMatching(/^line 5: llm\.models\.1\.name: /),
      'line 5: llm.models.1.prams: is not a key of the config',
    ]);
  });
});

test('a config is frozen', async () => {
  const config = await load(LEAST);
  expect(() => Object.assign(config.providers.up!, { key: 'other' })).toThrow(TypeError);
  expect(() => Object.assign(config, { listen: 'x' })).toThrow(TypeError);
});
