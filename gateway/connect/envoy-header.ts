/** A header as Envoy's services write it, checked before it goes to a client. */

/** `envoy.config.core.v3.HeaderValue` as proto-loader reads it. At most one of `value` and `rawValue` is set. */
export interface HeaderValue {
  key?: string;
  value?: string;
  rawValue?: Buffer;
}

const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
/** What frames an answer, or speaks of its connection, is the gateway's to say. */
const FRAMING = new Set([
  'connection',
  'content-encoding',
  'content-length',
  'host',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** Its name in lower case and its value; undefined when it must not be sent. */
export function headerIn({ key = '', value = '', rawValue }: HeaderValue = {}): [string, string] | undefined {
  const name = key.toLowerCase();
  const text = rawValue?.length ? rawValue.toString('latin1') : value;
  if (rawValue?.length && value !== '') return undefined;
  return HEADER_NAME.test(name) && !FRAMING.has(name) && HEADER_VALUE.test(text) ? [name, text] : undefined;
}
