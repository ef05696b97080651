/**
 * What authentication costs: microseconds of CPU for a token that is remembered, for one that is seen for the first time,
 * and for a session cookie. Functions alone, no sockets.
 *
 *     node test/bench/oidc-auth.ts
 */
import { oidcAuth } from '../../plugins/oidc-auth/plugin.ts';
import type { AuthenticateInput, Plugin } from '../../proto/contract.ts';
import { startIssuer } from '../support/issuer.ts';

const FIRST = 3_000;
const REMEMBERED = 300_000;

function inputWith(token: string): AuthenticateInput {
  return {
    request: { id: 'r', method: 'POST', path: '/', route: '/', headers: { authorization: `Bearer ${token}` } },
  };
}

/** Microseconds of CPU, all threads of the process, for each of so many runs. */
async function cpuOf(runs: number, work: () => void | Promise<void>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / runs;
}

async function measure(alg: string): Promise<void> {
  await using issuer = await startIssuer({ alg });
  const plugin: Plugin = oidcAuth.create({
    issuers: [{ issuer: issuer.url, audience: 'account', algorithms: [alg] }],
    maxTokens: 100_000,
  });
  const inputs = await Promise.all(Array.from({ length: 2 * FIRST }, async () => inputWith(await issuer.token())));
  const verify = async (some: AuthenticateInput[]) => {
    for (const input of some) await plugin.authenticate!(input);
  };
  await verify(inputs.slice(0, FIRST));
  const first = await cpuOf(FIRST, () => verify(inputs.slice(FIRST)));
  const ask = () => {
    for (let i = 0; i < REMEMBERED; i++) void plugin.authenticate!(inputs[i % inputs.length]!);
  };
  ask();
  const remembered = await cpuOf(REMEMBERED, ask);
  const bytes = inputs[0]!.request.headers!.authorization!.length;
  console.log(`${alg.padEnd(6)} ${bytes} B   first ${first.toFixed(0)} µs   remembered ${remembered.toFixed(2)} µs`);
  await plugin.close?.();
}

for (const alg of ['RS256', 'ES256', 'PS256', 'EdDSA']) await measure(alg);
