/** Reads an API key from standard input and prints the line that stands for it in the config. */
import { hash } from 'node:crypto';
import { text } from 'node:stream/consumers';

if (process.stdin.isTTY) console.error('Paste the key, press Enter, then Ctrl-D:');
const key = (await text(process.stdin)).trim();
if (/^[\x21-\x2b\x2d-\x7e]+$/.test(key)) {
  console.log(`- { hash: 'sha256:${hash('sha256', key)}', subject: whose-key-it-is }`);
} else {
  console.error('A key is one word of visible ASCII characters without commas; send exactly one on standard input.');
  process.exitCode = 1;
}
