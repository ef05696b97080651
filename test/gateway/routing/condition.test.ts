/** Conditions of targets: what they can speak of, and that a bad one is known when the config is read. */
import { describe, expect, test } from 'vitest';
import { compileCondition, conditionVariables } from '../../../gateway/routing/condition.ts';
import { FACTS } from './models.ts';

const jane = {
  subject: 'jane',
  groups: ['staff', 'beta'],
  tenant: 'acme',
  claims: { plan: 'pro', level: 3, nested: { deep: true }, __proto__: null },
};

function answer(source: string, facts: Partial<typeof FACTS> = {}): boolean | undefined {
  return compileCondition(source)(conditionVariables({ ...FACTS, ...facts }));
}

describe('a condition speaks of', () => {
  test.each([
    ['headers["x-tier"] == "gold"', { headers: { 'x-tier': 'gold' } }],
    ['headers["x-tier"].matches("^g.ld$")', { headers: { 'x-tier': 'gold' } }],
    ['identity.subject == "jane" && "beta" in identity.groups', { identity: jane }],
    ['identity.claims.plan == "pro" && identity.claims.level >= 3', { identity: jane }],
    ['identity.claims.nested.deep', { identity: jane }],
    ['identity.email == "" && identity.roles.size() == 0', { identity: jane }],
    ['identity == null', {}],
    ['model.startsWith("gpt-")', { model: 'gpt-5' }],
    ['route == "/team"', { route: '/team' }],
    ['promptTokens > 8000', { promptTokens: 8_000.5 }],
    ['!stream', { streamed: false }],
  ])('%s', (source, facts) => {
    expect(answer(source, facts)).toBe(true);
  });
});

test.each([
  'headers["x-tier"] == "gold"',
  'identity.subject == "jane"',
  'identity.claims.team == "x"',
  'identity.claims.constructor == "x"',
  'headers["constructor"] == "x"',
])('what is not there is not meant: %s', (source) => {
  expect(answer(source, { identity: source.includes('claims') ? jane : undefined })).toBe(false);
});

test.each(['promptTokens / 0 > 1', 'identity.claims.plan > 3'])('%s cannot be evaluated', (source) => {
  expect(answer(source, { identity: jane })).toBeUndefined();
});

describe('a bad condition is refused when the config is read', () => {
  test.each([
    ['headers[', /is no CEL expression/],
    ['', /is no CEL expression/],
    ['promptTokens', /answers with int, and must be true or false/],
    ['tokens > 3', /there are identity, headers, model, route, promptTokens and stream/],
    ['promptTokens > "3"', /is no CEL expression/],
    ['model.matches(route)', /pattern is not a text in quotes/],
    ['model.matches("(?=x)")', /RE2/],
    [`model == "${'x'.repeat(4_000)}"`, /longer than 4000 characters/],
    [`${'('.repeat(500)}true${')'.repeat(500)}`, /is no CEL expression/],
  ])('%s', (source, why) => {
    expect(() => compileCondition(source)).toThrow(why);
  });
});

test('a pattern that could be made to backtrack takes linear time', () => {
  const condition = compileCondition('headers["a"].matches("^(a+)+$")');
  expect(condition(conditionVariables({ ...FACTS, headers: { a: `${'a'.repeat(30_000)}!` } }))).toBe(false);
});
