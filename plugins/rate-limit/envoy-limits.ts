/** Which limit a descriptor of Envoy's protocol falls under, as envoyproxy/ratelimit looks for it. */
import { createHash } from 'node:crypto';
import { type DescriptorConfig, type EnvoyConfig, UNITS } from './envoy-config.ts';

/** Longest key that stands in Redis as it is, in characters. */
const MAX_KEY = 256;

export interface Entry {
  key?: string;
  value?: string;
}

/** A limit of the tree. */
export interface EnvoyLimit {
  /** By the numbers of `RateLimitResponse.RateLimit.Unit`. */
  unit: number;
  max: number;
  unlimited: boolean;
  /** Counted, and never over. */
  isShadow: boolean;
  name: string;
  /** Names of limits that do not count for a request that falls under this one. */
  replaces: readonly string[];
}

/** A limit that a descriptor falls under, and where it is counted. */
export interface Found {
  limit: EnvoyLimit;
  key: string;
}

interface Node {
  limit: EnvoyLimit | undefined;
  exact: Map<string, Node>;
  wild: { key: string; value: string; isShared: boolean; node: Node }[];
  bare: Map<string, Node>;
}

/** All domains, made ready for the hot path. */
export class EnvoyLimits {
  readonly #domains: Map<string, Node>;

  constructor({ domains }: Pick<EnvoyConfig, 'domains'>) {
    this.#domains = new Map(domains.map(({ domain, descriptors }) => [domain, nodeOf(undefined, descriptors)]));
  }

  /**
   * Level by level: the entry's key and value, else the first `*` that fits, else the key alone. Only a limit at the depth
   * of the last entry counts; a descriptor that goes deeper than the tree, or less deep, has none.
   */
  find(domain: string, entries: readonly Entry[]): Found | undefined {
    const counted: Entry[] = [];
    let node = this.#domains.get(domain);
    for (const entry of entries) {
      const next = node && below(node, entry);
      if (next === undefined) return undefined;
      node = next.node;
      counted.push(next.shared === undefined ? entry : { key: entry.key, value: next.shared });
    }
    return node?.limit && { limit: node.limit, key: keyOf(domain, counted, node.limit.unit) };
  }

  /** A limit that the request itself brings along, in any domain that there is. It is counted apart from the file's. */
  override(domain: string, entries: readonly Entry[], { max, unit }: { max: number; unit: number }): Found | undefined {
    if (!this.#domains.has(domain)) return undefined;
    const limit = { unit, max, unlimited: false, isShadow: false, name: '', replaces: [] };
    return { limit, key: keyOf(domain, [...entries, {}], unit) };
  }
}

function nodeOf(limit: EnvoyLimit | undefined, descriptors: DescriptorConfig[]): Node {
  const node: Node = { limit, exact: new Map(), wild: [], bare: new Map() };
  for (const one of descriptors) {
    const { key, value } = one;
    const child = nodeOf(limitOf(one), one.descriptors);
    if (value === '') node.bare.set(key, child);
    else if (!value.includes('*')) node.exact.set(exactKey(key, value), child);
    else node.wild.push({ key, value, isShared: one.share_threshold, node: child });
  }
  return node;
}

function limitOf({ rate_limit, shadow_mode }: DescriptorConfig): EnvoyLimit | undefined {
  if (rate_limit === undefined) return undefined;
  const { unit, requests_per_unit: max = 0, unlimited, name, replaces } = rate_limit;
  return {
    unit: UNITS.findIndex(([name]) => name === (unit ?? 'unknown')),
    max,
    unlimited,
    isShadow: shadow_mode,
    name,
    replaces: replaces.map((one) => one.name),
  };
}

function below(node: Node, { key = '', value = '' }: Entry): { node: Node; shared?: string } | undefined {
  const exact = node.exact.get(exactKey(key, value));
  if (exact !== undefined) return { node: exact };
  const wild = node.wild.find((one) => one.key === key && fits(one.value, value));
  if (wild !== undefined) return { node: wild.node, shared: wild.isShared ? wild.value : undefined };
  const bare = node.bare.get(key);
  return bare && { node: bare };
}

function exactKey(key: string, value: string): string {
  return `${key.length}:${key}${value}`;
}

/** Whether a text fits a pattern in which `*` stands for any text. Each part is looked for once, from left to right. */
function fits(pattern: string, text: string): boolean {
  const [first = '', ...rest] = pattern.split('*');
  const last = rest.pop() ?? '';
  if (!text.startsWith(first) || !text.endsWith(last)) return false;
  let at = first.length;
  for (const part of rest) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return at <= text.length - last.length;
}

/** Where a limit is counted. What is encoded cannot pose as two entries, and a long one is told by its SHA-256. */
function keyOf(domain: string, entries: readonly Entry[], unit: number): string {
  const parts = entries.map(({ key = '', value = '' }) => `${encoded(key)}=${encoded(value)}`);
  const key = [encoded(domain), ...parts, UNITS[unit]?.[0]].join('|');
  return key.length <= MAX_KEY ? key : createHash('sha256').update(key).digest('hex');
}

function encoded(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}
