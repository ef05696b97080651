/** idempotency: a request that is sent again with the same key gets the first one's answer, whichever replica it reaches. */
import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { durationMs } from '../../proto/config.ts';
import {
  type AllowOrReject,
  type CallOptions,
  CONTRACT_VERSION,
  type Description,
  type Plugin,
  type PluginFactory,
  type RecallInput,
  type Reject,
  type RememberInput,
  type RequestFacts,
  type Respond,
} from '../../proto/contract.ts';
import { labelled } from '../quota/keys.ts';
import { seconds, tryAgain } from '../quota/words.ts';
import { type RedisLink, RedisLost } from '../redis/link.ts';
import { Outbox } from '../redis/outbox.ts';
import { linkOf } from '../redis/settings.ts';
import { Answers, type Claim, SCRIPTS } from './answers.ts';
import { CONFIG, type Config, readConfig } from './config.ts';

const NAME = 'idempotency';
/** Answers that wait for a lost Redis; each may be long, so they are few. */
const MAX_WAITING = 100;
/** When to ask again while the first request is being answered, at most, in milliseconds. */
const PATIENCE_MS = 5000;

/** Makes the plugin. @throws ConfigProblem when the config is not its kind */
export const idempotency: PluginFactory = {
  name: NAME,
  create: (config) => new Idempotency(readConfig(config)),
};

class Idempotency implements Plugin {
  readonly #config: Config;
  readonly #link: RedisLink;
  readonly #answers: Answers;
  readonly #outbox = new Outbox(MAX_WAITING);

  constructor(config: Config) {
    this.#config = config;
    this.#link = linkOf(config, SCRIPTS);
    this.#answers = new Answers(this.#link);
  }

  describe(): Description {
    return {
      contract: CONTRACT_VERSION,
      name: NAME,
      version: '0.1.0',
      hooks: ['recall', 'remember'],
      rewrites: false,
      configSchema: z.toJSONSchema(CONFIG, { io: 'input' }),
    };
  }

  /** Claims the key, or says what has become of it. */
  async recall(input: RecallInput, options?: CallOptions): Promise<AllowOrReject | { respond: Respond }> {
    const claim = this.#claimOf(input, randomBytes(12).toString('base64url'));
    try {
      const known = await this.#answers.claim(claim, durationMs(this.#config.lease));
      // Nobody waits any more: the claim would not come back.
      if (options?.signal?.aborted) await this.#outbox.do(() => this.#answers.free(claim));
      if (known.state === 'answered') return { respond: JSON.parse(known.answer) as Respond };
      if (known.state === 'open') return { reject: inProgress(known.freeInMs) };
      return known.state === 'other' ? { reject: REUSED } : { allow: { grant: claim.id } };
    } catch (error) {
      if (!(error instanceof RedisLost)) throw error;
      if (error.mayBeDone) this.#outbox.add(() => this.#answers.free(claim));
      return this.#config.onRedisLoss === 'allow' ? { allow: {} } : { reject: UNAVAILABLE };
    }
  }

  /** Keeps the answer, or frees the key. */
  async remember(input: RememberInput): Promise<undefined> {
    const { grant, outcome, status, contentType, body = '' } = input;
    if (grant === undefined) return;
    const claim = this.#claimOf(input, grant);
    if (outcome === 'answered' && status !== undefined && body.length <= this.#config.maxAnswer) {
      const answer = JSON.stringify({ status, contentType, body } satisfies Respond);
      await this.#outbox.do(() => this.#answers.keep(claim, durationMs(this.#config.window), answer));
    } else await this.#outbox.do(() => this.#answers.free(claim));
  }

  async close(): Promise<void> {
    await this.#outbox.close(() => this.#link.close());
  }

  #claimOf({ request, key, fingerprint }: RecallInput, id: string): Claim {
    return { key: this.#config.prefix + scopeOf(request) + labelled('key', key), fingerprint, id };
  }
}

/** A key belongs to who sent it, on which route. Those without an identity are one. */
function scopeOf({ identity, route }: RequestFacts): string {
  return labelled('subject', identity?.subject) + labelled('issuer', identity?.issuer) + labelled('route', route);
}

function inProgress(freeInMs: number): Reject {
  const waitMs = Math.min(Math.max(freeInMs, 1000), PATIENCE_MS);
  return {
    code: 'idempotency_in_progress',
    message: `The first request with this Idempotency-Key is still being answered. ${tryAgain(waitMs)}`,
    status: 409,
    headers: { 'retry-after': String(seconds(waitMs)) },
  };
}

const REUSED: Reject = {
  code: 'idempotency_key_reused',
  message: 'This Idempotency-Key was sent with another request. Send each request with a key of its own.',
  status: 422,
};

const UNAVAILABLE: Reject = {
  code: 'idempotency_unavailable',
  message: 'Whether this request was answered before cannot be looked up at the moment. Try again in some seconds.',
  status: 503,
  headers: { 'retry-after': '2' },
};
