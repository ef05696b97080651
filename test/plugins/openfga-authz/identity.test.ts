/** Who asks OpenFGA about what: how identities, groups and names are written in its words, and who is denied unasked. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { idOf, objectOf, userOf } from '../../../plugins/openfga-authz/ids.ts';
import { openfgaAuthz } from '../../../plugins/openfga-authz/plugin.ts';
import type { Identity } from '../../../proto/contract.ts';
import { startFakeOpenfga } from './fake-openfga.ts';

/** What OpenFGA was asked first: `user relation object`, and what it was told beside. Undefined when it was not asked. */
async function question(config: object, identity: Identity | undefined, resource = { type: 'model', name: 'm' }) {
  await using fga = await startFakeOpenfga();
  fga.model.service = {};
  fga.model.group = { member: { this: {} } };
  fga.model['llm-tool'] = { can_call: { this: {} } };
  const plugin = openfgaAuthz.create({ apiUrl: fga.url, ...config });
  const request = { id: 'r', method: 'POST', path: '/', route: '/', identity };
  const verdict = await plugin.authorize!({ request, action: 'model.use', resources: [resource as never] });
  await plugin.close?.();
  const { tuple_key: key, contextual_tuples: told } = fga.asked[0]?.body ?? {};
  return {
    verdict,
    asked: key && `${key.user} ${key.relation} ${key.object}`,
    told: told?.tuple_keys.map(({ user, relation, object }) => `${user} ${relation} ${object}`),
  };
}

const BOB: Identity = {
  subject: '7c9e',
  issuer: 'https://sso',
  username: 'bob',
  email: 'bob@corp.example',
  tenant: 'acme',
  groups: ['acme-ml', '/staff', 'acme-ml', 'toString'],
  roles: ['admin'],
  claims: { employee: 17, 'https://x.y/uid': 'u-1', teams: ['red', 5, 'blue'], flag: true },
};
const DENIED = { allow: { decisions: [false], findings: [{ label: 'NO_USER', count: 1 }] } };

describe('the user', () => {
  test.each([
    ['user:{username}', 'user:bob'],
    ['user:{sub}', 'user:7c9e'],
    ['user:{subject}', 'user:7c9e'],
    ['user:{email}', 'user:bob@corp.example'],
    ['service:acme-{tenant}', 'service:acme-acme'],
    ['user:{claims.employee}', 'user:17'],
    ['user:{claims.https://x.y/uid}', 'user:u-1'],
  ])('%s is %s', async (user, expected) => {
    expect((await question({ user }, BOB)).asked).toBe(`${expected} can_use model:m`);
  });

  test('is the username unless the config says otherwise, as the demo has it', async () => {
    expect((await question({}, BOB)).asked).toBe('user:bob can_use model:m');
  });

  test.each([
    [{}, undefined],
    [{}, { subject: '7c9e' }],
    [{}, { subject: '7c9e', username: '' }],
    [{}, { subject: '7c9e', username: '\ud800' }],
    [{}, { subject: '7c9e', username: 'u'.repeat(508) }],
    [{}, { subject: '7c9e', username: '€'.repeat(100) }],
    [{ user: 'user:{claims.flag}' }, BOB],
    [{ user: 'user:{claims.constructor}' }, BOB],
    [{ user: 'user:{claims.teams}' }, BOB],
    [{ issuers: ['https://other'] }, BOB],
    [{ issuers: ['https://other'] }, { subject: 'x', username: 'bob' }],
  ])('%j: %j has no name in OpenFGA, and is denied without a question', async (config, identity) => {
    expect(await question(config, identity as Identity | undefined)).toMatchObject({
      verdict: DENIED,
      asked: undefined,
    });
  });

  test('of a request without an identity is the one that the config gives to strangers', async () => {
    expect((await question({ anonymous: 'user:anonymous' }, undefined)).asked).toBe('user:anonymous can_use model:m');
  });

  test('of an issuer that the config names is asked about', async () => {
    expect((await question({ issuers: ['https://sso'] }, BOB)).asked).toBe('user:bob can_use model:m');
  });
});

