// Installs the locked dependencies when they are missing or older than the lock file, so that `npm start` and
// `npm test` work on a fresh clone. Plain JavaScript: it runs on whatever Node (20 or newer) the machine has.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const lock = readFileSync('package-lock.json', 'utf8');
const stamp = 'node_modules/.wardgate-lock';
if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== lock) install();

function install() {
  console.error('wardgate: installing the locked dependencies (once; takes some seconds) …');
  // The Node that runs everything is itself a development dependency, so NODE_ENV=production must not leave it out.
  const npm = spawnSync('npm', ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'], {
    stdio: ['ignore', 'inherit', 'inherit'],
    shell: process.platform === 'win32',
  });
  if (npm.status !== 0) fail('`npm ci` failed. Check the network and the registry settings of npm, then try again.');
  if (!existsSync('node_modules/node/bin') && Number.parseInt(process.versions.node, 10) < 24) {
    fail(`Node 24 was not installed, and this is Node ${process.versions.node}. Does npm ignore install scripts?`);
  }
  writeFileSync(stamp, lock);
}

function fail(message) {
  console.error(`wardgate: ${message}`);
  process.exit(1);
}
