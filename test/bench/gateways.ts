/** The gateways that stand side by side, and how each is started in front of the mock provider. */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../support/free-port.ts';
import { type Command, Held } from './processes.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const CACHE = join(ROOT, 'node_modules/.cache/wardgate-bench');
const PORTKEY = '1.15.2';

/** What a gateway is given to start with. */
export interface Surroundings {
  /** A folder for its files. */
  folder: string;
  upstreamPort: number;
}

/** A gateway that answers; its processes are held between measurements. */
export interface Running {
  port: number;
  headers: Record<string, string>;
  processes: Held[];
  name: string;
  version: string;
}

export interface Gateway {
  id: string;
  title: string;
  /** @throws with the reason, for a person, when it cannot be had here */
  start(surroundings: Surroundings): Promise<Running>;
}

export const GATEWAYS: Gateway[] = [
  { id: 'nginx', title: 'nginx `proxy_pass`', start: startNginx },
  { id: 'portkey', title: 'Portkey', start: startPortkey },
  { id: 'wardgate', title: 'Wardgate, no hooks', start: (given) => startWardgate(given, 'plain', () => ({})) },
  {
    id: 'wardgate-guarded',
    title: 'Wardgate, auth + limit + PII masks in process',
    start: (given) => startWardgate(given, 'guarded', () => guards('local:pii-guard')),
  },
  { id: 'wardgate-grpc', title: 'Wardgate, the same with the PII guard over gRPC', start: startOverGrpc },
];

const KEY = 'sk-test-0123456789abcdef0123456789abcdef';

/** Keys, a limit that nobody reaches, and masks in prompt and answer. */
function guards(pii: string): object {
  const endless = { per: 'identity', maxTokens: 1e9, tokensPerFill: 1e9, fillInterval: '1s' };
  return {
    keys: { at: 'local:api-key-auth', config: { keys: [{ key: KEY, subject: 'bench' }] } },
    limit: { at: 'local:local-limit', config: { limits: [endless] } },
    pii: { at: pii, config: { rules: ['email', 'phone', 'us-ssn', 'credit-card'], action: 'mask' } },
  };
}

async function startWardgate(given: Surroundings, name: string, plugins: () => object): Promise<Running> {
  const port = await freePort();
  const mounted = plugins();
  const file = join(given.folder, `${name}.yaml`);
  const config = {
    listen: `127.0.0.1:${port}`,
    metrics: false,
    providers: { mock: { kind: 'openai-compatible', baseUrl: `http://127.0.0.1:${given.upstreamPort}/v1` } },
    models: { '*': 'mock' },
    plugins: mounted,
    routes: { '/': { plugins: Object.keys(mounted) } },
  };
  writeFileSync(file, JSON.stringify(config)); // JSON is YAML.
  const gateway = node(['gateway/main.ts', '--config', file], join(given.folder, `${name}.log`));
  await answering(gateway, `http://127.0.0.1:${port}/health`);
  return { port, headers: { authorization: `Bearer ${KEY}` }, processes: [gateway], ...WARDGATE };
}

async function startOverGrpc(given: Surroundings): Promise<Running> {
  const service = await servePlugin('pii-guard', given.folder);
  const running = await startWardgate(given, 'grpc', () => guards(service.grpcUrl)).catch(async (error: unknown) => {
    await service.process.end();
    throw error;
  });
  return { ...running, processes: [...running.processes, service.process] };
}

/** A plugin as a service of its own, on the gateways' core. */
export async function servePlugin(
  plugin: string,
  folder: string,
): Promise<{ process: Held; grpcUrl: string; httpUrl: string }> {
  const grpc = `127.0.0.1:${await freePort()}`;
  const http = `127.0.0.1:${await freePort()}`;
  const process = node(
    ['plugins/serve.ts', plugin, '--grpc', grpc, '--http', http],
    join(folder, `${plugin.replaceAll('/', '_')}.log`),
  );
  await answering(process, `http://${http}/readyz`);
  return { process, grpcUrl: `grpc://${grpc}`, httpUrl: `http://${http}` };
}

