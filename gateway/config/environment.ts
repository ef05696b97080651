/**
 * `${NAME}`, `${NAME:-default}` and a whole value `$NAME` in the config's strings. Values are put in after the YAML has
 * been read, so a secret cannot change the structure. `$${NAME}` stands for itself; any other `$` is left alone.
 */
const REFERENCE = /\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g;
const BARE = /^\$([A-Za-z_][A-Za-z0-9_]*)$/;

/** A variable that is named and not set. */
export interface MissingVariable {
  path: (string | number)[];
  name: string;
}

/** Answers the value with its references replaced, and lists what is missing. */
export function expandEnvironment(
  value: unknown,
  environment: Record<string, string | undefined>,
  missing: MissingVariable[],
  path: (string | number)[] = [],
): unknown {
  if (typeof value === 'string') return expand(value, environment, (name) => missing.push({ path, name }));
  if (Array.isArray(value)) return value.map((item, i) => expandEnvironment(item, environment, missing, [...path, i]));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, expandEnvironment(item, environment, missing, [...path, key])]),
  );
}

function expand(
  text: string,
  environment: Record<string, string | undefined>,
  isMissing: (name: string) => void,
): string {
  const look = (name: string, fallback: string | undefined): string => {
    const found = environment[name] || fallback;
    if (found === undefined) isMissing(name);
    return found ?? '';
  };
  const bare = BARE.exec(text)?.[1];
  if (bare !== undefined) return look(bare, undefined);
  return text.replace(REFERENCE, (whole, escaped: string | undefined, name: string, fallback: string | undefined) =>
    escaped === undefined ? look(name, fallback) : whole.slice(1),
  );
}
