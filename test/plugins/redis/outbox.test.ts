/** What waits for a lost Redis: nothing in it holds up the rest, and it outlives the plugin that it was left to. */
import { expect, test } from 'vitest';
import { Outbox } from '../../../plugins/redis/outbox.ts';

const POLL = { timeout: 5000, interval: 20 };

test('a task that always fails does not hold up those behind it', async () => {
  const outbox = new Outbox(10);
  const done: string[] = [];
  outbox.add(() => Promise.reject(new Error('never')));
  for (const name of ['a', 'b']) outbox.add(async () => done.push(name));
  await outbox.flush();
  await outbox.flush();
  expect(done).toEqual(['a', 'b']);
  expect(outbox.size).toBe(1);
});

test('what waits when it is closed is done later, and only then is the connection let go', async () => {
  const outbox = new Outbox(10);
  const seen: string[] = [];
  let isAway = true;
  outbox.add(() => (isAway ? Promise.reject(new Error('away')) : Promise.resolve(seen.push('task'))));
  await outbox.close(() => seen.push('end'));
  expect(seen).toEqual([]);
  isAway = false;
  await expect.poll(() => seen, POLL).toEqual(['task', 'end']);
});

test('with nothing left it ends at once', async () => {
  const seen: string[] = [];
  const outbox = new Outbox(10);
  outbox.add(async () => seen.push('task'));
  await outbox.close(() => seen.push('end'));
  expect(seen).toEqual(['task', 'end']);
});
