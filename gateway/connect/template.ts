/** A text with places for facts of the request: `{route}`, `{identity.subject:-stranger}`. */
import { createHash } from 'node:crypto';
import type { RequestFacts } from '../../proto/contract.ts';
import { IDENTITY_FIELD, identityField } from '../identity.ts';

/** The text for a request; undefined when it lacks one of the facts. */
export type Template = (facts: RequestFacts) => string | undefined;

type Place = (facts: RequestFacts) => string | undefined;

/** `{name}` or `{name:-what stands there without it}`. */
const PLACE = /\{([^{}]*?)(?::-([^{}]*))?\}/;
/** Longest value that goes out as it is, in UTF-16 units. */
const MAX_VALUE = 256;

const SIMPLE: Record<string, Place> = {
  // A service's own tree names routes without their slash.
  route: ({ route }) => (route.length > 1 ? route.slice(1) : route),
  path: ({ path }) => path,
  method: ({ method }) => method,
  model: ({ model }) => model,
  provider: ({ provider }) => provider,
};

/**
 * A long value is replaced by its SHA-256: clients choose models and headers, and whoever sends a longer one must not
 * get another answer.
 *
 * @param shown names of the headers that will be there, in lower case
 * @returns a sentence on what is wrong, when something is
 */
export function compileTemplate(text: string, shown: readonly string[]): Template | string {
  const parts: (string | Place)[] = [];
  let rest = text;
  for (let found = PLACE.exec(rest); found !== null; found = PLACE.exec(rest)) {
    const [whole, name = '', fallback] = found;
    const place = placeOf(name.trim(), shown);
    if (typeof place === 'string') return place;
    parts.push(rest.slice(0, found.index), (facts) => place(facts) || fallback);
    rest = rest.slice(found.index + whole.length);
  }
  parts.push(rest);
  if (parts.some((part) => typeof part === 'string' && /[{}]/.test(part))) return 'A brace here has no partner.';
  if (text === '') return 'It is empty.';
  return parts.length === 1 ? () => text : (facts) => bounded(filled(parts, facts));
}

function filled(parts: (string | Place)[], facts: RequestFacts): string | undefined {
  let text = '';
  for (const part of parts) {
    const value = typeof part === 'string' ? part : part(facts);
    if (value === undefined) return undefined;
    text += value;
  }
  return text;
}

function bounded(text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  const sound = text.toWellFormed();
  return sound.length <= MAX_VALUE ? sound : `sha256:${createHash('sha256').update(sound).digest('hex')}`;
}

function placeOf(name: string, shown: readonly string[]): Place | string {
  if (Object.hasOwn(SIMPLE, name)) return SIMPLE[name]!;
  const [, kind, rest = ''] = /^(identity|context|header)\.(.+)$/.exec(name) ?? [];
  if (kind === 'identity' && IDENTITY_FIELD.test(rest)) return ({ identity }) => identityField(identity, rest);
  if (kind === 'context') return ({ context }) => own(context, rest);
  if (kind === 'header') return headerPlace(rest.toLowerCase(), shown);
  const known = [...Object.keys(SIMPLE), 'identity.FIELD', 'context.NAME', 'header.NAME'];
  return `{${name}} is not known; there is {${known.join('}, {')}}.`;
}

function headerPlace(name: string, shown: readonly string[]): Place | string {
  if (!shown.includes(name)) return `The header ${name} is not shown to this plugin: name it in its \`headers\`.`;
  return ({ headers }) => own(headers, name);
}

/** Names come from outside: `constructor` must not find what every object has. */
function own(values: Record<string, string> | undefined, name: string): string | undefined {
  return values !== undefined && Object.hasOwn(values, name) ? values[name] : undefined;
}
