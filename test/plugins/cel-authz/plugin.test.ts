import { describe, expect, it } from 'vitest';
import { celAuthz } from '../../../plugins/cel-authz/plugin.ts';
import type { Action, AllowOrReject, AuthorizeInput, Identity, RequestFacts } from '../../../proto/contract.ts';
import { ConfigProblem } from '../../../proto/contract.ts';
import { verdictProblem } from '../../../proto/verdict.ts';
import { ask, contentOf, errorOf, prompt, says } from '../../gateway/chat.ts';
import { send } from '../../support/client.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';

const MCP_USER: Identity = {
  subject: 'f3a1',
  issuer: 'https://sso.example/realms/mcp-realm',
  username: 'mcp-user',
  email: 'mcp@corp.example',
  groups: ['staff', 'ai-team'],
  roles: ['user'],
  tenant: 'acme',
  claims: { realm_access: { roles: ['supply-chain'] }, level: 3, score: 0.5, verified: true, 'https://x/y': ['z'] },
};

interface Question extends Partial<RequestFacts> {
  action?: Action;
  /** Names of the models that are asked about. */
  names?: string[];
}

function inputFor({ action = 'model.use', names = ['gpt-4o'], ...facts }: Question = {}): AuthorizeInput {
  const type = action === 'tool.call' ? 'tool' : 'model';
  const request = { id: 'r1', method: 'POST', path: '/openai/v1/chat/completions', route: '/openai', ...facts };
  return { request, action, resources: names.map((name) => ({ type, name })) };
}

/** Asks a fresh plugin, and checks that the contract accepts its answer. */
function judge(rules: unknown, question: Question = {}, settings: object = {}): AllowOrReject {
  const input = inputFor(question);
  const answer = celAuthz.create({ rules: [rules].flat(), ...settings }).authorize!(input) as AllowOrReject;
  expect(verdictProblem('authorize', input, answer)).toBeUndefined();
  return answer;
}

function passes(rules: unknown, question: Question = {}): boolean {
  return 'allow' in judge(rules, { identity: MCP_USER, ...question });
}

function problemsOf(config: unknown): { path: (string | number)[]; message: string }[] {
  try {
    celAuthz.create(config);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigProblem);
    return (error as ConfigProblem).problems;
  }
  return [];
}

