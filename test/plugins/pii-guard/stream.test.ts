import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { piiGuard } from '../../../plugins/pii-guard/plugin.ts';
import { cuts, DISGUISES, ENTITIES, everyCut, positions, scanCut, scanner, woven } from './woven.ts';

const everything = scanner();
const values = Object.entries(ENTITIES).flatMap(([label, list]) => list.map((value) => [label, value] as const));

describe('a stream gives the same spans as the whole text', () => {
  it.each(values)('%s %s, cut at every position and into single characters', (_, value) => {
    const text = `so, ${value}, and on`;
    const whole = everything.scan(text, '', true).spans;
    expect(whole).toHaveLength(1);
    for (let cut = 1; cut < text.length; cut++) expect(scanCut(everything, text, [cut]).spans).toEqual(whole);
    expect(scanCut(everything, text, everyCut(text)).spans).toEqual(whole);
  });

  it.each(Object.entries(DISGUISES))('in %s', (_, disguise) => {
    for (const [, value] of values) {
      const text = `so, ${disguise(value)}, and on`;
      expect(scanCut(everything, text, everyCut(text)).spans).toEqual(everything.scan(text, '', true).spans);
    }
  });

  it.each([
    ['us-ssn', '123-45-6789-0'],
    ['us-ssn', '123-45-6789x'],
    ['ca-sin', '130-692-544-1'],
    ['uk-nhs', '943 476 5919.5'],
    ['credit-card', '4111111111111111.5'],
    ['credit-card', '4111 1111 1111 11110'],
    ['ip', '8.8.8.8.8'],
    ['ip', '2001:db8::1:2:3:4:5:6:7'],
    ['phone', '415-555-2671-9'],
    ['phone', '415-555-2671xy'],
    ['phone', '415-555-2671x9'],
    ['phone', '98765 43210 12345'],
    ['iban', 'DE89370400440532013000x'],
    ['email', 'jane@example.c0m'],
    ['secret', 'AKIAIOSFODNN7EXAMPLES'],
    ['secret', '123456789:AAF1234567890abcdefghijklmnopqrstuvw'],
    ['jwt', 'eyJub3QiOiJhIGhlYWRlciJ9.eyJzdWIiOiIxIn0.c2ln'],
    ['private-key', '-----BEGIN PRIVATE KEY----- is how it starts'],
  ])('for near misses, with no other rule to hold them: %s %s', (rule, value) => {
    const guard = scanner({ rules: [rule] });
    const text = `so ${value} on`;
    const whole = guard.scan(text, '', true).spans;
    for (let cut = 1; cut < text.length; cut++) expect(scanCut(guard, text, [cut]).spans).toEqual(whole);
    expect(scanCut(guard, text, everyCut(text)).spans).toEqual(whole);
  });

  const custom = (pattern: string) => ({ name: 'X', pattern });
  const configs: [string, unknown, number][] = [
    ['all rules', {}, 1500],
    ...Object.keys({
      email: 0,
      phone: 0,
      'credit-card': 0,
      'us-ssn': 0,
      'ca-sin': 0,
      iban: 0,
      ip: 0,
      secret: 0,
      jwt: 0,
      'private-key': 0,
    }).map((rule): [string, unknown, number] => [`only ${rule}`, { rules: [rule] }, 250]),
    ['other regions', { rules: ['phone'], regions: ['FR', 'IT', 'ES'] }, 250],
    ['password.*', { rules: [custom('password.*'), 'email'] }, 200],
    ['a bounded pattern', { rules: [custom('[0-9]{3}-[0-9]{2}')] }, 200],
    ['a bounded pattern with a border', { rules: [custom('\\d{1,3}\\b')] }, 200],
    ['any three characters', { rules: [custom('.{3}')] }, 200],
    ['an insensitive pattern', { rules: [custom('(?i)pass(word|phrase)\\s*[:=]\\s*\\S+|\\bthe\\b')] }, 200],
    ['alternatives of different lengths', { rules: [custom('a|ab|abc')] }, 200],
    ['anchors', { rules: [custom('^The \\w+|[a-z]+$')] }, 200],
  ];

  it.each(configs)('for random texts and random cuts: %s', (_, config, numRuns) => {
    const guard = scanner(config);
    fc.assert(
      fc.property(woven, cuts, (text, sizes) => {
        const whole = guard.scan(text, '', true).spans;
        expect(scanCut(guard, text, positions(text, sizes)).spans).toEqual(whole);
        expect(scanCut(guard, text, everyCut(text)).spans).toEqual(whole);
      }),
      { numRuns },
    );
  });

  const parts = [
    '4111',
    '1111',
    '555',
    '2671',
    '415',
    '91234',
    '5678',
    '+',
    '0',
    '00',
    '1',
    '49',
    '(',
    ')',
    ' ',
    '-',
    '.',
    '/',
    '123',
    '45',
    '6789',
    'call ',
    'SSN ',
    'DE89',
    '3704',
    'x',
    '\u200b',
    '%20',
    '@',
    'x.com',
    ':',
    'fe80',
    '::',
    '\\n',
    '://',
    'token=',
  ];
  it('for dense mixtures of digits and separators', () => {
    const text = fc.array(fc.constantFrom(...parts), { minLength: 1, maxLength: 18 }).map((list) => list.join(''));
    fc.assert(
      fc.property(text, cuts, (each, sizes) => {
        const whole = everything.scan(each, '', true).spans;
        expect(scanCut(everything, each, positions(each, sizes)).spans).toEqual(whole);
        expect(scanCut(everything, each, everyCut(each)).spans).toEqual(whole);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('what is held back', () => {
  it.each([
    't=1763720000000000000 ',
    'Hello world ',
    'Hello, world! ',
    'A sentence ends. ',
    'In 2024 ',
    'at 10:30 ',
    '$99.95 ',
    '- item\n',
    'version 1.2.3.4, ',
    'https://example.com/path ',
    'Summary:',
    '“quoted” ',
    '😀',
    '請聯絡我們。',
    'x'.repeat(65),
  ])('%j is settled at once', (text) => {
    expect(everything.scan(text, '', false).settled).toBe(text.length);
  });

  it.each([
    ['a word', 'word'],
    ['an address so far', 'jane@exam'],
    ['card digits', '4111 1111 11'],
    ['a phone so far', '+49 30 12'],
    ['an opening bracket', '('],
    ['half an escape', '%4'],
    ['half an entity', '&#6'],
    ['half a JSON escape', '\\u00'],
    ['half a surrogate pair', '\ud83d'],
    ['the first line of a private key', '-----BEGIN RSA PRIV'],
    ['a block that has not ended', '-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAx7\n'],
    ['the user of a connection string', 'bob:pass'],
  ])('%s', (_, tail) => {
    const text = tail === 'bob:pass' ? `so https://${tail}` : `so ${tail}`;
    expect(everything.scan(text, '', false).settled).toBe(text.length - tail.length);
  });

  it('a token is let go when its first part turns out to be no header', () => {
    const guard = scanner({ rules: ['jwt'] });
    expect(guard.scan('so eyJub3QiOiJhIGhlYWRlciJ9.abcd', '', false).settled).toBe(32);
    expect(guard.scan('so eyJhbGciOiJIUzI1NiJ9.eyJzd', '', false).settled).toBe(3);
  });

  it.each([
    ['an e-mail address', 'a'.repeat(60).concat('@', 'b.'.repeat(150)), 318],
    ['a run of letters', 'a'.repeat(5000), 64],
    ['a run of digits', '4'.repeat(5000), 64],
    ['numbers', '12 '.repeat(2000), 64],
    ['a phone number', '+49 30 12 34 56 78 90 12 34 56'.repeat(20), 64],
    ['a key', `sk-${'aB3d'.repeat(2000)}`, 516],
    ['a token', `eyJhbGciOiJIUzI1NiJ9.${'aB3d'.repeat(5000)}`, 8192],
    ['a private key', `-----BEGIN PRIVATE KEY-----\n${`${'aB3d'.repeat(16)}\n`.repeat(500)}`, 16_384 + 128],
    ['a colon and hexadecimal', 'ab:'.repeat(2000), 64],
    ['a URL', `https://${'a:b'.repeat(2000)}`, 324],
  ])('is bounded: %s', (_, text, bound) => {
    const sizes = text.length > 12_000 ? [97] : [1];
    expect(scanCut(everything, text, positions(text, sizes)).held).toBeLessThanOrEqual(bound);
  });
});

describe('the gate', () => {
  const gate = new RegExp(piiGuard.create({}).describe().gate!, 'u');

  it('passes over nothing that could be found or held', () => {
    fc.assert(
      fc.property(woven, cuts, (text, sizes) => {
        const whole = everything.scan(text, '', true).spans;
        expect(scanCut(everything, text, positions(text, sizes), gate).spans).toEqual(whole);
        expect(scanCut(everything, text, everyCut(text), gate).spans).toEqual(whole);
      }),
      { numRuns: 800 },
    );
  });

  it('lets prose that ends between words pass without a call', () => {
    expect(gate.test('the quick brown fox jumps, ')).toBe(false);
  });

  it('is absent where custom patterns may find anything', () => {
    expect(piiGuard.create({ rules: [{ name: 'X', pattern: 'x' }] }).describe().gate).toBeUndefined();
  });
});

describe('time grows with the length of the text and no faster', () => {
  const units = [
    'a',
    '1 ',
    '1234 ',
    '415-',
    '020 ',
    '+49 ',
    '4111 ',
    '@',
    'a@',
    'a@a.a@a.',
    '%40',
    '%',
    '&',
    '\\',
    '-----BEGIN ',
    '-----BEGIN PRIVATE KEY-----',
    'eyJ',
    'eyJ.',
    'eyJhbGciOiJIUzI1NiJ9.',
    'sk-',
    '://',
    'a:',
    ':',
    'key=',
    '1.',
    'DE12 ',
    '\u200b',
    '(',
    'call me 12345678 ',
    '\n',
    'password',
    'pass\n',
    'hooks.slack.com/services/',
  ];

  it.each(units)('of %j', (unit) => {
    const guard = scanner({
      rules: [
        'email',
        'phone',
        'credit-card',
        'us-ssn',
        'iban',
        'ip',
        'secret',
        'jwt',
        'private-key',
        { name: 'P', pattern: 'password=.*x' },
      ],
    });
    const time = (size: number): number => {
      const text = unit.repeat(Math.ceil(size / unit.length));
      let best = Number.POSITIVE_INFINITY;
      for (let run = 0; run < 4; run++) {
        const start = performance.now();
        guard.scan(text, '', true);
        best = Math.min(best, performance.now() - start);
      }
      return best;
    };
    time(10_000);
    expect(time(40_000)).toBeLessThan(12 * Math.max(time(10_000), 0.2));
  });
});
