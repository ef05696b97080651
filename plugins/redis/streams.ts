/**
 * Streamed answers in Redis, for all replicas of the gateway: a hash with the facts and a Redis Stream with the events,
 * whose ids are the events' numbers, so that telling one twice changes nothing.
 *
 * A replica has a key that runs out when it has not been heard of for some seconds, and a hash that tells it who reads
 * its streams elsewhere. Reading is polling: it happens for seconds after a connection was lost, and never in between.
 */
import { randomUUID } from 'node:crypto';
import {
  type FoundStream,
  LEASE_MS,
  type StreamChange,
  type StreamFacts,
  type StreamLook,
  type StreamPiece,
  type StreamReader,
  type StreamState,
  type StreamStore,
} from '../../proto/store.ts';
import { RedisLink, Script } from './link.ts';

/** The longest that anybody waits for Redis, in milliseconds. */
const DEADLINE_MS = 1_000;
/** Commands under way at a time; each stream has one or two. */
const MAX_IN_FLIGHT = 20_000;
/** How many events are read at a time. */
const PIECE = 256;
/** For how long a reader that says nothing more is believed to be there, in milliseconds. */
const READER_MS = 3_000;

/**
 * KEYS: facts, events, lease, readers. ARGV: facts or '', replica, whether it ends, the stream when it is to be taken from
 * its reader or '', how long to keep, the replica's lease, the oldest number wanted, the first number, the events.
 */
const WRITE = new Script(`
if ARGV[1] ~= '' then redis.call('HSETNX', KEYS[1], 'facts', ARGV[1]) redis.call('HSET', KEYS[1], 'replica', ARGV[2])
elseif redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local last = tonumber(redis.call('HGET', KEYS[1], 'last') or '0')
if #ARGV > 8 and tonumber(ARGV[8]) > last + 1 then return -1 end
for i = 9, #ARGV do
  local number = tonumber(ARGV[8]) + i - 9
  if number > last then
    redis.call('XADD', KEYS[2], string.format('%.0f-0', number), 'e', ARGV[i])
    last = number
  end
end
redis.call('HSET', KEYS[1], 'last', string.format('%.0f', last))
redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[7] .. '-0')
if ARGV[3] == '1' then redis.call('HSET', KEYS[1], 'ended', '1') end
if ARGV[4] ~= '' then
  redis.call('HDEL', KEYS[1], 'reader')
  redis.call('HDEL', KEYS[4], ARGV[4])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('SET', KEYS[3], '1', 'PX', ARGV[6])
return 1`);

/**
 * KEYS: facts, events, the writer's lease, its readers. ARGV: the stream, who reads, the number before, whether to take
 * it, how many. Answers the state, the oldest and the newest number, and the events.
 */
const READ = new Script(`
local last, ended, reader = unpack(redis.call('HMGET', KEYS[1], 'last', 'ended', 'reader'))
if not last then return { 'unknown', '1', '0' } end
if ARGV[4] == '1' then redis.call('HSET', KEYS[1], 'reader', ARGV[2])
elseif reader ~= ARGV[2] then return { 'taken', '1', '0' } end
local state = 'orphaned'
if ended then state = 'ended'
elseif redis.call('EXISTS', KEYS[3]) == 1 then
  state = 'open'
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[4], ARGV[1], ARGV[3] .. ' ' .. now[1] .. string.sub('00000' .. now[2], -6, -4))
  redis.call('PEXPIRE', KEYS[4], 60000)
end
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
local oldest = first and string.match(first[1], '%d+') or string.format('%.0f', tonumber(last) + 1)
local answer = { state, oldest, last }
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[3] .. '-0', '+', 'COUNT', ARGV[5])) do
  answer[#answer + 1] = entry[2][2]
end
return answer`);

/** KEYS: lease, readers. ARGV: the lease, how long a reader counts. Answers stream and number, in turn. */
const BEAT = new Script(`
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = {}
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  local number, at = string.match(all[i + 1], '^(%d+) (%d+)$')
  if at and now - tonumber(at) < tonumber(ARGV[2]) then
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = number
  else redis.call('HDEL', KEYS[2], all[i]) end
end
return answer`);

/** KEYS: facts, events. ARGV: how long to keep. */
const TOUCH = new Script(`
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.call('PEXPIRE', KEYS[2], ARGV[1])`);

