import { describe, expect, it } from 'vitest';
import { piiGuard, sentence } from '../../../plugins/pii-guard/plugin.ts';
import { ConfigProblem, type Plugin, type Segment } from '../../../proto/contract.ts';

const facts = { id: 'r1', method: 'POST', path: '/openai/v1/chat/completions', route: '/openai' };

function segment(text: string, more: Partial<Segment> = {}): Segment {
  return { id: 's1', role: 'user', channel: 'text', path: '/messages/0/content', text, ...more };
}

async function ask(plugin: Plugin, text: string, hook: 'request' | 'response' = 'request') {
  return plugin[hook]!({ request: facts, segments: [segment(text)], history: 'reject' });
}

async function masked(text: string, config: unknown = {}, hook: 'request' | 'response' = 'request'): Promise<string> {
  const verdict = await ask(piiGuard.create(config), text, hook);
  return 'rewrite' in verdict ? verdict.rewrite.segments[0]!.text : text;
}

function problems(config: unknown): string[] {
  try {
    piiGuard.create(config);
  } catch (error) {
    if (error instanceof ConfigProblem)
      return error.problems.map(({ path, message }) => `${path.join('.')}: ${message}`);
    throw error;
  }
  return [];
}

describe('rejections', () => {
  const seed = {
    rules: ['ssn', 'creditCard', 'phoneNumber', 'email'],
    action: 'reject',
    rejection: { status: 403, body: 'Request blocked due to sensitive content' },
  };

  it.each(['my SSN is 123-45-6789', 'card 4111 1111 1111 1111', 'call 415-555-2671', 'mail bob@example.com'])(
    'S1-80: %s is refused with the configured status and body',
    async (text) => {
      const verdict = await ask(piiGuard.create(seed), text);
      expect(verdict).toMatchObject({
        reject: {
          code: 'pii_detected',
          status: 403,
          body: 'Request blocked due to sensitive content',
          segments: ['s1'],
        },
      });
      expect(JSON.stringify(verdict)).not.toMatch(/6789|1111|2671|bob/);
    },
  );

  it.each(['password: hunter2', 'the API_KEY', 'the APIKEY', 'the API-KEY'])(
    'S1-81: patterns of one’s own: %s',
    async (text) => {
      const rules = [
        { pattern: 'password.*', name: 'PASSWORD' },
        { pattern: 'API[_-]?KEY', name: 'API_KEY' },
      ];
      expect(await ask(piiGuard.create({ ...seed, rules }), text)).toHaveProperty('reject.status', 403);
    },
  );

  it('say what kind of thing was found, and never the thing', async () => {
    const plugin = piiGuard.create({ action: 'reject' });
    expect(await ask(plugin, 'card 4111 1111 1111 1111')).toMatchObject({
      reject: { message: 'Your message contains a credit card number. Remove it and send the message again.' },
    });
    expect(sentence(['EMAIL_ADDRESS', 'US_SSN', 'PASSWORD'])).toBe(
      'Your message contains an e-mail address, a social security number and something that is not allowed here (PASSWORD). Remove them and send the message again.',
    );
  });

  it('carry a message of one’s own', async () => {
    const plugin = piiGuard.create({ action: 'reject', rejection: { message: 'Ask the desk.' } });
    expect(await ask(plugin, 'bob@example.com')).toHaveProperty('reject.message', 'Ask the desk.');
  });
});

describe('masks', () => {
  it('S1-82: plain ones in the seeds’ spelling, names in any case', async () => {
    const config = {
      masks: 'plain',
      rules: ['Email', 'creditCard', 'SSN', 'phoneNumber', 'caSin', { pattern: 'password', name: 'PASSWORD' }],
    };
    expect(await masked('bob@example.com 4111111111111111 123-45-6789 415-555-2671 130-692-544 password', config)).toBe(
      '<EMAIL_ADDRESS> <CREDIT_CARD> <SSN> <PHONE_NUMBER> <CA_SIN> <masked>',
    );
  });

  it('S1-85: the answer holds what the model saw', async () => {
    const config = { masks: 'plain', rules: ['ssn', 'email'] };
    expect(await masked('My SSN is 123-45-6789 and my email is bob@example.com', config)).toBe(
      'My SSN is <SSN> and my email is <EMAIL_ADDRESS>',
    );
  });

  it('are numbered by default: the same for the same value, none in answers', async () => {
    const text = 'a@x.com b@x.com a@x.com 123-45-6789';
    expect(await masked(text)).toBe('<EMAIL_1> <EMAIL_2> <EMAIL_1> <SSN_1>');
    expect(await masked(text, {}, 'response')).toBe('<EMAIL> <EMAIL> <EMAIL> <SSN>');
  });

  it('leave nothing of a sample that a person would type', async () => {
    const text =
      'Contact Jane Roe at jane.roe@example.com or 415-555-0132, SSN 078-05-1120, card 4111 1111 1111 1111. ';
    expect(await masked(text)).toBe('Contact Jane Roe at <EMAIL_1> or <PHONE_1>, SSN <SSN_1>, card <CARD_1>. ');
  });

  it('may be one for all, or one’s own for a rule', async () => {
    const config = { mask: '[REDACTED]', rules: ['email', { rule: 'ssn', mask: '***' }] };
    expect(await masked('bob@example.com 123-45-6789', config)).toBe('[REDACTED] ***');
  });

  it('bring the originals along where they are to be restored', async () => {
    const verdict = await ask(
      piiGuard.create({ rules: [{ rule: 'email', action: 'restore' }, 'ssn'] }),
      'bob@example.com 123-45-6789',
    );
    expect(verdict).toMatchObject({
      rewrite: { placeholders: [{ placeholder: '<EMAIL_1>', original: 'bob@example.com' }] },
    });
  });

  it('leave clean text alone', async () => {
    expect(await ask(piiGuard.create({}), 'Nothing here.')).toMatchObject({ allow: {} });
  });

  it('work in a stream', async () => {
    const plugin = piiGuard.create({});
    const first = await plugin.stream!({
      request: facts,
      channel: '0/text',
      before: '',
      text: 'to bob@exam',
      last: false,
    });
    expect(first).toMatchObject({ release: { release: 'to ', hold: 'bob@exam' } });
    const second = await plugin.stream!({
      request: facts,
      channel: '0/text',
      before: 'to ',
      text: 'bob@example.com now',
      last: true,
    });
    expect(second).toMatchObject({
      release: { release: '<EMAIL> now', hold: '', findings: [{ label: 'EMAIL_ADDRESS', count: 1 }] },
    });
  });
});