describe('groups', () => {
  const groups = (more: object = {}) => ({ groups: more });

  test('are not told unless the config says so', async () => {
    expect((await question({}, BOB)).told).toBeUndefined();
  });

  test.each([
    [{}, ['team:acme-ml', 'team:/staff', 'team:toString']],
    [{ prefix: 'acme-' }, ['team:acme-ml']],
    [{ prefix: '/', strip: true }, ['team:staff']],
    [{ prefix: 'acme-ml', strip: true }, undefined],
    [{ map: { 'acme-ml': 'ml' } }, ['team:ml']],
    [{ map: { 'acme-ml': 'ml' }, prefix: '/' }, ['team:ml', 'team:/staff']],
    [{ from: 'roles' }, ['team:admin']],
    [{ from: 'claims.teams' }, ['team:red', 'team:blue']],
    [{ from: 'claims.employee' }, undefined],
    [{ tuple: 'user:{user} member group:sso-{group}', prefix: 'acme-' }, ['group:sso-acme-ml']],
  ])('%j: %j', async (config, objects) => {
    expect((await question(groups(config), BOB)).told).toEqual(objects?.map((object) => `user:bob member ${object}`));
  });

  test('are escaped, so that none is a userset or another type', async () => {
    const named = ['acme-ml#member', 'org:acme', '*', 'a b', '', 'g'.repeat(300)];
    const { told } = await question(groups(), { ...BOB, groups: named });
    expect(told).toEqual([
      'user:bob member team:acme-ml%23member',
      'user:bob member team:org%3Aacme',
      'user:bob member team:%2A',
      'user:bob member team:a%20b',
    ]);
  });

  test('beyond 100 are left out, and the trace says how many', async () => {
    const named = Array.from({ length: 130 }, (_, i) => `g${i}`);
    const { told, verdict } = await question(groups(), { ...BOB, groups: named });
    expect(told).toHaveLength(100);
    expect(verdict).toEqual({ allow: { decisions: [false], findings: [{ label: 'GROUPS_LEFT_OUT', count: 30 }] } });
  });

  test('that are not text are nothing', async () => {
    const odd = [1, null, {}, ['acme-ml'], 'acme-ml'] as unknown as string[];
    expect((await question(groups(), { ...BOB, groups: odd })).told).toEqual(['user:bob member team:acme-ml']);
    expect((await question(groups(), { ...BOB, groups: 'acme-ml' as never })).told).toBeUndefined();
  });
});

describe('a resource', () => {
  test.each([
    [{}, { type: 'tool', name: 'search' }, 'tool:search'],
    [{}, { type: 'model', name: 'llama3:8b' }, 'model:llama3%3A8b'],
    [{}, { type: 'model', name: 'eu.anthropic.claude-v1:0' }, 'model:eu.anthropic.claude-v1%3A0'],
    [{}, { type: 'model', name: 'Qwen/Qwen3-32B' }, 'model:Qwen/Qwen3-32B'],
    [{}, { type: 'model', name: 'a b#c*d%' }, 'model:a%20b%23c%2Ad%25'],
    [{}, { type: 'model', name: '模型' }, 'model:%E6%A8%A1%E5%9E%8B'],
    [{}, { type: 'model', name: '*' }, 'model:%2A'],
  ])('%j %j is %s', async (config, resource, object) => {
    expect((await question(config, BOB, resource)).asked).toBe(`user:bob can_use ${object}`);
  });

  test('may be of another type and relation in the model', async () => {
    const config = { types: { tool: { type: 'llm-tool', relation: 'can_call' } } };
    expect((await question(config, BOB, { type: 'tool', name: 'x' })).asked).toBe('user:bob can_call llm-tool:x');
  });

  test.each(['', '\udc00', 'm'.repeat(251), 'm'.repeat(5_000_000), '€'.repeat(28)])(
    'that OpenFGA cannot name is denied',
    async (name) => {
      expect(await question({}, BOB, { type: 'model', name })).toMatchObject({
        verdict: { allow: { decisions: [false] } },
        asked: undefined,
      });
    },
  );

  test.each([
    [{ type: 'server', name: 'x' }, 'openfga_unfit_model: The model in OpenFGA has no relation can_use of server'],
    [{ type: 'constructor', name: 'x' }, 'openfga_unknown_type'],
  ])('that the model does not know is a fault: %j', async (resource, fault) => {
    const error = await question({}, BOB, resource).catch((thrown) => `${thrown.code}: ${thrown.message}`);
    expect(error).toContain(fault);
  });

  test('that is no text is a fault', async () => {
    await expect(question({}, BOB, { type: 'model', name: 7 } as never)).rejects.toThrow(TypeError);
  });
});

describe('ids', () => {
  const name = fc.string({ unit: 'binary', minLength: 1, maxLength: 40 });

  test('hold nothing that means something to OpenFGA, and can be read back', () => {
    fc.assert(
      fc.property(name, (text) => {
        const id = idOf(text);
        if (id === undefined) return expect(text.isWellFormed()).toBe(false);
        expect(id).toMatch(/^[^\s:#*]+$/);
        expect(decodeURIComponent(id)).toBe(text);
      }),
    );
  });

  test('of two names are never the same', () => {
    fc.assert(fc.property(name, name, (a, b) => a === b || idOf(a) !== idOf(b) || !a.isWellFormed()));
  });

  test('with their type are at most as long as OpenFGA takes them', () => {
    expect(objectOf('model', 'm'.repeat(250))).toHaveLength(256);
    expect(objectOf('model', 'm'.repeat(251))).toBeUndefined();
    expect(userOf('user', 'u'.repeat(507))).toHaveLength(512);
    expect(userOf('user', 'u'.repeat(508))).toBeUndefined();
    expect(objectOf('model', `${'m'.repeat(247)}:`)).toHaveLength(256);
    expect(objectOf('model', `${'m'.repeat(248)}:`)).toBeUndefined();
  });
});