describe('the rules', () => {
  it('S1-35, S2-22: who has the realm role passes, who lacks it or has no claims at all is refused', () => {
    const rule = '"supply-chain" in jwt.realm_access.roles';
    expect(passes(rule)).toBe(true);
    expect(passes(rule, { identity: { subject: 'other', claims: { realm_access: { roles: ['user'] } } } })).toBe(false);
    expect(passes(rule, { identity: { subject: 'other', claims: {} } })).toBe(false);
    expect(passes(rule, { identity: undefined })).toBe(false);
  });

  it.each([['jwt.sub != null'], ['identity != null'], ['has(jwt.sub)'], ['identity.subject != ""']])(
    'S1-30: %s keeps strangers out and lets everybody else in',
    (rule) => {
      expect(passes(rule)).toBe(true);
      expect(passes(rule, { identity: undefined })).toBe(false);
    },
  );

  it('S1-31: what agentgateway’s rule says of preflights is understood', () => {
    const rule = "request.method == 'OPTIONS' || jwt.sub != null";
    expect(passes(rule, { identity: undefined, method: 'OPTIONS' })).toBe(true);
    expect(passes(rule, { identity: undefined, method: 'POST' })).toBe(false);
  });

  it('let pass when one of them does', () => {
    expect(passes(['"admin" in identity.roles', 'resource.name == "gpt-4o"'])).toBe(true);
    expect(passes(['"admin" in identity.roles', 'resource.name == "gpt-5"'])).toBe(false);
  });

  it('refuse what one denies, whatever allows it and wherever it stands', () => {
    expect(passes([true, { deny: 'identity.tenant == "acme"' }])).toBe(false);
    expect(passes([{ deny: 'identity.tenant == "other"' }, true])).toBe(true);
  });

  it('refuse what does not meet every requirement', () => {
    const requirements = [{ require: 'identity.tenant == "acme"' }, { require: 'jwt.level >= 3' }];
    expect(passes(requirements)).toBe(true);
    expect(passes([...requirements, { require: 'jwt.clearance == "high"' }])).toBe(false);
    expect(passes([true, { require: 'jwt.level > 3' }])).toBe(false);
  });

  it('speak only where `when` says so, and what none speaks of is refused', () => {
    const onlyAdmins = { when: 'resource.name.startsWith("gpt-5")', require: '"admin" in identity.roles' };
    expect(passes([true, onlyAdmins], { names: ['gpt-4o'] })).toBe(true);
    expect(passes([true, onlyAdmins], { names: ['gpt-5-mini'] })).toBe(false);
    expect(passes([onlyAdmins], { names: ['gpt-4o'] })).toBe(false);
    expect(passes([{ when: 'request.route == "/other"', allow: true }])).toBe(false);
  });

  it.each([
    ['request.path.startsWith(request.route)'],
    ['request.model == "m" && request.provider == "p"'],
    ['request.headers["x-team"] == "red" && !("x-other" in request.headers)'],
    ['request.context.environment == "development"'],
    ['action == "model.use" && resource.type == "model"'],
    ['identity.email.endsWith("@corp.example") && identity.claims.verified'],
    ['identity.groups.exists(group, group.startsWith("ai-"))'],
    ['jwt.level == 3 && jwt.level + 1 == 4 && jwt.score < 1 && jwt.level > 0.5'],
    ['jwt["https://x/y"][0] == "z" && jwt.preferred_username == "mcp-user" && "staff" in jwt.groups'],
    ['resource.name.matches("^gpt-4o(-mini)?$")'],
    ['!has(jwt.nothing) && identity.tenant in ["acme", "other"]'],
  ])('speak of the request: %s', (rule) => {
    const headers = { 'x-team': 'red' };
    const context = { environment: 'development' };
    expect(passes(rule, { model: 'm', provider: 'p', headers, context })).toBe(true);
  });
});

describe('an answer', () => {
  it('for a list of models is one decision for each', () => {
    const question = { action: 'model.list', names: ['gpt-4o', 'gpt-5', 'llama3:8b'], identity: MCP_USER } as const;
    const rule = 'resource.name.startsWith("gpt-4") || resource.name.contains(":")';
    expect(judge(rule, { ...question, names: [...question.names] })).toEqual({
      allow: { decisions: [true, false, true] },
    });
    expect(judge('false', { ...question, names: ['a', 'b'] })).toEqual({ allow: { decisions: [false, false] } });
    expect(judge('false', { ...question, names: [] })).toEqual({ allow: { decisions: [] } });
  });

  it('to a stranger who may see no model is a refusal, not an empty list', () => {
    const answer = judge('identity != null', { action: 'model.list', names: ['a', 'b'] });
    expect(answer).toMatchObject({ reject: { code: 'forbidden', message: expect.stringContaining('not signed in') } });
  });

  it('that refuses tells a person why: in the rule’s words, the config’s, or its own', () => {
    const mine = { name: 'no-gpt-5', deny: 'resource.name == "gpt-5"', message: 'Ask Jo first.', code: 'ask_jo' };
    expect(judge([true, mine], { names: ['gpt-5'] })).toEqual({
      reject: { code: 'ask_jo', message: 'Ask Jo first.', findings: [{ label: 'no-gpt-5', count: 1 }] },
    });
    expect(judge('false', {}, { message: 'No.', code: 'no' })).toEqual({
      reject: { code: 'no', message: 'No.', findings: [{ label: 'no-rule', count: 1 }] },
    });
    const { reject } = judge('false', { identity: MCP_USER }) as { reject: { message: string } };
    expect(reject.message).toBe(
      'You may not use this model here. Choose another one, or ask the operator of this gateway for access.',
    );
  });

  it('that no rule lets pass is explained by the first that speaks here', () => {
    const rules = [
      { when: 'request.route == "/other"', allow: 'false', message: 'of another route' },
      { allow: '"ai" in identity.groups', message: 'This is for members of the group ai.' },
    ];
    expect(judge(rules, { identity: MCP_USER })).toMatchObject({
      reject: { message: 'This is for members of the group ai.', findings: [{ label: 'rule-2', count: 1 }] },
    });
  });

  it('about tools is asked for only where the config says so', () => {
    expect(celAuthz.create({ rules: [true] }).describe().actions).toEqual(['model.use', 'model.list']);
    expect(celAuthz.create({ rules: [true], tools: true }).describe().actions).toContain('tool.call');
    const rule = 'resource.type == "tool" && resource.name != "delete_all"';
    const tool = { action: 'tool.call', identity: MCP_USER } as const;
    expect(judge(rule, { ...tool, names: ['search'] })).toEqual({ allow: { decisions: [true] } });
    expect(judge(rule, { ...tool, names: ['delete_all'] })).toMatchObject({
      reject: { message: expect.stringContaining('tool that you may not use') },
    });
    expect(judge(rule, { ...tool, names: ['search', 'delete_all'] })).toEqual({ allow: { decisions: [true, false] } });
  });
});