describe('custom patterns', () => {
  it.each([
    ['password.*', 'my password is x\nnext', 'my <masked>\nnext'],
    ['(?i)password', 'PassWord PASSWORD', '<masked> <masked>'],
    ['(?i)skunk', 'ſ\u212aunK', '<masked>'],
    ['\\bEMP-\\d{6}\\b', 'EMP-123456 XEMP-123456 EMP-1234567', '<masked> XEMP-123456 EMP-1234567'],
    ['(foo|bar)baz', 'foobaz barbaz baz', '<masked> <masked> baz'],
    ['x*', 'axxb', 'a<masked>b'],
    ['^top$', 'top\nstop\ntop', '<masked>\nstop\n<masked>'],
    ['\\Qa.b\\E', 'a.b axb', '<masked> axb'],
    ['(?P<name>secret) [[:alpha:]]+', 'secret word 1', '<masked> 1'],
    ['\\x41B|é+', 'AB éé', '<masked> <masked>'],
    ['p@ss', 'p%40ss', '<masked>'],
  ])('%s', async (pattern, text, expected) => {
    expect(await masked(text, { masks: 'plain', rules: [{ name: 'X', pattern }] })).toBe(expected);
  });

  it('cannot backtrack', async () => {
    const plugin = piiGuard.create({ rules: [{ name: 'X', pattern: '(a+)+$' }] });
    const start = performance.now();
    await ask(plugin, `${'a'.repeat(3000)}!`);
    expect(performance.now() - start).toBeLessThan(2000);
  });
});

describe('description', () => {
  it('tells hooks, rewriting and the schema of the config', () => {
    const description = piiGuard.create(undefined).describe();
    expect(description).toMatchObject({
      contract: 1,
      name: 'pii-guard',
      hooks: ['request', 'response', 'stream'],
      rewrites: true,
    });
    expect(description.configSchema).toMatchObject({ type: 'object', additionalProperties: false });
    expect(Object.keys(description.configSchema!.properties as object)).toEqual([
      'rules',
      'action',
      'masks',
      'mask',
      'regions',
      'rejection',
    ]);
  });
});

describe('a config that is wrong', () => {
  it.each<[unknown, string[]]>([
    [{ rulez: [] }, [': Unrecognized key: "rulez"']],
    [{ action: 'drop' }, ['action: Invalid option: expected one of "mask"|"restore"|"reject"']],
    [
      { rules: ['emial'] },
      [expect.stringMatching(/^rules\.0: There is no rule "emial"\. Rules are: .*email/) as unknown as string],
    ],
    [
      { rules: ['constructor'] },
      [expect.stringMatching(/^rules\.0: There is no rule "constructor"\./) as unknown as string],
    ],
    [{ rules: ['email', { rule: 'email', acton: 'mask' }] }, ['rules.1: Unrecognized key: "acton"']],
    [{ rules: [{ rule: 'email', lenient: true }] }, ['rules.0.lenient: Only the rule credit-card knows `lenient`.']],
    [
      { rules: [{ name: 'X', pattern: '(' }] },
      [expect.stringMatching(/^rules\.0\.pattern: Not a regular expression in RE2 syntax \(/) as unknown as string],
    ],
    [
      { rules: [{ name: 'X', pattern: '(?=a)b' }] },
      [expect.stringMatching(/^rules\.0\.pattern: Not a regular expression in RE2/) as unknown as string],
    ],
    [{ rules: [{ pattern: 'x' }] }, [expect.stringMatching(/^rules\.0\.name: /) as unknown as string]],
    [{ rules: [] }, [expect.stringMatching(/^rules: /) as unknown as string]],
    [{ regions: ['UK'] }, [expect.stringMatching(/^regions\.0: Not a country/) as unknown as string]],
    [{ rejection: { status: 200 } }, [expect.stringMatching(/^rejection\.status: /) as unknown as string]],
    ['email', [expect.stringMatching(/^: Invalid input/) as unknown as string]],
  ])('%j is refused with its place', (config, expected) => {
    expect(problems(config)).toEqual(expected);
  });

  it('lists everything that is wrong at once', () => {
    expect(
      problems({ action: 'x', rules: ['emial', { name: '1', pattern: '(' }], mask: '' }).length,
    ).toBeGreaterThanOrEqual(4);
  });
});
