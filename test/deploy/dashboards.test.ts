/** The dashboards ask for figures that exist: every metric, label and fixed value of a query stands in the exposition. */
import { expect, test } from 'vitest';
import * as quota from '../../plugins/rate-limit/metrics.ts';
import { ask, prompt } from '../gateway/chat.ts';
import { textStream } from '../support/chunks.ts';
import { configFor, startGateway, testPlugin } from '../support/gateway.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { queriesOf, readDashboard } from './panels.ts';

/** Words of PromQL that these dashboards use, beside metrics and labels. */
const WORDS = new Set(['sum', 'rate', 'min', 'by', 'histogram_quantile']);

/** The figures of a gateway that has cut a stream, and of a plugin that has decided, lost and settled. */
async function exposition(): Promise<string> {
  const grants = testPlugin('grants', { limit: () => ({ allow: { outputTokens: 1, grant: 'g' } }), observe() {} });
  await using upstream = await startScriptedUpstream();
  upstream.always({ stream: { events: textStream('word '.repeat(50)) } });
  const config = configFor(upstream.url, { plugins: { grants: { at: 'local:grants' } } });
  await using gateway = await startGateway(config, { factories: [grants], metrics: true });
  await (await ask(gateway, prompt('x', { stream: true }))).text();
  for (const outcome of ['admitted', 'refused', 'lost'] as const) quota.decided(outcome);
  quota.refused('prompts');
  for (const unit of ['tokens', 'cost']) {
    quota.reserved(unit, 10);
    quota.settled(unit, 20, 5);
  }
  quota.lost('down');
  await quota.timed('decide', Promise.resolve());
  return `${await (await fetch(`${gateway.metricsUrl}/metrics`)).text()}\n${await quota.metricsText()}`;
}

function labelled(text: string, name: string): string[] {
  return text.split('\n').filter((line) => new RegExp(`^(?:${name})[{ ]`).test(line));
}

test('every series of “Wardgate: quotas” exists', async () => {
  const text = await exposition();
  const dashboard = readDashboard('quotas');
  expect(dashboard.title).toBe('Wardgate: quotas');
  const queries = queriesOf(dashboard, '1m');
  expect(queries.length).toBeGreaterThan(10);
  for (const [title, query] of queries) {
    const selector = /(?:(wardgate_\w+)|\{__name__=~"([^"]+)",)(?:\{?([^}]*)\})?/g;
    const found = [...query.matchAll(selector)];
    expect(found, title).not.toEqual([]);
    const grouped = /by \(([^)]*)\)/.exec(query)?.[1]?.split(', ') ?? [];
    for (const [, name, pattern, fixed = ''] of found) {
      let lines = labelled(text, name ?? pattern!);
      for (const matcher of fixed.split(',').filter(Boolean)) lines = lines.filter((line) => line.includes(matcher));
      expect(lines, `${title}: ${query}`).not.toEqual([]);
      for (const label of grouped) expect(lines[0], title).toContain(`${label}="`);
    }
    const rest = query.replace(selector, '').replace(/by \([^)]*\)|\[1m\]|[\d.]+/g, '');
    for (const [word] of rest.matchAll(/[a-z_]+/g)) expect(WORDS, title).toContain(word);
  }
});

test('every panel asks the data source that is chosen, and one is chosen by itself', () => {
  const { panels, templating } = readDashboard('quotas');
  expect(templating.list).toMatchObject([{ name: 'datasource', type: 'datasource', query: 'prometheus' }]);
  for (const { type, title, datasource } of panels) {
    if (type !== 'row') expect(datasource?.uid, title).toBe(`\${${templating.list[0]!.name}}`);
  }
});
