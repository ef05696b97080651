/** Claims and answers in Redis, each by one script, so that of many replicas one answers a request. */
import { type RedisLink, Script } from '../redis/link.ts';

/** What is known of a key: nothing until now, another request, one that is being answered, or its answer. */
export type Known =
  | { state: 'claimed' }
  | { state: 'other' }
  | { state: 'open'; freeInMs: number }
  | { state: 'answered'; answer: string };

/** KEYS: the key. ARGV: fingerprint, claim, lease. A claim that is asked again (after a lost answer) is given again. */
const CLAIM = new Script(`
local print, claim, answer = unpack(redis.call('HMGET', KEYS[1], 'print', 'claim', 'answer'))
if print and print ~= ARGV[1] then return { 'other' } end
if answer then return { 'answered', answer } end
if print and claim ~= ARGV[2] then return { 'open', redis.call('PTTL', KEYS[1]) } end
redis.call('HSET', KEYS[1], 'print', ARGV[1], 'claim', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return { 'claimed' }`);

/** KEYS: the key. ARGV: fingerprint, claim, window, answer. Whoever lost the key to another leaves that one's alone. */
const KEEP = new Script(`
local claim = redis.call('HGET', KEYS[1], 'claim')
if claim and claim ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'print', ARGV[1], 'claim', ARGV[2], 'answer', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1`);

/** KEYS: the key. ARGV: claim. */
const FREE = new Script(`
local claim, answer = unpack(redis.call('HMGET', KEYS[1], 'claim', 'answer'))
if claim == ARGV[1] and not answer then return redis.call('DEL', KEYS[1]) end
return 0`);

export const SCRIPTS = [CLAIM, KEEP, FREE];

/** A claim on a key. */
export interface Claim {
  key: string;
  fingerprint: string;
  id: string;
}

/** Every method throws RedisLost when there is no answer in time. */
export class Answers {
  readonly #link: RedisLink;

  constructor(link: RedisLink) {
    this.#link = link;
  }

  /** Claims a key unless it is known. */
  async claim({ key, fingerprint, id }: Claim, leaseMs: number): Promise<Known> {
    const [state, rest] = (await this.#link.run(CLAIM, [key], [fingerprint, id, String(leaseMs)])) as [string, unknown];
    if (state === 'open') return { state, freeInMs: Math.max(0, Number(rest)) };
    if (state === 'answered') return { state, answer: String(rest) };
    return { state: state === 'other' ? 'other' : 'claimed' };
  }

  /** Keeps the answer to what was claimed, also when the claim has run out in the meantime. */
  async keep({ key, fingerprint, id }: Claim, windowMs: number, answer: string): Promise<void> {
    await this.#link.run(KEEP, [key], [fingerprint, id, String(windowMs), answer]);
  }

  /** Gives a claim back, so that the request may be sent again. */
  async free({ key, id }: Claim): Promise<void> {
    await this.#link.run(FREE, [key], [id]);
  }
}
