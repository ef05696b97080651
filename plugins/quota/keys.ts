/** Which limits a request falls under, and whose count it takes from. */
import { hash } from 'node:crypto';
import type { RequestFacts } from '../../proto/contract.ts';

/** What a limit counts apart: one count for each person, model and so on; `header:NAME` for each value of a header. */
export type Part = 'identity' | 'tenant' | 'group' | 'key' | 'model' | 'route' | 'all' | `header:${string}`;

/** Whom a limit counts, and apart from whom. */
export interface Scope {
  parts: readonly Part[];
  models?: ReadonlySet<string>;
  routes?: ReadonlySet<string>;
  groups?: ReadonlySet<string>;
}

const NO_GROUPS: string[] = [];
/** Longer values stand in a key as their hash: keys are bounded whatever a client sends. */
const MAX_VALUE = 128;

/** Says whether the limit counts this request at all. */
export function applies({ models, routes, groups }: Scope, request: RequestFacts): boolean {
  if (models !== undefined && !(request.model !== undefined && models.has(request.model))) return false;
  if (routes !== undefined && !routes.has(request.route)) return false;
  return groups === undefined || groupsOf(request).some((group) => groups.has(group));
}

/**
 * The keys of the counts that a request takes from: one, or one for each of the groups that a person is in.
 * Whoever has no identity, tenant or group shares one count with all others that have none.
 *
 * @param start what the keys begin with: the limit's name or number
 */
export function keysOf(scope: Scope, start: string, request: RequestFacts): string[] {
  let key = start;
  let grouped = false;
  for (const part of scope.parts) {
    if (part === 'group') grouped = true;
    else if (part !== 'all') key += partKey(part, request);
  }
  if (!grouped) return [key];
  const groups = groupsOf(request).filter((group) => scope.groups?.has(group) ?? true);
  if (groups.length === 0) return [key + labelled('group', undefined)];
  return [...new Set(groups)].map((group) => key + labelled('group', group));
}

/** The id of the API key that a request came with, as `api-key-auth` tells it. */
export function apiKeyOf({ identity }: RequestFacts): { id: string; budget?: unknown } | undefined {
  const claim = identity?.claims?.['api-key'] as { id?: unknown; budget?: unknown } | null | undefined;
  return typeof claim?.id === 'string' ? { id: claim.id, budget: claim.budget } : undefined;
}

function partKey(part: Part, request: RequestFacts): string {
  const { identity, headers, model, route } = request;
  switch (part) {
    case 'identity':
      return labelled(part, identity?.subject) + labelled('issuer', identity?.issuer);
    case 'key':
      return labelled(part, apiKeyOf(request)?.id ?? identity?.subject);
    case 'tenant':
      return labelled(part, identity?.tenant);
    case 'model':
      return labelled(part, model);
    case 'route':
      return labelled(part, route);
    default:
      return labelled(part, headers?.[part.slice('header:'.length)]);
  }
}

/** One part of a key. Encoded, no value can pose as two; an empty one stands for none. */
export function labelled(part: string, value: string | undefined): string {
  const encoded = encodeURIComponent((value ?? '').toWellFormed());
  return `|${part}=${encoded.length > MAX_VALUE ? `#${hash('sha256', value!, 'hex')}` : encoded}`;
}

function groupsOf(request: RequestFacts): string[] {
  return request.identity?.groups ?? NO_GROUPS;
}