describe('what cannot be answered', () => {
  it('is a fault, and the log learns which rule it was but no value', () => {
    expect(() => judge('jwt.level.startsWith("3")', { identity: MCP_USER })).toThrow(
      'a rule could not be answered (no_matching_overload): jwt.level.startsWith("3")',
    );
    expect(() => judge('jwt.level', { identity: MCP_USER })).toThrow('something else than true or false');
  });

  it('is a fault where a missing claim might have denied', () => {
    expect(() => judge([true, { deny: 'jwt.blocked == true' }], { identity: MCP_USER })).toThrow('no_such_key');
    expect(passes([true, { deny: 'has(jwt.blocked) && jwt.blocked == true' }])).toBe(true);
  });

  it('matters only where it would have changed the answer', () => {
    const broken = 'jwt.level.startsWith("3")';
    expect(passes([broken, true])).toBe(true);
    expect(passes([{ deny: broken }, 'false'])).toBe(false);
    expect(passes([{ deny: broken }, { deny: true }, true])).toBe(false);
    expect(passes([{ require: broken }, { require: false }])).toBe(false);
    expect(() => passes([{ require: broken }])).toThrow('no_matching_overload');
    expect(() => passes([{ when: broken, deny: 'true' }, true])).toThrow('no_matching_overload');
  });
});

