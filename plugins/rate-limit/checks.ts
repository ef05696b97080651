/** What a request asks of a limit, and what its answer is worth: amounts from estimates, usage and prices. */
import type { LimitInput, ObserveInput, RequestFacts } from '../../proto/contract.ts';
import { applies } from '../quota/keys.ts';
import { totalOf, wholeTokens } from '../quota/tokens.ts';
import type { Limit } from './config.ts';
import type { Check } from './engine.ts';
import { NANO_USD } from './money.ts';

/** Billionths of a dollar in a dollar for a million tokens. */
const NANO_PER_TOKEN = NANO_USD / 1e6;

/** Says whether a limit counts a request: by model, route, group and headers. */
export function counts(limit: Limit, request: RequestFacts): boolean {
  if (!applies(limit, request)) return false;
  return limit.headers.every(([name, values]) => {
    const value = request.headers?.[name] ?? '';
    return values.some((wanted) => wanted === value || (wanted === '*' && value !== ''));
  });
}

/** What a request takes from a limit, and reserves at it, before it goes on. */
export function checkOf(limit: Limit, key: string, input: LimitInput): Check {
  const { prompt, answerToken } = worth(limit, input);
  const { meter, type, reserve } = limit;
  if (type === 'requests') return { key, ...meter, take: 1, least: 0, most: 0 };
  if (type === 'concurrent') return { key, ...meter, take: 0, least: 1, most: 1 };
  if (reserve !== 'with-answer') return { key, ...meter, take: 0, least: prompt, most: prompt };
  const answer = Math.min(wholeTokens(input.maxOutputTokens ?? limit.answerTokens), limit.answerTokens);
  const one = Math.min(answer, 1);
  return {
    key,
    ...meter,
    take: 0,
    least: prompt + Math.ceil(one * answerToken),
    most: prompt + Math.ceil(answer * answerToken),
  };
}

/** How many answer tokens a reservation pays for; undefined where the limit does not bound the answer. */
export function paidFor(limit: Limit, reserved: number, input: LimitInput): number | undefined {
  if (limit.reserve !== 'with-answer') return undefined;
  const { prompt, answerToken } = worth(limit, input);
  return answerToken === 0 ? undefined : Math.floor((reserved - prompt) / answerToken);
}

/** What a request has used of what a limit counts. */
export function usedOf(type: string, { usage, costUsd }: Pick<ObserveInput, 'usage' | 'costUsd'>): number {
  const used = type === 'tokens' ? totalOf(usage) : type === 'cost' ? wholeTokens((costUsd ?? 0) * NANO_USD) : 0;
  return Math.min(used, Number.MAX_SAFE_INTEGER);
}

/** What the prompt is estimated at, and what each token of the answer costs, in the limit's unit. */
function worth({ type, reserve }: Limit, { estimatedInputTokens, price }: LimitInput) {
  if (reserve === false) return { prompt: 0, answerToken: 0 };
  const tokens = wholeTokens(estimatedInputTokens);
  if (type === 'tokens') return { prompt: tokens, answerToken: 1 };
  const [input, output] = [price?.input ?? 0, price?.output ?? 0].map((usd) => usd * NANO_PER_TOKEN);
  return { prompt: Math.ceil(tokens * input!), answerToken: output! };
}
