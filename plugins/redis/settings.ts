/** Settings of the connection, for every plugin that stands on Redis. */
import { z } from 'zod';
import { durationMs } from '../../proto/config.ts';
import { count, duration } from '../quota/fields.ts';
import { type LinkOptions, RedisLink, type Script } from './link.ts';

/** A Redis by its URL; several are tried in turn until one is a primary. */
const address = z.string().regex(/^rediss?:\/\/[^\s/]+/, 'Write an address such as redis://redis:6379.');

export const connection = {
  redis: z
    .union([address, z.array(address).min(1).max(16)])
    .default('redis://localhost:6379')
    .describe('Where Redis is; several addresses for one that may fail over.'),
  deadline: duration.default('100ms').describe('The longest that a request waits for Redis.'),
  maxInFlight: count.default(1000).describe('Requests that wait for Redis at a time; those beyond do without it.'),
};

type Settings = { redis: string | string[]; deadline: string; maxInFlight: number };

/** Connects as the settings say. */
export function linkOf({ redis, deadline, maxInFlight }: Settings, scripts: readonly Script[]): RedisLink {
  const options: LinkOptions = { urls: [redis].flat(), deadlineMs: durationMs(deadline), maxInFlight, scripts };
  return new RedisLink(options);
}