describe('the config', () => {
  it('says of each expression what is wrong and where in it', () => {
    const rules = [
      'foo == 1',
      '1 +',
      'identity.teneant == "a"',
      'request.metod == "x"',
      '"text"',
      'resource.name.matches("(?=a)")',
      'resource.name.matches(request.model)',
      { allow: true, when: 'true\n  && b' },
      { deny: '1 == "a"' },
    ];
    const problems = problemsOf({ rules }).map(({ path, message }) => `${path.join('.')}: ${message}`);
    expect(problems).toEqual([
      'rules.0.allow: Unknown variable: foo. There are action, identity, jwt, request, resource. (line 1, character 1, at foo == 1)',
      'rules.1.allow: Unexpected token: EOF. (line 1, character 4)',
      expect.stringContaining('rules.2.allow: An identity has no teneant. It has subject, '),
      'rules.3.allow: No such key: metod. (line 1, character 9, at metod == "x")',
      expect.stringContaining('rules.4.allow: It answers with string, but a rule wants true or false'),
      expect.stringContaining('rules.5.allow: This is no pattern of RE2'),
      expect.stringContaining('rules.6.allow: The pattern of matches is a text in quotes.'),
      expect.stringContaining(
        'rules.7.when: Unknown variable: b. There are action, identity, jwt, request, resource. (line 2, character 6',
      ),
      expect.stringContaining('rules.8.deny: no such overload: int == string'),
    ]);
  });

  it.each([
    [undefined, 'rules'],
    [{}, 'rules'],
    [{ rules: [] }, 'rules'],
    [{ rules: [{}] }, 'rules.0'],
    [{ rules: [{ allow: true, deny: true }] }, 'rules.0'],
    [{ rules: [{ alow: 'true' }] }, 'rules.0.alow'],
    [{ rules: [7] }, 'rules.0'],
    [{ rules: [''] }, 'rules.0'],
    [{ rules: [{ allow: true, code: 'Not Snake' }] }, 'rules.0.code'],
    [{ rules: [{ deny: 'false' }] }, 'rules'],
    [{ rules: [true], colour: 1 }, 'colour'],
    [{ rules: [`${'('.repeat(100)}true${')'.repeat(100)}`] }, 'rules.0.allow'],
    [{ rules: [`${' '.repeat(5_000)}true`] }, 'rules.0'],
  ])('refuses %j at %s', (config, path) => {
    expect(problemsOf(config).map((problem) => problem.path.join('.'))).toContain(path);
  });

  it('describes itself with a JSON Schema', () => {
    const description = celAuthz.create({ rules: [true] }).describe();
    expect(description).toMatchObject({ contract: 1, name: 'cel-authz', hooks: ['authorize'], rewrites: false });
    expect(description.configSchema).toMatchObject({
      type: 'object',
      required: ['rules'],
      additionalProperties: false,
    });
  });
});

describe('through the gateway', () => {
  const known = testPlugin('known', {
    authenticate: ({ request }) => (request.headers?.['x-user'] ? { allow: { identity: MCP_USER } } : { allow: {} }),
  });
  const chat = prompt('Hello', { model: 'gpt-4o' });
  const user = { headers: { 'x-user': 'jo' } };
  const rejection = { status: 403, body: 'authorization failed', contentType: 'text/plain' };

  function configWith(url: string, rules: unknown[]) {
    const plugins = { known: { at: 'local:known' }, rules: { at: 'local:cel-authz', rejection, config: { rules } } };
    return configFor(url, { plugins, models: { 'gpt-4o': 'up', 'gpt-5': 'up' }, route: { identity: 'optional' } });
  }

  it('S1-30, S1-33: 403 `authorization failed` without a token, an answer with one', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.always(() => says());
    const config = configWith(upstream.url, ["request.method == 'OPTIONS' || jwt.sub != null"]);
    await using gateway = await startGateway(config, { factories: [known] });
    const refused = await ask(gateway, chat);
    expect([refused.status, refused.statusText]).toEqual([403, 'Forbidden']);
    expect(refused.header('content-type')).toBe('text/plain');
    expect(refused.header('content-length')).toBe('20');
    expect(await refused.text()).toBe('authorization failed');
    expect(await contentOf(await ask(gateway, chat, user))).toBe('Hi there');
  });

  it('lists only the models that may be used, and says 503 where a rule cannot be answered', async () => {
    await using upstream = await startScriptedUpstream();
    const config = configWith(upstream.url, ['resource.name == "gpt-4o"']);
    await using gateway = await startGateway(config, { factories: [known] });
    const list = await (await send(`${gateway.url}/v1/models`, user)).json<{ data: { id: string }[] }>();
    expect(list.data.map(({ id }) => id)).toEqual(['gpt-4o']);
    await gateway.reload(configWith(upstream.url, ['jwt.level.startsWith("3")']));
    expect(await errorOf(await ask(gateway, chat, user))).toMatchObject({ status: 503, code: 'guard_unavailable' });
  });
});
