/** The config of openfga-authz, and the command line of its seed command. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { openfgaAuthz } from '../../../plugins/openfga-authz/plugin.ts';
import { ConfigProblem } from '../../../proto/contract.ts';
import { freePort } from '../../support/free-port.ts';
import { startFakeOpenfga } from './fake-openfga.ts';

const apiUrl = 'http://openfga:8080';

function problemsOf(config: unknown): string[] {
  try {
    openfgaAuthz.create(config);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigProblem);
    return (error as ConfigProblem).problems.map(({ path, message }) => `${path.join('.')}: ${message}`);
  }
  return [];
}

describe('the config', () => {
  test.each([
    [{ apiUrl }],
    [
      {
        apiUrl: 'https://fga.example/base',
        storeId: '01M7Z4S8R85YC77WJEVBFDHFHP',
        modelId: '01M7Z4S8SATDASYHX5RH9H838F',
      },
    ],
    [{ apiUrl, user: 'person:{claims.https://x.y/uid}', groups: { tuple: 'person:{user} member group:{group}' } }],
    [{ apiUrl, groups: {}, types: { tool: 'llm-tool', server: { type: 'mcp' } }, cache: { denied: '0s' } }],
    [{ apiUrl, credentials: { token: 't' }, cache: false, listing: 'list-objects', consistency: 'HIGHER_CONSISTENCY' }],
    [{ apiUrl, credentials: { issuer: 'https://sso', audience: 'a', clientId: 'c', clientSecret: 's' } }],
  ])('%j is sound', (config) => {
    expect(problemsOf(config)).toEqual([]);
  });

  test.each([
    [{}, /^apiUrl: Write a URL such as/],
    [{ apiUrl: 'openfga:8080' }, /^apiUrl: Write a URL/],
    [{ apiUrl: 'file:///etc' }, /^apiUrl: Write a URL/],
    [{ apiUrl, stor: 'x' }, /^stor: This setting is not known/],
    [{ apiUrl, store: 'x' }, /^store: A store has a name of 3 to 64/],
    [{ apiUrl, store: 'acme', storeId: '01M7Z4S8R85YC77WJEVBFDHFHP' }, /^storeId: Give either/],
    [{ apiUrl, storeId: 'acme' }, /^storeId: This is no id of OpenFGA/],
    [{ apiUrl, user: 'username' }, /^user: Write a type, a colon and one field in braces/],
    [{ apiUrl, user: 'user:{username}-{tenant}' }, /^user: Write a type/],
    [
      { apiUrl, user: 'user:{groups}' },
      /^user: The identity has username, subject, sub, email, tenant and claims.NAME/,
    ],
    [{ apiUrl, user: 'user:*' }, /^user: Write a type/],
    [{ apiUrl, user: 'user:{username}#member' }, /^user: Write a type/],
    [{ apiUrl, anonymous: 'user:*' }, /^anonymous: Write a type and an id/],
    [{ apiUrl, groups: { tuple: 'user:{user} member' } }, /^groups\.tuple: Write a user, a relation and an object/],
    [{ apiUrl, groups: { tuple: 'user:* member team:{group}' } }, /^groups\.tuple: Write a user/],
    [{ apiUrl, groups: { tuple: 'user:{user} member team:{user}' } }, /^groups\.tuple: Write a user/],
    [{ apiUrl, groups: { tuple: 'person:{user} member team:{group}' } }, /^groups\.tuple: .*user:\{user\}/],
    [{ apiUrl, groups: { from: 'teams' } }, /^groups\.from: The identity has groups, roles and claims/],
    [{ apiUrl, groups: { max: 101 } }, /^groups\.max:/],
    [{ apiUrl, relation: 'can use' }, /^relation: A name of the model/],
    [{ apiUrl, types: { model: 'a:b' } }, /^types\.model: A name of the model is made of/],
    [{ apiUrl, types: { modell: 'model' } }, /^types\.modell: This setting is not known/],
    [{ apiUrl, timeout: 5 }, /^timeout:/],
    [{ apiUrl, timeout: '0s' }, /^timeout: It must be longer than nothing/],
    [{ apiUrl, timeout: '1000h' }, /^timeout: This is longer than 24 days/],
    [{ apiUrl, cache: true }, /^cache: Write false, or/],
    [{ apiUrl, consistency: 'STRONG' }, /^consistency:/],
    [
      { apiUrl, credentials: { token: 'hush-hush', clientId: 'x' } },
      /^credentials\.clientId: This setting is not known/,
    ],
    [{ apiUrl, credentials: 'hush-hush' }, /^credentials: Write \{ token \}/],
  ])('%j is refused, with what would be right', (config, problem) => {
    const problems = problemsOf(config);
    expect(problems).toEqual([expect.stringMatching(problem)]);
    expect(problems.join()).not.toContain('hush');
  });

  test('says what it decides on: tool calls only where they are wanted', () => {
    const actions = (config: object) => openfgaAuthz.create({ apiUrl, ...config }).describe().actions;
    expect(actions({})).toEqual(['model.use', 'model.list']);
    expect(actions({ tools: true })).toEqual(['model.use', 'model.list', 'tool.call']);
  });

  test('has a JSON Schema that knows no other settings', () => {
    const { configSchema, hooks } = openfgaAuthz.create({ apiUrl }).describe();
    expect(hooks).toEqual(['authorize']);
    expect(configSchema).toMatchObject({ type: 'object', required: ['apiUrl'], additionalProperties: false });
  });
});

describe('seed.ts', () => {
  const script = fileURLToPath(new URL('../../../plugins/openfga-authz/seed.ts', import.meta.url));
  const model = 'deploy/openfga/model.json';

  function run(...args: string[]): Promise<{ stdout: string; stderr: string; code?: number }> {
    return promisify(execFile)(process.execPath, [script, ...args]).catch((error) => error);
  }

  test('says how it is used', async () => {
    expect((await run('--help')).stdout).toMatch(/--api-url URL {4}where OpenFGA answers/);
  });

  test.each([
    [[], '--api-url wants a URL'],
    [['--api-url', 'openfga'], '--api-url wants a URL'],
    [['--api-url', apiUrl], '--model wants a file'],
    [
      ['--api-url', apiUrl, '--model', 'deploy/openfga/model.fga'],
      'is DSL; make JSON of it first: fga model transform',
    ],
    [['--api-url', apiUrl, '--model', 'nowhere.json'], 'nowhere.json cannot be read'],
    [['--api-url', apiUrl, '--model', 'package.json'], 'type_definitions:'],
    [['--api-url', apiUrl, '--model', model, '--store', 'x'], '--store wants a name'],
    [['--api-url', apiUrl, '--model', model, '--wait', 'long'], '--wait wants a number'],
    [['--api-url', apiUrl, '--modle', model], '--modle'],
  ])('%j: a mistake, told at once', async (args, message) => {
    const { stderr, code } = await run(...args);
    expect(stderr).toContain(message);
    expect(stderr).toMatch(/See --help\.\n$/);
    expect(code).toBe(2);
  });

  test('gives up when nothing answers', async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    const { stderr, code } = await run('--api-url', url, '--model', model, '--wait', '0.1');
    expect({ stderr, code }).toEqual({ stderr: `seed: OpenFGA did not answer at ${url} within 0.1 s.\n`, code: 1 });
  });

  test('does not wait for somebody who refuses', async () => {
    await using fga = await startFakeOpenfga();
    fga.odd = () => ({ status: 403, body: { code: 'forbidden', message: 'not you' } });
    const { stderr, code } = await run('--api-url', fga.url, '--model', model);
    expect({ stderr, code }).toEqual({ stderr: 'seed: OpenFGA answered 403: not you\n', code: 1 });
  });

  test('waits for a server that is coming up', async () => {
    await using fga = await startFakeOpenfga();
    let tries = 0;
    fga.odd = (path) => (path === '/stores' && tries++ < 4 ? { status: 503, body: '' } : undefined);
    const { stderr } = await run('--api-url', fga.url, '--model', model, '--store', 'wardgate');
    expect(tries).toBeGreaterThan(4);
    expect(stderr).not.toContain('did not answer');
  });
});
