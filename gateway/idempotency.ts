/**
 * A whole request that a client sends again with the same `Idempotency-Key` is answered as it was the first time, and
 * costs nothing again. Source: IETF draft-ietf-httpapi-idempotency-key-header; the plugins keep the answers.
 */
import { createHash } from 'node:crypto';
import { MAX_REMEMBERED, type Respond } from '../proto/contract.ts';
import { withOwn } from './answer.ts';
import { GatewayError } from './errors.ts';
import * as hooks from './hooks.ts';
import type { Life } from './life.ts';
import type { RequestRecord } from './telemetry/record.ts';

const HEADER = 'idempotency-key';
/** Visible ASCII; the draft's quotes are taken as part of the key. */
const KEY = /^[\x21-\x7e]{1,255}$/;

/** Answers a request that was answered before; false when it is new, and this one's answer is then remembered. */
export async function answerAgain(life: Life, body: Buffer): Promise<boolean> {
  const { exchange, record, route } = life;
  const key = exchange.headers[HEADER];
  if (route.hooks.recall === null || key === undefined) return false;
  if (!KEY.test(key)) {
    throw new GatewayError('invalid_request', 'An `Idempotency-Key` is made of 1 to 255 visible characters.', {
      param: HEADER,
    });
  }
  const fingerprint = createHash('sha256').update(`${exchange.method} ${exchange.path}\n`).update(body).digest('hex');
  record.repeatable = { key, fingerprint, claims: new Map(), answer: undefined };
  const stored = await hooks.recall(route.hooks.recall, record, { key, fingerprint });
  if (stored === undefined) return false;
  replay(life, stored);
  return true;
}

function replay(life: Life, { status, contentType = 'application/json', body = '' }: Respond): void {
  const { exchange, record } = life;
  record.status = status;
  record.code = 'replayed';
  const head = ['content-type', contentType, 'x-request-id', record.facts.id, 'idempotent-replayed', 'true'];
  exchange.reply(status, withOwn(head, life), body);
}

/** Keeps a whole answer for {@link RequestRecord.repeatable}; one that is too long is not kept. */
export function keepAnswer({ repeatable }: RequestRecord, status: number, body: Buffer | string): void {
  if (repeatable === undefined || body.length > MAX_REMEMBERED) return;
  repeatable.answer = { status, contentType: 'application/json', body: body.toString() };
}
