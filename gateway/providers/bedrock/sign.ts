/**
 * AWS Signature Version 4, and the credentials for it.
 * Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
 */
import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
import { defaultProvider } from '@aws-sdk/credential-provider-node';
import { SignatureV4 } from '@smithy/signature-v4';
import { GatewayError } from '../../errors.ts';
import type { UnsignedCall, UpstreamCall } from '../provider.ts';

/** What requests are signed with. */
export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  /** Of temporary credentials. */
  sessionToken?: string;
}

/** Where credentials come from. */
export interface CredentialSource {
  /** @throws GatewayError `upstream_refused_key` when there are none */
  get(): Promise<Credentials>;
  /** They were refused as too old: the next call looks again. */
  forget(): void;
}

export interface Place {
  region: string;
  /** Host, and port where it is not the scheme's own, as it will stand in the `host` header. */
  host: string;
}

/** Signs with the credentials of the moment; `now` is for tests. */
export function signer(
  { region, host }: Place,
  source: CredentialSource,
  now = () => new Date(),
): (call: UnsignedCall) => Promise<UpstreamCall> {
  const signature = new SignatureV4({ service: 'bedrock', region, credentials: () => source.get(), sha256: Sha256 });
  return async ({ method, path, headers, body }) => {
    const kept = withoutSignature(headers);
    const [pathname, query] = splitQuery(path);
    const request = {
      method,
      protocol: 'https:',
      hostname: host,
      path: pathname,
      query,
      headers: { host, ...signedHeaders(kept) },
      body,
    };
    const { headers: signed } = await signature.sign(request, { signingDate: now() });
    for (const name of OWN) if (signed[name] !== undefined) kept.push(name, signed[name]);
    return { method, path, headers: kept };
  };
}

/** What the signature itself brings. */
const OWN = ['x-amz-date', 'x-amz-content-sha256', 'x-amz-security-token', 'authorization'];

/** Headers without the host and whatever signed them before. */
export function withoutSignature(headers: string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!.toLowerCase();
    if (name !== 'host' && !OWN.includes(name)) kept.push(headers[i]!, headers[i + 1]!);
  }
  return kept;
}

/** What AWS wants signed; proxies on the way may change the rest. */
function signedHeaders(headers: string[]): Record<string, string> {
  const signed: Record<string, string> = {};
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!.toLowerCase();
    if (name === 'content-type' || name.startsWith('x-amz-')) signed[name] = headers[i + 1]!;
  }
  return signed;
}

function splitQuery(path: string): [string, Record<string, string[]>] {
  const at = path.indexOf('?');
  if (at === -1) return [path, {}];
  const query: Record<string, string[]> = Object.create(null);
  for (const pair of path.slice(at + 1).split('&')) {
    if (pair === '') continue;
    const [name = '', value = ''] = pair.split(/=(.*)/s);
    query[decode(name)] = [...(query[decode(name)] ?? []), decode(value)];
  }
  return [path.slice(0, at), query];
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new GatewayError('invalid_request', 'The query has a percent sign that begins no character.');
  }
}

/** Node's own hash: a tenth of the time of one in JavaScript. */
class Sha256 {
  private readonly secret: string | NodeJS.ArrayBufferView | undefined;
  private hash: Hash | Hmac;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.secret = secret instanceof ArrayBuffer ? new Uint8Array(secret) : (secret as string | NodeJS.ArrayBufferView);
    this.hash = this.begin();
  }

  update(data: Uint8Array): void {
    this.hash.update(data);
  }

  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.hash.digest());
  }

  reset(): void {
    this.hash = this.begin();
  }

  private begin(): Hash | Hmac {
    return this.secret === undefined ? createHash('sha256') : createHmac('sha256', this.secret);
  }
}

// --- Credentials --------------------------------------------------------------------------------------------------

/** Credentials that stand in the config. */
export function fixedCredentials(credentials: Credentials): CredentialSource {
  return { get: () => Promise.resolve(credentials), forget: () => undefined };
}

/** How long it is remembered that there are none, in milliseconds: asking a machine that is not EC2 takes seconds. */
const NONE_FOR = 5_000;

/**
 * Credentials as all AWS tools find them: environment, profile, SSO's cache, web identity, container, EC2. They are
 * kept, and looked for again 5 minutes before they end; what is under way is asked once for all who wait.
 */
export function foundCredentials(
  name: string,
  profile: string | undefined,
  find: Find = defaultProvider({ profile, ignoreCache: true }),
): CredentialSource {
  let isStale = false;
  let foundAt = 0;
  let failed: { error: GatewayError; until: number } | undefined;
  return {
    async get() {
      if (failed !== undefined && Date.now() < failed.until) throw failed.error;
      try {
        const credentials = await find({ forceRefresh: isStale });
        if (isStale || failed !== undefined || foundAt === 0) foundAt = Date.now();
        isStale = false;
        failed = undefined;
        return credentials;
      } catch (cause) {
        failed = { error: noCredentials(name, cause), until: Date.now() + NONE_FOR };
        throw failed.error;
      }
    },
    forget() {
      // Younger ones than that would be no others.
      isStale ||= Date.now() >= foundAt + NONE_FOR;
    },
  };
}

/** The chain of AWS's own libraries. */
export type Find = (options: { forceRefresh: boolean }) => Promise<Credentials>;

function noCredentials(name: string, cause: unknown): GatewayError {
  const isExpired = cause instanceof Error && /expired|sso login|refresh/i.test(cause.message);
  const why = isExpired ? 'The gateway’s AWS credentials have expired' : 'The gateway has no AWS credentials';
  return new GatewayError(
    'upstream_refused_key',
    `${why}: the provider “${name}” was not asked. Ask the gateway’s operator to see to it.`,
    { cause },
  );
}