function node([script, ...args]: string[], log: string): Held {
  const command: Command = {
    program: process.execPath,
    // As `npm start` does.
    args: [
      '--max-semi-space-size=8',
      join(ROOT, script!),
      ...args.map((arg) => (arg.startsWith('./') ? join(ROOT, arg) : arg)),
    ],
    env: { NODE_ENV: 'production' },
  };
  return Held.start(command, log);
}

async function answering(held: Held, url: string): Promise<void> {
  await held.ready(url).catch(async (error: unknown) => {
    await held.end();
    throw error;
  });
}

/** With the commit, where there is a repository. */
function wardgateVersion(): string {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const git = spawnSync('git', ['describe', '--always', '--dirty', '--exclude=*'], { cwd: ROOT, encoding: 'utf8' });
  return git.status === 0 ? `${version} (${git.stdout.trim()})` : version;
}

const WARDGATE = { name: 'Wardgate', version: wardgateVersion() };

async function startNginx({ folder, upstreamPort }: Surroundings): Promise<Running> {
  const program = ['nginx', '/usr/sbin/nginx', '/usr/local/sbin/nginx'].find(
    (one) => spawnSync(one, ['-v']).status === 0,
  );
  if (program === undefined) throw new Error('it is not installed; on Debian and Ubuntu: apt-get install nginx-light');
  const port = await freePort();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (of) => `${of}_temp_path ${folder}/${of};`,
  );
  const config = `
    worker_processes 1; worker_rlimit_nofile 8192; daemon off; pid ${folder}/nginx.pid; error_log ${folder}/nginx-error.log warn;
    events { worker_connections 4096; }
    http {
      access_log off; keepalive_requests 1000000; client_max_body_size 20m; client_body_buffer_size 128k;
      ${temporary.join(' ')}
      upstream mock { server 127.0.0.1:${upstreamPort}; keepalive 1024; keepalive_requests 1000000; }
      server {
        listen 127.0.0.1:${port} backlog=4096;
        location / { proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }
      }
    }`;
  writeFileSync(join(folder, 'nginx.conf'), config);
  const nginx = Held.start({ program, args: ['-p', folder, '-c', 'nginx.conf'] }, join(folder, 'nginx.log'));
  await answering(nginx, `http://127.0.0.1:${port}/v1/chat/completions`);
  const version = spawnSync(program, ['-v'], { encoding: 'utf8' }).stderr.replace('nginx version: nginx/', '').trim();
  return { port, headers: {}, processes: [nginx], name: 'nginx', version };
}

async function startPortkey({ folder, upstreamPort }: Surroundings): Promise<Running> {
  const server = join(CACHE, 'node_modules/@portkey-ai/gateway/build/start-server.js');
  if (!existsSync(server)) installPortkey();
  const port = await freePort();
  const env = { NODE_ENV: 'production', TRUSTED_CUSTOM_HOSTS: '127.0.0.1,localhost' };
  const command = { program: process.execPath, args: [server, `--port=${port}`, '--headless'], env };
  const portkey = Held.start(command, join(folder, 'portkey.log'));
  await answering(portkey, `http://127.0.0.1:${port}/`);
  const headers = {
    authorization: `Bearer ${KEY}`,
    'x-portkey-provider': 'openai',
    'x-portkey-custom-host': `http://127.0.0.1:${upstreamPort}/v1`,
  };
  return { port, headers, processes: [portkey], name: 'Portkey', version: PORTKEY };
}

/** Into a cache below node_modules: it is no dependency of ours. */
function installPortkey(): void {
  process.stderr.write(`bench: installing @portkey-ai/gateway ${PORTKEY} to compare with (once) …\n`);
  mkdirSync(CACHE, { recursive: true });
  const manifest = {
    private: true,
    dependencies: { '@portkey-ai/gateway': PORTKEY },
    // With a newer one this release answers every stream with 500.
    overrides: { '@hono/node-server': '1.13.5' },
  };
  writeFileSync(join(CACHE, 'package.json'), JSON.stringify(manifest));
  const npm = spawnSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: CACHE,
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
    timeout: 180_000,
    shell: process.platform === 'win32',
  });
  if (npm.status !== 0)
    throw new Error(`npm could not install it: ${npm.stderr.trim().split('\n')[0] ?? 'no reason given'}`);
}
