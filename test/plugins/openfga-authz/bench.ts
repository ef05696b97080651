/**
 * What a decision costs in the gateway's own process: CPU and time, remembered and asked.
 *
 *     OPENFGA_URL=http://127.0.0.1:8182 node test/plugins/openfga-authz/bench.ts
 */
import { openfgaAuthz } from '../../../plugins/openfga-authz/plugin.ts';
import type { AuthorizeInput, Plugin } from '../../../proto/contract.ts';
import { seed, TUPLES } from './demo.ts';

const { OPENFGA_URL: apiUrl = 'http://127.0.0.1:8182' } = process.env;
const store = 'wardgate-bench';

const groups = Array.from({ length: 5 }, (_, i) => `acme-team-${i}`);
const identity = { subject: 'id', issuer: 'https://sso.example/realms/demo', username: 'bob', groups };

function input(models: number, withGroups: boolean): AuthorizeInput {
  const resources = Array.from({ length: models }, (_, i) => ({
    type: 'model' as const,
    name: i === 0 ? 'gpt-4o' : `m${i}`,
  }));
  const who = { ...identity, groups: withGroups ? groups : [] };
  const request = { id: 'r', method: 'POST', path: '/', route: '/', identity: who };
  return { request, action: models === 1 ? 'model.use' : 'model.list', resources };
}

async function measure(name: string, plugin: Plugin, asked: AuthorizeInput, rounds: number): Promise<void> {
  for (let i = 0; i < rounds / 5; i++) await plugin.authorize!(asked);
  const times: number[] = [];
  const cpu = process.cpuUsage();
  for (let i = 0; i < rounds; i++) {
    const start = performance.now();
    const answer = plugin.authorize!(asked);
    if (answer instanceof Promise) await answer;
    times.push(performance.now() - start);
  }
  const { user, system } = process.cpuUsage(cpu);
  times.sort((a, b) => a - b);
  const at = (share: number) => `${Math.round(times[Math.floor(rounds * share)]! * 10_000) / 10} µs`;
  console.log(`${name.padEnd(46)} CPU ${((user + system) / rounds).toFixed(1)} µs, p50 ${at(0.5)}, p99 ${at(0.99)}`);
}

await seed({ apiUrl, store, tuples: TUPLES });
const remembering = openfgaAuthz.create({ apiUrl, store, cache: { allowed: '1h', denied: '1h' }, groups: {} });
const asking = openfgaAuthz.create({ apiUrl, store, cache: false, groups: {} });
const listing = openfgaAuthz.create({ apiUrl, store, cache: false, groups: {}, listing: 'list-objects' });
await measure('remembered, no groups', remembering, input(1, false), 200_000);
await measure('remembered, 5 groups', remembering, input(1, true), 200_000);
await measure('remembered, 50 models, 5 groups', remembering, input(50, true), 10_000);
await measure('asked: Check, no groups', asking, input(1, false), 2_000);
await measure('asked: Check, 5 groups', asking, input(1, true), 2_000);
await measure('asked: 50 models, batch check, 5 groups', asking, input(50, true), 300);
await measure('asked: 50 models, list-objects, 5 groups', listing, input(50, true), 300);
for (const plugin of [remembering, asking, listing]) await plugin.close?.();
