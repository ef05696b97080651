/** What stands behind the browser: a realm in a real Keycloak, a simulated model, the gateway, a real Open WebUI. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parse } from 'yaml';
import { startSimulator } from '../../../simulator/server.ts';
import { startGateway, type TestGateway } from '../../support/gateway.ts';
import { importRealm, type Realm } from './realm.ts';

/** A token's pace at which a person, or a script, sees a sentence grow. */
const TOKEN_DELAY_MS = 60;
/** Its first start makes the database; on busy cores that takes a minute. */
const READY_WITHIN_MS = 180_000;

/** The model behind Open WebUI's own connection, and the one that the browser asks for directly. */
export const MODELS = { chat: 'gpt-4o', direct: 'claude-3-5-sonnet-20241022' } as const;

export interface Stage extends AsyncDisposable {
  readonly webuiUrl: string;
  readonly realm: Realm;
  readonly gateway: TestGateway;
  /** Limits the route of Open WebUI to so many requests an hour and person, or not at all. */
  limit(requests?: number): Promise<void>;
}

/** Starts all of it. Open WebUI is installed by run-openwebui.sh if it is not there. */
export async function startStage(keycloakUrl: string, redis: string, port: number): Promise<Stage> {
  await using parts = new AsyncDisposableStack();
  const webuiUrl = `http://localhost:${port}`;
  const realm = parts.use(await importRealm(keycloakUrl, webuiUrl));
  const model = await startSimulator({ tokenDelayMs: TOKEN_DELAY_MS });
  parts.defer(() => model.close());
  const data = await mkdtemp(join(tmpdir(), 'wardgate-open-webui-'));
  parts.defer(() => rm(data, { recursive: true, force: true }));
  const facts = { model: model.url, issuer: realm.issuer, usageFile: join(data, 'usage.jsonl'), redis };
  const config = (requests?: number) => configOf({ ...facts, requests });
  const gateway = parts.use(await startGateway(config(), { log: 'info' }));
  await realm.tellOfLogouts(`${gateway.url}/oauth2/backchannel-logout`);
  const webui = startWebui({
    PORT: String(port),
    GATEWAY_URL: `${gateway.url}/openai/v1`,
    KEYCLOAK_URL: keycloakUrl,
    KEYCLOAK_REALM: realm.name,
    DATA_DIR: data,
  });
  parts.defer(() => stop(webui));
  await ready(webuiUrl, webui);
  const kept = parts.move();
  return {
    webuiUrl,
    realm,
    gateway,
    async limit(requests) {
      if (!(await gateway.reload(config(requests)))) throw new Error('the gateway refused its new config');
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

interface Facts {
  model: string;
  issuer: string;
  usageFile: string;
  redis: string;
  requests?: number;
}

interface ComposeConfig {
  plugins: Record<string, { at: string; config: object }>;
  routes: Record<string, { plugins: string[] }>;
}

/** Two routes of deploy/compose/wardgate.yaml as they stand there, with their plugins in process and the model simulated. */
function configOf({ model, issuer, usageFile, requests, redis }: Facts): Record<string, unknown> {
  const compose = parse(readFileSync('deploy/compose/wardgate.yaml', 'utf8')) as ComposeConfig;
  const routes = Object.fromEntries(['/openai', '/anthropic'].map((path) => [path, compose.routes[path]!]));
  const mounted = new Set(Object.values(routes).flatMap(({ plugins }) => plugins));
  const plugins = Object.fromEntries([...mounted].map((name) => [name, inProcess(compose.plugins[name]!)]));
  const rate = requests === undefined ? { max: 600, window: '1m' } : { max: requests, window: '1h' };
  const prompts = { name: 'prompts', per: 'identity', headers: { 'x-openwebui-task': '' }, ...rate };
  const config: Record<string, object> = {
    sso: { issuers: [{ issuer, audience: 'account', backchannelLogout: ['openweb-ui'] }] },
    // Every config counts anew.
    quota: { redis, prefix: `{stage-${randomUUID()}}:`, limits: [prompts] },
    again: { redis },
    pii: { rules: ['email', { rule: 'credit-card', action: 'reject' }] },
    usage: { to: usageFile },
  };
  return {
    providers: { simulated: { kind: 'openai-compatible', baseUrl: `${model}/v1` } },
    models: { [MODELS.chat]: 'simulated', [MODELS.direct]: 'simulated' },
    plugins: Object.fromEntries(
      Object.entries(plugins).map(([name, mount]) => [name, { ...mount, config: config[name] ?? mount.config }]),
    ),
    routes,
  };
}

/** `${CEL_AUTHZ:-grpc://cel-authz:9000}` becomes `local:cel-authz`. */
function inProcess<M extends { at: string }>(mount: M): M {
  return { ...mount, at: mount.at.replace(/^.*grpc:\/\/([\w-]+):\d+\}?$/, 'local:$1') };
}

function startWebui(settings: Record<string, string>): ChildProcess {
  return spawn('bash', ['run-openwebui.sh'], {
    env: { ...process.env, ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

async function ready(url: string, webui: ChildProcess): Promise<void> {
  let printed = '';
  for (const output of [webui.stdout, webui.stderr]) output?.on('data', (text) => (printed += String(text)));
  for (const until = Date.now() + READY_WITHIN_MS; Date.now() < until; await sleep(500)) {
    if (webui.exitCode !== null) break;
    const healthy = await fetch(`${url}/health`).catch(() => undefined);
    if (healthy?.ok) return;
  }
  throw new Error(`Open WebUI did not get ready:\n${printed.slice(-3000)}`);
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await gone;
  clearTimeout(late);
}
