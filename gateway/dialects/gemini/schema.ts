/**
 * Google's `Schema`, a subset of OpenAPI 3.0 with types in capitals, as JSON Schema.
 * Source: https://ai.google.dev/api/caching#Schema.
 */
import { isJsonObject } from '../../json.ts';
import type { Json } from '../dialect.ts';
import { camel } from './spelling.ts';

/** Reads a schema. What is JSON Schema already stays as it is. */
export function toJsonSchema(schema: Json): Json {
  const entries = Object.entries(schema).flatMap(([name, value]) => keyword(camel(name), value));
  const result = Object.fromEntries(entries);
  return result.nullable === true ? nullable(result) : without(result, 'nullable');
}

function keyword(name: string, value: unknown): [string, unknown][] {
  if (value === null || value === undefined) return [];
  switch (name) {
    case 'type':
      return value === 'TYPE_UNSPECIFIED' ? [] : [[name, typeof value === 'string' ? value.toLowerCase() : value]];
    // An order of properties is not said in JSON Schema, nor that a list of words is one.
    case 'propertyOrdering':
      return [];
    case 'format':
      return value === 'enum' ? [] : [[name, value]];
    case 'example':
      return [['examples', [value]]];
    case 'properties':
      return [[name, isJsonObject(value) ? mapped(value) : value]];
    case 'items':
    case 'additionalProperties':
      return [[name, nested(value)]];
    case 'anyOf':
      return [[name, Array.isArray(value) ? value.map(nested) : value]];
    default:
      return [[name, COUNTS.has(name) && typeof value === 'string' ? Number(value) : value]];
  }
}

/** ProtoJSON writes numbers of 64 bits as strings. */
const COUNTS = new Set(['minItems', 'maxItems', 'minLength', 'maxLength', 'minProperties', 'maxProperties']);

function mapped(properties: Json): Json {
  return Object.fromEntries(Object.entries(properties).map(([name, value]) => [name, nested(value)]));
}

function nested(value: unknown): unknown {
  return isJsonObject(value) ? toJsonSchema(value) : value;
}

function nullable(schema: Json): Json {
  const rest = without(schema, 'nullable');
  const words = Array.isArray(rest.enum) ? { enum: [...rest.enum, null] } : {};
  if (typeof rest.type === 'string') return { ...rest, type: [rest.type, 'null'], ...words };
  return Array.isArray(rest.anyOf) ? { ...rest, anyOf: [...rest.anyOf, { type: 'null' }] } : rest;
}

function without({ ...schema }: Json, name: string): Json {
  delete schema[name];
  return schema;
}
