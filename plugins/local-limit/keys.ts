/** Which limits a request falls under, and whose bucket it takes from. */
import type { RequestFacts } from '../../proto/contract.ts';
import type { Limit, Part } from './config.ts';

const NO_GROUPS: string[] = [];

/** Says whether the limit counts this request at all. */
export function applies({ models, routes, groups }: Limit, request: RequestFacts): boolean {
  if (models !== undefined && !(request.model !== undefined && models.has(request.model))) return false;
  if (routes !== undefined && !routes.has(request.route)) return false;
  return groups === undefined || groupsOf(request).some((group) => groups.has(group));
}

/**
 * The keys of the buckets that a request takes from: one, or one for each of the groups that a person is in.
 * Whoever has no identity, tenant or group shares one bucket with all others that have none.
 *
 * @param index of the limit in the config
 */
export function keysOf(limit: Limit, index: number, request: RequestFacts): string[] {
  let key = `${index}`;
  let grouped = false;
  for (const part of limit.parts) {
    if (part === 'group') grouped = true;
    else key += partKey(part, request);
  }
  if (!grouped) return [key];
  const groups = groupsOf(request).filter((group) => limit.groups?.has(group) ?? true);
  if (groups.length === 0) return [key + encoded(undefined)];
  return [...new Set(groups)].map((group) => key + encoded(group));
}

function partKey(part: Part, { identity, model, route }: RequestFacts): string {
  switch (part) {
    case 'identity':
      return encoded(identity?.issuer) + encoded(identity?.subject);
    case 'tenant':
      return encoded(identity?.tenant);
    case 'model':
      return encoded(model);
    default:
      return encoded(route);
  }
}

/** With its length in front, no value can pose as two. */
function encoded(value: string | undefined): string {
  return value === undefined ? '|-' : `|${value.length}:${value}`;
}

function groupsOf(request: RequestFacts): string[] {
  return request.identity?.groups ?? NO_GROUPS;
}