/** Opens the store. Redis need not be there yet. @param prefix of all keys */
export function redisStreams(addresses: readonly string[], prefix = 'wardgate:stream:'): StreamStore {
  return new RedisStreams(addresses, prefix);
}

class RedisStreams implements StreamStore {
  readonly #link: RedisLink;
  readonly #prefix: string;
  /** Names this process. */
  readonly #replica = randomUUID();

  constructor(addresses: readonly string[], prefix: string) {
    this.#prefix = prefix;
    const scripts = [WRITE, READ, BEAT, TOUCH];
    this.#link = new RedisLink({ urls: addresses, deadlineMs: DEADLINE_MS, maxInFlight: MAX_IN_FLIGHT, scripts });
  }

  async write(stream: string, change: StreamChange): Promise<boolean> {
    const { facts, hasEnded, claims, keepMs, oldest, first, events } = change;
    const settings = [
      facts === undefined ? '' : JSON.stringify(facts),
      this.#replica,
      hasEnded ? '1' : '0',
      claims ? stream : '',
      whole(keepMs),
      String(LEASE_MS),
      String(oldest),
      String(first),
    ];
    const keys = [...this.#keysOf(stream), this.#lease(this.#replica), this.#readers(this.#replica)];
    const answer = await this.#link.run(WRITE, keys, [...settings, ...events]);
    // What came before did not arrive: it is told again, with this.
    if (answer === -1) throw new Error('events of the stream are missing');
    return answer === 1;
  }

  async touch(stream: string, keepMs: number): Promise<void> {
    await this.#link.run(TOUCH, this.#keysOf(stream), [whole(keepMs)]);
  }

  async drop(stream: string): Promise<void> {
    await this.#link.send('DEL', ...this.#keysOf(stream));
  }

  async find(stream: string): Promise<FoundStream | undefined> {
    const found = (await this.#link.send('HMGET', this.#keysOf(stream)[0], 'facts', 'replica')) as unknown[];
    const [facts, writer] = found;
    const read = typeof facts === 'string' ? readFacts(facts) : undefined;
    return read === undefined || typeof writer !== 'string' ? undefined : { facts: read, writer };
  }

  async read(stream: string, { writer, reader, after, takes }: StreamLook): Promise<StreamPiece> {
    const keys = [...this.#keysOf(stream), this.#lease(writer), this.#readers(writer)];
    const settings = [stream, reader, String(after), takes ? '1' : '0', String(PIECE)];
    const [state, oldest, newest, ...events] = (await this.#link.run(READ, keys, settings)) as string[];
    return { state: state as StreamState, oldest: Number(oldest), newest: Number(newest), events };
  }

  async beat(): Promise<StreamReader[]> {
    const keys = [this.#lease(this.#replica), this.#readers(this.#replica)];
    const told = (await this.#link.run(BEAT, keys, [String(LEASE_MS), String(READER_MS)])) as string[];
    const readers: StreamReader[] = [];
    for (let i = 0; i + 1 < told.length; i += 2) readers.push({ stream: told[i]!, handed: Number(told[i + 1]) });
    return readers;
  }

  close(): void {
    this.#link.close();
  }

  #keysOf(stream: string): [facts: string, events: string] {
    return [`${this.#prefix}${stream}`, `${this.#prefix}${stream}:events`];
  }

  #lease(replica: string): string {
    return `${this.#prefix}replica:${replica}`;
  }

  #readers(replica: string): string {
    return `${this.#prefix}replica:${replica}:readers`;
  }
}

/** Redis takes whole milliseconds only. */
function whole(ms: number): string {
  return String(Math.max(1, Math.ceil(ms)));
}

/** Another version of the gateway may have written it. */
function readFacts(text: string): StreamFacts | undefined {
  try {
    const facts = JSON.parse(text) as Partial<StreamFacts> | null;
    const { owner, head, requestId, route, fingerprint } = facts ?? {};
    const isHead = Array.isArray(head) && head.length % 2 === 0 && head.every((one) => typeof one === 'string');
    const texts = [owner, requestId, route, fingerprint];
    return isHead && texts.every((one) => typeof one === 'string') ? (facts as StreamFacts) : undefined;
  } catch {
    return undefined;
  }
}
