import { describe, expect, it } from 'vitest';
import { localLimit } from '../../../plugins/local-limit/plugin.ts';
import { problemsOf as findProblems } from '../problems.ts';

const problemsOf = (config: unknown) => findProblems(localLimit, config);

describe('the config of local-limit', () => {
  it.each([[undefined], [{}], [{ limits: [] }], [[]]])('refuses %o', (config) => {
    expect(problemsOf(config)).not.toEqual({});
  });

  it('lists every problem with its place', () => {
    expect(
      problemsOf({
        limits: [
          { maxTokens: 1, tokensPerFill: 5, fillInterval: '1m' },
          { maxTokens: 5, tokensPerFill: 1 },
          { requestsPerMinute: 60, maxTokens: 5, type: 'tokens' },
          { requestsPerMinute: 60, reserve: true, debt: false },
          { requestsPerMinute: 60, per: ['all', 'model', 'model'] },
          { maxTokens: 5, tokensPerFill: 1, fillInterval: '1m', burst: 3 },
        ],
      }),
    ).toEqual({
      'limits.0.tokensPerFill': 'It cannot be more than maxTokens, which is 1.',
      'limits.1.fillInterval': 'This is missing; or write requestsPerMinute (and burst) instead.',
      'limits.2.maxTokens': 'requestsPerMinute says this already.',
      'limits.2.type': 'requestsPerMinute counts requests.',
      'limits.3.reserve': 'Only a limit of `type: tokens` can reserve an estimate.',
      'limits.3.debt': 'Only a limit of `type: tokens` can run into debt.',
      'limits.4.per': '`all` means one bucket, so it stands alone.',
      'limits.5.burst': 'It goes with requestsPerMinute; here maxTokens says the same.',
    });
  });

  it('knows no other settings, units or parts', () => {
    expect(
      problemsOf({
        limits: [{ maxTokens: 1, tokensPerFill: 1, fillInterval: '1 week', per: 'person', color: 1 }],
        x: 1,
      }),
    ).toEqual({
      x: 'This setting is not known.',
      'limits.0.color': 'This setting is not known.',
      'limits.0.fillInterval': 'Write a number and its unit, such as 500ms, 100s, 1m, 2h or 1d.',
      'limits.0.per': 'Write one of identity, tenant, group, model, route, all, or a list of them.',
    });
    expect(problemsOf({ limits: [{ maxTokens: 1, tokensPerFill: 1, fillInterval: '0s' }] })).toEqual({
      'limits.0.fillInterval': 'The interval must be longer than nothing.',
    });
  });

  it('is described by a JSON Schema', () => {
    const description = localLimit.create({ limits: [{ requestsPerMinute: 60 }] }).describe();
    expect(description).toMatchObject({ name: 'local-limit', hooks: ['limit', 'observe'], rewrites: false });
    expect(description.configSchema).toMatchObject({ type: 'object', required: ['limits'] });
  });

  it('works with the clock of the process', () => {
    const plugin = localLimit.create({ limits: [{ requestsPerMinute: 60, burst: 1 }] });
    const request = { id: 'r', method: 'POST', path: '/', route: '/' };
    expect(plugin.limit!({ request, estimatedInputTokens: 1 })).toHaveProperty('allow');
    expect(plugin.limit!({ request, estimatedInputTokens: 1 })).toHaveProperty('reject');
  });
});
