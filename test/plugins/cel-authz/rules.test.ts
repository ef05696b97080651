/** Many rules and many identities: the engine against a small reference, and claims that were made to hurt. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { celAuthz } from '../../../plugins/cel-authz/plugin.ts';
import type { AllowOrReject, Identity } from '../../../proto/contract.ts';

/** An expression and what it is worth: `missing` is a field that is not there, `broken` any other fault. */
const VALUES = { true: 'jwt.yes', false: 'jwt.no', missing: 'jwt.nothing', broken: 'jwt.text > 3' } as const;
type Value = keyof typeof VALUES;

const IDENTITY: Identity = { subject: 's', claims: { yes: true, no: false, text: 'text' } };

interface Drawn {
  effect: 'allow' | 'require' | 'deny';
  test: Value;
  when?: Value;
}

const value = fc.constantFrom<Value>('true', 'false', 'missing', 'broken');
const rules = fc.array(
  fc.record<Drawn>({
    effect: fc.constantFrom('allow', 'require', 'deny'),
    test: value,
    when: fc.option(value, { nil: undefined }),
  }),
  { minLength: 1, maxLength: 6 },
);

function asked(drawn: Drawn[], identity: Identity | undefined = IDENTITY): 'passed' | 'refused' | 'fault' {
  const written = drawn.map(({ effect, test, when }) => ({ [effect]: VALUES[test], when: when && VALUES[when] }));
  const plugin = celAuthz.create({ rules: written });
  const request = { id: 'r', method: 'POST', path: '/', route: '/', identity };
  try {
    const resources = [{ type: 'model' as const, name: 'm' }];
    const answer = plugin.authorize!({ request, action: 'model.use', resources }) as AllowOrReject;
    return 'allow' in answer ? 'passed' : 'refused';
  } catch {
    return 'fault';
  }
}

/** Tries every way in which the open questions could have been answered: a fault is where they lead to different ends. */
function reference(drawn: Drawn[]): 'passed' | 'refused' | 'fault' {
  const ends = new Set<boolean>();
  const open: { index: number; part: 'when' | 'test' }[] = [];
  for (const [index, rule] of drawn.entries()) {
    for (const part of ['when', 'test'] as const) if (isOpen(rule, part)) open.push({ index, part });
  }
  for (let world = 0; world < 2 ** open.length; world++) {
    const truth = (index: number, part: 'when' | 'test') => {
      const at = open.findIndex((one) => one.index === index && one.part === part);
      const own = drawn[index]![part];
      return at === -1 ? own === undefined || own === 'true' : (world & (1 << at)) !== 0;
    };
    ends.add(passes(drawn, truth));
  }
  return ends.size === 2 ? 'fault' : ends.has(true) ? 'passed' : 'refused';
}

/** A missing field is an answer, no, where no is the safe one. */
function isOpen({ effect, ...parts }: Drawn, part: 'when' | 'test'): boolean {
  if (parts[part] === 'broken') return true;
  return parts[part] === 'missing' && (effect === 'deny' || (effect === 'require' && part === 'when'));
}

function passes(drawn: Drawn[], truth: (index: number, part: 'when' | 'test') => boolean): boolean {
  const all = drawn.map(({ effect }, i) => ({ effect, speaks: truth(i, 'when'), holds: truth(i, 'test') }));
  if (all.some(({ effect, speaks, holds }) => effect === 'deny' && speaks && holds)) return false;
  if (all.some(({ effect, speaks, holds }) => effect === 'require' && speaks && !holds)) return false;
  const granting = all.some(({ effect }) => effect === 'allow') ? 'allow' : 'require';
  return all.some(({ effect, speaks, holds }) => effect === granting && speaks && holds);
}

describe('the rules engine', () => {
  it('decides as every way to answer the open questions would, and is at fault only where they differ', () => {
    fc.assert(
      fc.property(
        rules.filter((drawn) => drawn.some(({ effect }) => effect !== 'deny')),
        (drawn) => {
          expect(asked(drawn)).toBe(reference(drawn));
        },
      ),
      { numRuns: 3_000 },
    );
  });

  it('never lets a stranger pass by a claim', () => {
    fc.assert(
      fc.property(rules, (drawn) => {
        fc.pre(drawn.some(({ effect }) => effect !== 'deny'));
        expect(asked(drawn, { subject: 's' })).not.toBe('passed');
      }),
    );
  });
});

describe('hostile claims', () => {
  const rule = (source: string, claims: unknown, subject = 's') => {
    const request = { id: 'r', method: 'POST', path: '/', route: '/' };
    const identity = { subject, claims } as Identity;
    const resources = [{ type: 'model' as const, name: 'm' }];
    const plugin = celAuthz.create({ rules: [source] });
    return (
      'allow' in
      (plugin.authorize!({ request: { ...request, identity }, action: 'model.use', resources }) as AllowOrReject)
    );
  };

  it.each([
    ['inherited ones', 'jwt.admin', Object.create({ admin: true })],
    ['an own __proto__', 'jwt.admin', JSON.parse('{"__proto__":{"admin":true}}')],
    ['a constructor', 'has(jwt.constructor.name)', {}],
    ['toString', 'has(jwt.toString)', {}],
    ['functions', 'has(jwt.f)', { f: () => true }],
  ])('%s give nothing', (_title, source, claims) => {
    expect(rule(source, claims)).toBe(false);
  });

  it('are only names, whatever they are called', () => {
    expect(
      rule('jwt.constructor == "a" && jwt["__proto__"] == "b"', JSON.parse('{"constructor":"a","__proto__":"b"}')),
    ).toBe(true);
    expect(rule('jwt.hasOwnProperty == 1', { hasOwnProperty: 1 })).toBe(true);
  });

  it('cannot take the place of who somebody is', () => {
    expect(rule('identity.subject == "root"', { subject: 'root', sub: 'root' })).toBe(false);
    expect(rule('jwt.sub == "root"', { sub: 'root' })).toBe(false);
  });

  it('may be as many, as deep and as odd as JSON allows', () => {
    const groups = Array.from({ length: 100_000 }, (_, i) => `group-${i}`);
    expect(rule('"group-99999" in jwt.groups', { groups })).toBe(true);
    expect(rule('jwt.groups.exists(g, g.matches("^group-99999$"))', { groups: groups.slice(-1000) })).toBe(true);
    const deep = JSON.parse(`${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}`) as object;
    expect(rule('has(jwt.a)', deep)).toBe(true);
    expect(rule('jwt["🙂\\u0000"] == "\\u202e"', { '🙂\u0000': '\u202e' })).toBe(true);
  });

  it('of any JSON neither throw before a rule is asked nor match by accident', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (claims) => {
        expect(rule('jwt.wardgate_test == "granted"', claims)).toBe(false);
      }),
    );
  });

  it('do not make a pattern slow: it is RE2’s, and not V8’s, which would look for an hour', () => {
    expect(rule('jwt.text.matches("(?i)^HELLO$")', { text: 'hello' })).toBe(true);
    expect(rule('jwt.text.matches("^(a+)+$")', { text: `${'a'.repeat(50)}!` })).toBe(false);
  });
});
