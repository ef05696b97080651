/** A real nginx in front of something, for one test. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../support/free-port.ts';

/** Debian keeps it where only root's PATH leads. */
const NGINX = ['nginx', '/usr/sbin/nginx'].find((program) => spawnSync(program, ['-v']).status === 0);

/** True when there is none to test with; on CI that is a failure, not an excuse. */
export const NO_NGINX = NGINX === undefined && process.env.CI === undefined;

export interface Nginx {
  url: string;
  stop(): Promise<void>;
}

/** Starts nginx with the `server` and `upstream` blocks that are given; `$PORT` in them is where it is to listen. */
export async function startNginx(site: string): Promise<Nginx> {
  if (NGINX === undefined) throw new Error('nginx is not installed: apt-get install nginx-light');
  const folder = mkdtempSync(join(tmpdir(), 'wardgate-nginx-'));
  const port = await freePort();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (of) => `${of}_temp_path ${folder}/${of};`,
  );
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off; master_process off; pid ${folder}/pid; error_log stderr warn;
     events {}
     http { access_log off; ${temporary.join(' ')} ${site.replaceAll('$PORT', `127.0.0.1:${port}`)} }`,
  );
  const nginx = spawn(NGINX, ['-p', folder, '-c', 'nginx.conf'], { stdio: ['ignore', 'ignore', 'pipe'] });
  const said: string[] = [];
  nginx.stderr.on('data', (data) => said.push(String(data)));
  await listening(port, nginx).catch((cause) => Promise.reject(new Error(said.join(''), { cause })));
  return {
    url: `http://127.0.0.1:${port}`,
    stop: async () => {
      if (nginx.exitCode === null && nginx.kill('SIGKILL')) await once(nginx, 'exit');
      rmSync(folder, { recursive: true });
    },
  };
}

async function listening(port: number, nginx: ChildProcess): Promise<void> {
  while (nginx.exitCode === null) {
    const socket = connect({ port, host: '127.0.0.1' });
    const up = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (up) return;
    await sleep(20);
  }
  throw new Error(`nginx ended with ${nginx.exitCode}`);
}
