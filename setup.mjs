// Installs the locked dependencies when they are missing or older than the lock file, so that `npm start` and
// `npm test` work on a fresh clone. Plain JavaScript: it runs on whatever Node (20 or newer) the machine has.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const lock = readFileSync('package-lock.json', 'utf8');
const stamp = 'node_modules/.wardgate-lock';
if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== lock) install();

function install() {
  console.error('wardgate: installing the locked dependencies (once; takes some seconds) …');
  const npm = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    stdio: ['ignore', 'inherit', 'inherit'],
    shell: process.platform === 'win32',
  });
  if (npm.status !== 0) {
    console.error('wardgate: `npm ci` failed. Check the network and the registry settings of npm, then try again.');
    process.exit(npm.status ?? 1);
  }
  writeFileSync(stamp, lock);
}
