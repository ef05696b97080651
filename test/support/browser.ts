/** As much of a browser as a login needs: cookies, redirects, forms, and what browsers say of where a request comes from. */

/** What came in the end, after all redirects. */
export interface Visit {
  status: number;
  /** Where it came from, by the name that the browser knows. */
  url: string;
  headers: Headers;
  text: string;
  /** Every address on the way, the first one first. */
  way: string[];
}

export interface VisitOptions {
  method?: string;
  headers?: Record<string, string>;
  body?: string | URLSearchParams;
  /** Whether to go where redirects lead; default true. */
  follow?: boolean;
}

export class Browser {
  /** By origin, as browsers keep them by host: a test's servers differ in their ports alone. */
  readonly cookies = new Map<string, Map<string, string>>();
  /** Whole `set-cookie` lines in the order in which they came. */
  readonly linesSet: string[] = [];
  readonly #names: Readonly<Record<string, string>>;

  /** @param names the real origin of each origin that is a mere name, such as `{ 'https://gateway.test': gateway.url }` */
  constructor(names: Record<string, string> = {}) {
    this.#names = names;
  }

  async visit(url: string, options: VisitOptions = {}): Promise<Visit> {
    const way = [url];
    let request = options;
    for (;;) {
      const at = way.at(-1)!;
      const response = await this.#send(at, request);
      const location = response.headers.get('location');
      if (location === null || response.status >= 400 || options.follow === false) {
        return { status: response.status, url: at, headers: response.headers, text: await response.text(), way };
      }
      if (way.length > 10) throw new Error(`The redirects have no end: ${way.join(' → ')}`);
      await response.arrayBuffer();
      way.push(new URL(location, at).href);
      request = { headers: { accept: request.headers?.accept ?? '*/*' } };
    }
  }

  /** Fills in the only form of a page and sends it. */
  submit({ text, url }: Visit, fields: Record<string, string>): Promise<Visit> {
    const action = /<form[^>]* action="([^"]+)"/.exec(text)?.[1]?.replaceAll('&amp;', '&');
    if (action === undefined) throw new Error(`There is no form at ${url}.`);
    const hidden = [...text.matchAll(/<input[^>]*type="hidden"[^>]*>/g)].map(([input]) => [
      /name="([^"]*)"/.exec(input)?.[1] ?? '',
      /value="([^"]*)"/.exec(input)?.[1] ?? '',
    ]);
    const headers = { 'sec-fetch-site': 'same-origin' };
    const body = new URLSearchParams({ ...Object.fromEntries(hidden), ...fields });
    return this.visit(new URL(action, url).href, { method: 'POST', body, headers });
  }

  /** The header that goes to an origin. */
  cookieFor(origin: string): string {
    return [...(this.cookies.get(origin) ?? [])].map(([name, value]) => `${name}=${value}`).join('; ');
  }

  async #send(url: string, { method = 'GET', headers = {}, body }: VisitOptions): Promise<Response> {
    const { origin, pathname, search } = new URL(url);
    const cookie = this.cookieFor(origin);
    const response = await fetch((this.#names[origin] ?? origin) + pathname + search, {
      method,
      headers: { ...(cookie !== '' && { cookie }), ...headers },
      body,
      redirect: 'manual',
    });
    for (const line of response.headers.getSetCookie()) this.#keep(origin, line);
    return response;
  }

  #keep(origin: string, line: string): void {
    this.linesSet.push(line);
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(line)!;
    const jar = this.cookies.get(origin) ?? new Map<string, string>();
    this.cookies.set(origin, jar);
    if (/max-age=0(?:;|$)/i.test(line)) jar.delete(name!);
    else jar.set(name!, value!);
  }
}
