/** What a route says of streams that can be resumed. */
import { type RouteConfig, resumeSettings } from '../config/schema.ts';
import type { Life } from '../life.ts';

export type ResumePolicy = Exclude<RouteConfig['resume'], boolean>;

/** Header by which a client chooses: `true` or `false`. */
const HEADER = 'x-wardgate-stream-resume';

/** Whether the answer is to be kept, as the route allows and the client wants. */
export function isWanted({ when }: ResumePolicy, { exchange, dialect }: Life): boolean {
  const said = exchange.headers[HEADER]?.trim().toLowerCase();
  return when === 'asked' || dialect.takesEventIds === false ? said === 'true' : said !== 'false';
}

/** What a route's config says; undefined when nothing is kept. */
export function policyOf({ resume }: RouteConfig): ResumePolicy | undefined {
  if (resume === false) return undefined;
  return resume === true ? DEFAULTS : resume;
}

const DEFAULTS: ResumePolicy = Object.freeze(resumeSettings.parse({}));
