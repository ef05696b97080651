/** Who asks, in OpenFGA's words: a user, and what the groups of its token say of it. */
import { hash } from 'node:crypto';
import type { TupleKey } from '@openfga/sdk';
import type { Identity } from '../../proto/contract.ts';
import type { Config, GroupsConfig, Reference } from './config.ts';
import { objectOf, userOf } from './ids.ts';

const CLAIM = 'claims.';
/** More groups than this in one identity are not looked at. */
const MAX_LOOKED_AT = 10_000;

/** Longest list of groups that stands in a key as it is, in characters. */
const MAX_TOLD = 256;

/** Who asks. */
export interface Asker {
  /** Such as `user:bob`. */
  user: string;
  /** Tuples that hold for this question alone, such as `user:bob member team:acme-ml`, each once. */
  tuples: TupleKey[];
  /** Groups that the config lets pass, and that were more than may be told. */
  dropped: number;
  /** What makes a question of this asker another one than somebody else's. */
  key: string;
}

/** Who the identity is; undefined for somebody who has no name in OpenFGA and so can have been granted nothing. */
export function askerOf(config: Config, identity: Identity | undefined): Asker | undefined {
  if (identity === undefined) {
    return config.anonymous === undefined ? undefined : asker(config.anonymous, [], 0);
  }
  if (config.issuers !== undefined && !config.issuers.includes(identity.issuer ?? '')) return undefined;
  const name = textOf(identity, config.user.field);
  const user = name === undefined ? undefined : userOf(config.user.type, around(config.user, name));
  if (user === undefined) return undefined;
  const { groups } = config;
  if (groups === undefined) return asker(user, [], 0);
  const named = listOf(identity, groups.from);
  const objects = [...objectsOf(groups, named.slice(0, MAX_LOOKED_AT))];
  const tuples = objects.slice(0, groups.max).map((object) => ({ user, relation: groups.tuple.relation, object }));
  return asker(user, tuples, objects.length - tuples.length + Math.max(0, named.length - MAX_LOOKED_AT));
}

/** No part of the key can hold a line break: ids are escaped. */
function asker(user: string, tuples: TupleKey[], dropped: number): Asker {
  if (tuples.length === 0) return { user, tuples, dropped, key: user };
  const told = [...tuples.map(({ object }) => object).sort(), dropped > 0 ? 'more' : ''].join('\n');
  // A hundred groups are up to 25 KB, and many such keys may be remembered. An object has a colon, a digest has none.
  return {
    user,
    tuples,
    dropped,
    key: `${user}\n${told.length > MAX_TOLD ? hash('sha256', told, 'base64url') : told}`,
  };
}

/** The objects that stand for the groups: those that the config lets pass, each once (OpenFGA refuses a double). */
function objectsOf(groups: GroupsConfig, named: unknown[]): Set<string> {
  const objects = new Set<string>();
  for (const group of named) {
    const name = nameOf(groups, group);
    const object =
      name === undefined ? undefined : objectOf(groups.tuple.object.type, around(groups.tuple.object, name));
    if (object !== undefined) objects.add(object);
  }
  return objects;
}

/** What a group is called in OpenFGA; undefined when it is none of its business. */
function nameOf({ map, prefix, strip }: GroupsConfig, group: unknown): string | undefined {
  if (typeof group !== 'string' || group === '') return undefined;
  if (map !== undefined && Object.hasOwn(map, group)) return map[group];
  if (prefix === undefined) return map === undefined ? group : undefined;
  if (!group.startsWith(prefix)) return undefined;
  return strip ? group.slice(prefix.length) || undefined : group;
}

function around({ before, after }: Reference, name: string): string {
  return before + name + after;
}

function textOf(identity: Identity, field: string): string | undefined {
  const value = fieldOf(identity, field === 'sub' ? 'subject' : field);
  if (typeof value === 'number' && Number.isFinite(value)) return String(value);
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function listOf(identity: Identity, field: string): unknown[] {
  const value = fieldOf(identity, field);
  return Array.isArray(value) ? value : [];
}

function fieldOf(identity: Identity, field: string): unknown {
  const [source, name] = field.startsWith(CLAIM)
    ? [identity.claims ?? {}, field.slice(CLAIM.length)]
    : [identity, field];
  return Object.hasOwn(source, name) ? (source as Record<string, unknown>)[name] : undefined;
}
