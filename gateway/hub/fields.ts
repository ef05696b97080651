/** Reading JSON from outside, strictly (a client's request) and leniently (a provider's answer). */
import type { Json } from '../dialects/dialect.ts';
import { GatewayError } from '../errors.ts';
import { isJsonObject } from '../json.ts';

/** A 400 that names the field. */
export function invalid(param: string, what: string): GatewayError {
  return new GatewayError('invalid_request', `The field \`${param}\` ${what}.`, { param });
}

/**
 * The fields of an object that a client sent. Each is read by its type; `null` counts as absent. What nobody read is
 * told by {@link unread}, so that no field is lost unseen.
 */
export class Fields {
  readonly path: string;
  private readonly source: Json;
  private readonly seen = new Set<string>();

  /** `path` is where the object stands in the body, such as `messages[0]`; empty for the body itself. */
  constructor(source: unknown, path = '') {
    if (!isJsonObject(source)) throw invalid(path || 'body', 'must be an object');
    this.source = source;
    this.path = path;
  }

  /** The client's path of a field. */
  at(name: string): string {
    return this.path === '' ? name : `${this.path}.${name}`;
  }

  /** The value as it is; undefined for `null`. */
  any(name: string): unknown {
    this.seen.add(name);
    return (Object.hasOwn(this.source, name) ? this.source[name] : undefined) ?? undefined;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.source, name) && this.source[name] !== null && this.source[name] !== undefined;
  }

  string(name: string): string | undefined {
    const value = this.any(name);
    if (value === undefined || typeof value === 'string') return value;
    throw invalid(this.at(name), 'must be a string');
  }

  /** @throws GatewayError 400 when it is absent */
  needString(name: string): string {
    const value = this.string(name);
    if (value === undefined) throw invalid(this.at(name), 'is missing');
    return value;
  }

  number(name: string): number | undefined {
    const value = this.any(name);
    if (value === undefined) return undefined;
    if (typeof value === 'number' && Number.isFinite(value)) return value;
    throw invalid(this.at(name), 'must be a number');
  }

  boolean(name: string): boolean | undefined {
    const value = this.any(name);
    if (value === undefined || typeof value === 'boolean') return value;
    throw invalid(this.at(name), 'must be true or false');
  }

  /** One of some words. */
  word<T extends string>(name: string, words: readonly T[]): T | undefined {
    const value = this.any(name);
    if (value === undefined) return undefined;
    if (typeof value === 'string' && words.includes(value as T)) return value as T;
    throw invalid(this.at(name), `must be one of ${words.map((word) => `\`${word}\``).join(', ')}`);
  }

  /** A JSON object as it is. */
  json(name: string): Json | undefined {
    const value = this.any(name);
    if (value === undefined || isJsonObject(value)) return value;
    throw invalid(this.at(name), 'must be an object');
  }

  /** An object whose own fields are read in turn. */
  object(name: string): Fields | undefined {
    const value = this.any(name);
    return value === undefined ? undefined : new Fields(value, this.at(name));
  }

  list(name: string): unknown[] | undefined {
    const value = this.any(name);
    if (value === undefined || Array.isArray(value)) return value;
    throw invalid(this.at(name), 'must be a list');
  }

  /** A list of objects whose own fields are read in turn. */
  objects(name: string): Fields[] | undefined {
    return this.list(name)?.map((item, i) => new Fields(item, `${this.at(name)}[${i}]`));
  }

  strings(name: string): string[] | undefined {
    const list = this.list(name);
    if (list?.every((item) => typeof item === 'string')) return list;
    if (list === undefined) return undefined;
    throw invalid(this.at(name), 'must be a list of strings');
  }

  /** Marks fields as read that mean nothing elsewhere (a `type`, a server's own id). */
  skip(...names: string[]): void {
    for (const name of names) this.seen.add(name);
  }

  /** Paths of what is there and was not read. */
  unread(): string[] {
    return Object.keys(this.source)
      .filter((name) => !this.seen.has(name) && this.has(name))
      .map((name) => this.at(name));
  }
}

// --- A provider's answer: what is not as documented is as if absent ---------------------------------------------

export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** A count of tokens and the like: finite and not negative. */
export function countOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : undefined;
}

export function objectOf(value: unknown): Json | undefined {
  return isJsonObject(value) ? value : undefined;
}

/** The objects of a list; everything else in it is passed over. */
export function objectsOf(value: unknown): Json[] {
  return Array.isArray(value) ? value.filter(isJsonObject) : [];
}

/** What a provider sent is not what its documentation says. */
export function badAnswer(): GatewayError {
  return new GatewayError('upstream_bad_answer', 'The provider’s answer is not what was asked for. Try again.');
}
