/**
 * Google's APIs take every field by two names, `generationConfig` and `generation_config` (ProtoJSON). What stands under
 * either is found under the first.
 */
import { invalid } from '../../hub/fields.ts';
import { isJsonObject } from '../../json.ts';
import type { Json } from '../dialect.ts';

/** The first name of a field. */
export function camel(name: string): string {
  return name.includes('_')
    ? name.replace(/(?<=[a-zA-Z0-9])_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
    : name;
}

/** The name under which a field stands in an object; the first name where it is absent. */
export function nameIn(source: Json, field: string): string {
  if (Object.hasOwn(source, field)) return field;
  const second = field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.hasOwn(source, second) ? second : field;
}

/** A field's value by either name; undefined for `null`. */
export function fieldOf(source: Json, field: string): unknown {
  const name = nameIn(source, field);
  return (Object.hasOwn(source, name) ? source[name] : undefined) ?? undefined;
}

/**
 * The object with the first names alone; what is inside its fields stays as it is, and what is no object too.
 *
 * @throws GatewayError 400 when a field is there by both names: which of them counts is anybody's guess
 */
export function camelKeys(source: unknown, path: string): unknown {
  if (!isJsonObject(source)) return source;
  const entries = Object.entries(source).map(([name, value]) => [camel(name), value] as const);
  const result = Object.fromEntries(entries);
  if (Object.keys(result).length < entries.length)
    throw invalid(path || 'body', 'has a field twice, by both of its names');
  return result;
}
