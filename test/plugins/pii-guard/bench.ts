/** Prints what a scan costs in µs; run it with `node test/plugins/pii-guard/bench.ts`. */
import { scanner } from './woven.ts';

const guard = scanner();
const PROSE =
  'The gateway keeps the whole of the conversation in mind when it answers, and so it should be clear from the first sentence what the reader is to do. It was a bright cold day in spring, and the clocks were striking; nobody in the office had expected the visitors so early. ';
const ENTITIES = ' Mail jane.doe@example.com or call (415) 555-2671, SSN 123-45-6789, card 4111 1111 1111 1111. ';

function of(size: number, inserted: string): string {
  let text = '';
  while (text.length < size) text += PROSE.repeat(4).slice(0, 1024 - inserted.length) + inserted;
  return text.slice(0, size);
}

function measure(name: string, text: string, before: string, last: boolean, rounds: number): void {
  for (let round = 0; round < Math.min(rounds, 5_000); round++) guard.scan(fresh(text, round), before, last);
  let best = Number.POSITIVE_INFINITY;
  for (let run = 0; run < 9; run++) {
    const texts = Array.from({ length: Math.ceil(rounds / 10) }, (_, index) => fresh(text, index));
    const start = performance.now();
    for (const each of texts) guard.scan(each, before, last);
    best = Math.min(best, ((performance.now() - start) * 1000) / texts.length);
  }
  console.log(`${name.padEnd(44)} ${best.toFixed(2).padStart(9)} µs`);
}

/** A text as it comes from a socket: new each time, flat. */
function fresh(text: string, round: number): string {
  return Buffer.from(text + String.fromCharCode(97 + (round % 26))).toString();
}

measure('1 KB clean prose', of(1024, ''), '', true, 20_000);
measure('1 KB, 4 entities', of(1024, ENTITIES), '', true, 20_000);
measure('20 KB, 4 entities a KB', of(20_480, ENTITIES), '', true, 2_000);
measure('20 KB clean prose', of(20_480, ''), '', true, 2_000);
measure('stream window, 24 characters', 't=1763720000000000000 ', PROSE.slice(0, 64), false, 100_000);
measure('stream window, a word', 'sentence ', PROSE.slice(0, 64), false, 100_000);
measure('1 KB, 4 entities, one curly quote', `${of(1023, ENTITIES)}’`, '', true, 20_000);
measure('1 KB, 4 entities, percent-encoded', of(1020, ENTITIES.replace('@', '%40')), '', true, 20_000);
measure('1 KB Cyrillic', 'съешь ещё этих мягких булок '.repeat(37).slice(0, 1024), '', true, 20_000);
measure('1 KB Chinese', '請聯絡我們並且把資料寄給我'.repeat(80).slice(0, 1024), '', true, 20_000);
for (const [name, unit] of Object.entries({
  a: 'a',
  '1 ': '1 ',
  '1234 ': '1234 ',
  '415-': '415-',
  '020 ': '020 ',
  '+49 ': '+49 ',
  '4111 ': '4111 ',
  '@': '@',
  'a@a.a@a.': 'a@a.a@a.',
  '%40': '%40',
  '-----BEGIN ': '-----BEGIN ',
  'BEGIN PRIVATE KEY': '-----BEGIN PRIVATE KEY-----',
  eyJ: 'eyJ',
  'eyJ.': 'eyJ.',
  'sk-': 'sk-',
  '://': '://',
  'a:': 'a:',
  'key=': 'key=',
  '1.': '1.',
  DE12: 'DE12 ',
  '\\u200b': '\u200b',
  'call me ': 'call me 12345678 ',
})) {
  measure(`20 KB of ${name}`, unit.repeat(20_480 / unit.length), '', true, 100);
}
