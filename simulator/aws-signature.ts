/**
 * Checks the AWS signature of a request, version 4, as a service other than S3 does: the path is percent-encoded once
 * more than it was sent. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { type Call, header } from './format.ts';
import { Refusal } from './model.ts';

const ALGORITHM = 'AWS4-HMAC-SHA256';
const AUTHORIZATION =
  /^AWS4-HMAC-SHA256 Credential=(?<id>[^/,\s]+)\/(?<date>\d{8})\/(?<region>[\w-]+)\/(?<service>[\w-]+)\/aws4_request, ?SignedHeaders=(?<names>[a-z0-9;-]+), ?Signature=(?<signature>[0-9a-f]{64})$/;

interface Signed {
  id: string;
  date: string;
  region: string;
  service: string;
  /** The names of the signed headers, joined by semicolons. */
  names: string;
  signature: string;
}

/**
 * Without secrets only the form is checked.
 *
 * @throws Refusal 403 when the signature is absent, malformed, for another service, or wrong
 */
export function checkSignature(call: Call, service: string, secrets: ReadonlyMap<string, string>): void {
  const { authorization } = call.headers;
  if (!authorization) throw new Refusal(403, 'The request has no signature.', 'MissingAuthenticationTokenException');
  const signed = AUTHORIZATION.exec(authorization)?.groups as unknown as Signed | undefined;
  if (!signed) throw incomplete('The Authorization header is not of the form of AWS Signature Version 4.');
  if (signed.service !== service)
    throw wrong(`The credential is for the service '${signed.service}', not '${service}'.`);
  const missing = ['host', 'x-amz-date'].find((name) => !signed.names.split(';').includes(name));
  if (missing) throw incomplete(`The header '${missing}' is not signed.`);
  if (!header(call.headers, 'x-amz-date')?.startsWith(signed.date)) throw wrong('x-amz-date is not of the credential.');
  if (secrets.size > 0) verify(call, signed, secrets.get(signed.id));
}

function verify(call: Call, signed: Signed, secret: string | undefined): void {
  if (secret === undefined) throw new Refusal(403, 'The access key id is unknown.', 'UnrecognizedClientException');
  const scope = `${signed.date}/${signed.region}/${signed.service}/aws4_request`;
  const text = [ALGORITHM, header(call.headers, 'x-amz-date'), scope, sha256(canonicalRequest(call, signed))].join(
    '\n',
  );
  const key = scope.split('/').reduce<string | Buffer>((last, part) => hmac(last, part), `AWS4${secret}`);
  const expected = hmac(key, text);
  if (timingSafeEqual(expected, Buffer.from(signed.signature, 'hex'))) return;
  throw wrong('The signature is not the one that the secret and the request make.');
}

function canonicalRequest(call: Call, { names }: Signed): string {
  const headers = names.split(';').map((name) => `${name}:${canonicalHeader(header(call.headers, name))}\n`);
  const path = call.path.split('/').map(encode).join('/');
  return [call.method, path, canonicalQuery(call.query), headers.join(''), names, sha256(call.bytes)].join('\n');
}

function canonicalHeader(value = ''): string {
  return value.trim().replace(/ +/g, ' ');
}

function canonicalQuery(query: URLSearchParams): string {
  const pairs = [...query].map(([name, value]) => `${encode(name)}=${encode(value)}`);
  return pairs.sort().join('&');
}

/** RFC 3986: what is not unreserved is encoded, the percent signs of the first encoding too. */
function encode(text: string): string {
  const escaped = (character: string) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(text).replace(/[!'()*]/g, escaped);
}

function sha256(text: string | Buffer): string {
  return createHash('sha256').update(text).digest('hex');
}

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

function incomplete(message: string): Refusal {
  return new Refusal(403, message, 'IncompleteSignatureException');
}

function wrong(message: string): Refusal {
  return new Refusal(403, message, 'InvalidSignatureException');
}
