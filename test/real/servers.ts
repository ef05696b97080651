/**
 * The real servers that `npm run test:real` runs against. As vitest's global set-up it looks for each of them:
 * in the environment (`KEYCLOAK_URL` …); else it starts them, where there is a program that can (`REAL_SERVERS`, or
 * ../shared/lab/real-servers), and stops what it started; else it looks at the addresses that `docker compose --profile
 * infra up -d --wait` gives them. One line for each says where it is, or that it is missing, why, and how to get it; with
 * REAL_SERVERS_REQUIRED=true a missing one is an error.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type OpaEnvoy, startOpaEnvoy } from '../support/opa-envoy.ts';

/** The variable that holds the address of each, and what compose publishes it as. */
const SERVERS = {
  keycloak: { variable: 'KEYCLOAK_URL', compose: 'http://localhost:8080' },
  openfga: { variable: 'OPENFGA_URL', compose: 'http://localhost:8182' },
  opa: { variable: 'OPA_URL', compose: 'http://localhost:8181' },
  // Another database than the demo's, and than what else a developer may have in a Redis.
  redis: { variable: 'REDIS_URL', compose: 'redis://localhost:6379/15' },
  ratelimit: { variable: 'RATELIMIT_GRPC', compose: 'localhost:8081' },
  'opa-envoy': { variable: 'OPA_ENVOY_GRPC', compose: 'localhost:9191' },
} as const;

export type RealServerName = keyof typeof SERVERS;

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const { XDG_CACHE_HOME = join(homedir(), '.cache'), WARDGATE_CACHE = join(XDG_CACHE_HOME, 'wardgate') } = process.env;
const STARTER = process.env.REAL_SERVERS ?? join(ROOT, '../shared/lab/real-servers');

/**
 * Where a real server is: `url` is a URL, for opa-envoy and ratelimit `host:port`, and empty when `here` is false.
 *
 *     const keycloak = realServer('keycloak');
 *     describe.skipIf(!keycloak.here)('…', () => { fetch(`${keycloak.url}/realms/mcp-realm`) … });
 */
export function realServer(name: RealServerName): { here: boolean; url: string } {
  const url = process.env[SERVERS[name].variable] ?? '';
  return { here: url !== '', url };
}

/** Finds or starts every server, and answers how to stop what was started. */
export default async function setup(): Promise<() => Promise<void>> {
  const started: string[] = [];
  const missing: string[] = [];
  const look = async (name: RealServerName) => {
    const outcome = await find(name);
    if (outcome.started) started.push(name);
    if (outcome.missing) missing.push(name);
    say(name, outcome.text);
  };
  await Promise.all((['keycloak', 'openfga', 'opa', 'redis'] as const).map(look));
  // Its program would start a Redis of its own.
  await look('ratelimit');
  const envoy = await findOpaEnvoy();
  const stop = async () => {
    await envoy?.stop();
    if (started.length > 0) await run('stop', started);
  };
  if (missing.length > 0 && process.env.REAL_SERVERS_REQUIRED === 'true') {
    await stop();
    throw new Error(
      `REAL_SERVERS_REQUIRED is true, and these are missing: ${missing.join(', ')}. The lines above say why.`,
    );
  }
  return stop;
}

interface Outcome {
  text: string;
  started?: boolean;
  missing?: boolean;
}

async function find(name: RealServerName): Promise<Outcome> {
  const { variable } = SERVERS[name];
  const given = process.env[variable];
  if (given) return { text: `${given}, by ${variable}` };
  if (!existsSync(STARTER)) return findInCompose(name);
  try {
    const ran = await start(name);
    return { text: `${process.env[variable]}, ${ran ? 'which ran already' : 'started'}`, started: !ran };
  } catch (error) {
    return skipped((error as Error).message);
  }
}

async function findInCompose(name: RealServerName): Promise<Outcome> {
  const { variable, compose } = SERVERS[name];
  if (!(await answers(name, compose))) return skipped(`nothing answers at ${compose}, and nothing here can start it`);
  process.env[variable] = compose;
  return { text: `${compose}, from docker compose` };
}

