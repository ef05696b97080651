/** Cookies: read from a request, written for an answer; a long value goes into several. */

/** Longest part of a value; with name and attributes it stays under the 4,096 bytes that browsers keep (RFC 6265, 6.1). */
const PART = 3_800;
const MAX_PARTS = 6;

export interface CookieJar {
  /** The value, put together again; undefined when it is not there or parts of it are missing. */
  read(header: string | undefined): string | undefined;
  /** `set-cookie` values; undefined when the value is too long. @param seconds how long it is kept; 0 deletes */
  write(value: string, seconds: number): string[] | undefined;
  /** `set-cookie` values that delete what the request brought. */
  clear(header: string | undefined): string[];
}

/**
 * @param name of the first cookie; further parts are `name.1` and so on
 * @param isSecure whether browsers reach us by https: then the name gets the `__Host-` prefix, which ties the cookie to
 * this very host
 */
export function cookieJar(name: string, isSecure: boolean): CookieJar {
  const first = isSecure ? `__Host-${name}` : name;
  const nameOf = (part: number) => (part === 0 ? first : `${first}.${part}`);
  const attributes = `; Path=/; HttpOnly; SameSite=Lax${isSecure ? '; Secure' : ''}`;
  const line = (part: number, value: string, seconds: number) =>
    `${nameOf(part)}=${value}${attributes}; Max-Age=${Math.floor(seconds)}`;
  return {
    read(header) {
      if (header === undefined || !header.includes(first)) return undefined;
      const cookies = cookiesIn(header);
      const [, count, head] = /^([1-9])~(.*)$/.exec(cookies.get(first) ?? '') ?? [];
      if (count === undefined || Number(count) > MAX_PARTS) return undefined;
      const parts = [head, ...Array.from({ length: Number(count) - 1 }, (_, i) => cookies.get(nameOf(i + 1)))];
      return parts.includes(undefined) ? undefined : parts.join('');
    },
    write(value, seconds) {
      const parts = value.match(new RegExp(`.{1,${PART}}`, 'g')) ?? [];
      if (parts.length > MAX_PARTS) return undefined;
      // The first part says how many there are: a rest of a longer value is not taken for a part.
      return parts.map((part, i) => line(i, i === 0 ? `${parts.length}~${part}` : part, seconds));
    },
    clear(header) {
      const cookies = cookiesIn(header ?? '');
      const there = Array.from({ length: MAX_PARTS }, (_, i) => i).filter((i) => cookies.has(nameOf(i)));
      return there.map((i) => line(i, '', 0));
    },
  };
}

/** The first of each name counts: browsers send the one with the longest path first. */
function cookiesIn(header: string): Map<string, string> {
  const cookies = new Map<string, string>();
  for (const pair of header.split(';')) {
    const equals = pair.indexOf('=');
    const name = pair.slice(0, equals).trim();
    if (equals > 0 && !cookies.has(name)) cookies.set(name, pair.slice(equals + 1).trim());
  }
  return cookies;
}
