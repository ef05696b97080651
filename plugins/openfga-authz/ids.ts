/**
 * Names as OpenFGA's ids. `:` ends a type, `#` begins a relation, `*` is everybody, and white space is refused: a name
 * that holds any of them would mean something else, or nothing at all.
 */

/** Stands for itself: nothing in OpenFGA means anything else by these. `@` and `/` do, so e-mail addresses stay legible. */
const SPECIAL = /[^A-Za-z0-9\-._~/|@+=,!$&'();]/gu;

/** OpenFGA's own bounds, in characters, with the type and its colon. */
const MAX_OBJECT = 256;
const MAX_USER = 512;

/**
 * The id of a name: every other character is written as `%` and two hexadecimal digits for each of its UTF-8 bytes, so
 * that `llama3:8b` is `llama3%3A8b` and no two names have one id. Answers `undefined` for what has no id: nothing at
 * all, and half a surrogate pair.
 */
export function idOf(name: string): string | undefined {
  if (name === '' || !name.isWellFormed()) return undefined;
  return name.replace(SPECIAL, percent);
}

/** The object `type:id`; undefined when the name has no id, or one that is longer than OpenFGA takes. */
export function objectOf(type: string, name: string): string | undefined {
  return bounded(type, name, MAX_OBJECT);
}

/** The user `type:id`; undefined as for {@link objectOf}. */
export function userOf(type: string, name: string): string | undefined {
  return bounded(type, name, MAX_USER);
}

function bounded(type: string, name: string, max: number): string | undefined {
  // The id is never shorter than the name, and a name of megabytes need not be escaped to be told too long.
  if (name.length > max) return undefined;
  const id = idOf(name);
  return id === undefined || type.length + 1 + id.length > max ? undefined : `${type}:${id}`;
}

function percent(character: string): string {
  const hex = Buffer.from(character, 'utf8').toString('hex').toUpperCase();
  return hex.replace(/../g, '%$&');
}
