/**
 * One replica among several: clients that ask one engine as fast as they can, each decision told to the parent.
 *
 *     fork('rate-limit-replica.ts', [JSON.stringify(task)])
 */
import { Engine } from '../../plugins/rate-limit/engine.ts';
import { RedisLink } from '../../plugins/redis/link.ts';
import type { Admission, Task } from './rate-limit-fleet.ts';

const task = JSON.parse(process.argv[2]!) as Task;
const { now } = Date;
Date.now = () => now() + task.skewMs;

const link = new RedisLink({ urls: [task.url], deadlineMs: 5000, maxInFlight: 1000 });
const engine = new Engine(link, { prefix: task.prefix, lifetimeMs: task.lifetimeMs });

async function client(): Promise<Admission[]> {
  const admissions: Admission[] = [];
  for (let left = task.requests; left > 0; left--) {
    const { allowed, at, id, readings } = await engine.decide([task.check]);
    if (!allowed) continue;
    const { reserved } = readings[0]!;
    if (task.hold) continue;
    const used = reserved === 0 ? 0 : Math.floor(Math.random() * (reserved + task.beyond + 1));
    admissions.push({ at, amount: task.check.take + used, beyond: Math.max(0, used - reserved) });
    if (reserved > 0) await engine.settle(id, [{ ...task.check, reserved, used, debt: true }]);
  }
  return admissions;
}

const admissions = (await Promise.all(Array.from({ length: task.clients }, client))).flat();
process.send!(admissions);
if (task.hold) setInterval(() => {}, 1000);
else {
  link.close();
  process.disconnect();
}