function skipped(why: string): Outcome {
  const how = 'get it by `docker compose --profile infra up -d --wait`, or name one that runs in the environment';
  return { text: `skipped: ${why}; ${how}`, missing: true };
}

/** The real plugin where compose runs it with the OPA that is used, else its wire side before the real OPA. */
async function findOpaEnvoy(): Promise<OpaEnvoy | undefined> {
  const { variable, compose } = SERVERS['opa-envoy'];
  const opa = realServer('opa');
  if (process.env[variable]) say('opa-envoy', `${process.env[variable]}, by ${variable}`);
  else if (opa.url === SERVERS.opa.compose && (await answers('opa-envoy', compose))) {
    process.env[variable] = compose;
    say('opa-envoy', `${compose}, from docker compose`);
  } else if (opa.here) {
    const envoy = await startOpaEnvoy(opa.url);
    process.env[variable] = envoy.address;
    say('opa-envoy', `skipped: only compose has it; a stand-in at ${envoy.address} asks the real OPA`);
    return envoy;
  } else say('opa-envoy', 'skipped: without OPA there is no stand-in for it');
  return undefined;
}

/** Whether something that can be used answers: for Keycloak, one that has the realm. */
async function answers(name: RealServerName, address: string): Promise<boolean> {
  if (name === 'redis' || name === 'ratelimit' || name === 'opa-envoy') return listens(address);
  const path = { keycloak: '/realms/mcp-realm', openfga: '/healthz', opa: '/health' }[name];
  const response = await fetch(address + path, { signal: AbortSignal.timeout(3_000) }).catch(() => undefined);
  await response?.body?.cancel();
  return response?.ok === true;
}

function listens(address: string): Promise<boolean> {
  const { hostname, port } = new URL(address.includes('://') ? address : `tcp://${address}`);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ host: hostname, port: Number(port), timeout: 3_000 });
  socket.once('connect', () => resolve(true));
  for (const event of ['error', 'timeout']) socket.once(event, () => resolve(false));
  return promise.finally(() => socket.destroy());
}

/** Starts one and takes its addresses into the environment, and where it logs; true if it ran before. */
async function start(name: RealServerName): Promise<boolean> {
  const { stdout, stderr } = await run('start', [name]);
  for (const [, variable, value] of stdout.matchAll(/^export (\w+)=(.*)$/gm)) process.env[variable!] = value;
  const ran = stderr.includes(`${name} runs already`);
  const log = join(WARDGATE_CACHE, 'run', name, 'log');
  if (existsSync(log)) process.env[`${name.toUpperCase()}_LOG`] = log;
  if (name === 'keycloak' && !(await answers(name, process.env.KEYCLOAK_URL ?? ''))) {
    if (!ran) await run('stop', [name]);
    delete process.env.KEYCLOAK_URL;
    throw new Error(`the Keycloak that ${ran ? 'runs already' : 'was started'} has no realm mcp-realm`);
  }
  return ran;
}

/** Runs the starter; what it says of its progress is shown. */
async function run(command: string, names: string[]): Promise<{ stdout: string; stderr: string }> {
  const environment = {
    ...process.env,
    KEYCLOAK_REALM_DIR: join(ROOT, 'keycloak'),
    RATELIMIT_CONFIG_DIR: join(ROOT, 'deploy/ratelimit'),
  };
  const child = spawn(STARTER, [command, ...names], { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text) => (output.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (output.stderr += text));
  child.stderr.pipe(process.stderr, { end: false });
  const { promise, resolve, reject } = Promise.withResolvers<number | null>();
  child.once('error', reject).once('close', resolve);
  const status = await promise;
  if (status !== 0) throw new Error(`\`${STARTER} ${command} ${names.join(' ')}\` ended with ${status}`);
  return output;
}

function say(name: RealServerName, text: string): void {
  console.log(`real servers: ${name}: ${text}`);
}
