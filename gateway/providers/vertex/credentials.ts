/** Google Cloud's credentials: an access token for each call, by Google's own library, which keeps and renews it. */
import { readFile } from 'node:fs/promises';
import { type AuthClient, GoogleAuth, JWT } from 'google-auth-library';
import { GatewayError } from '../../errors.ts';
import { textOf } from '../../hub/fields.ts';
import { isJsonObject, parseJson } from '../../json.ts';

/** What vouches for the gateway. */
export interface Credentials {
  /** A token that somebody else renews. */
  token?: string;
  /** A service account's or a workload's file: its path, or its JSON. Without any: Application Default Credentials. */
  credentials?: string;
}

/** Answers a token, at once where it is a fixed one. */
export type TokenSource = () => string | Promise<string>;

/** `name` is the provider's, for what is said when there is no token. */
export function tokenSource(name: string, { token, credentials }: Credentials): TokenSource {
  if (token !== undefined) return () => token;
  let opened: Promise<AuthClient> | undefined;
  return async () => {
    try {
      opened ??= open(credentials);
      const found = await (await opened).getAccessToken();
      if (found.token) return found.token;
    } catch (cause) {
      // A file that comes later is read then.
      opened = undefined;
      throw noToken(name, cause);
    }
    throw noToken(name, undefined);
  };
}

const SCOPES = ['https://www.googleapis.com/auth/cloud-platform'];

async function open(credentials: string | undefined): Promise<AuthClient> {
  if (credentials === undefined) return new GoogleAuth<AuthClient>({ scopes: SCOPES }).getClient();
  const isJson = credentials.trimStart().startsWith('{');
  const json = parseJson(isJson ? credentials : await readFile(credentials));
  if (!isJsonObject(json)) throw new Error('the credentials are not JSON');
  if (json.type !== 'service_account')
    return new GoogleAuth<AuthClient>({ scopes: SCOPES, credentials: json }).getClient();
  const [email, key, keyId] = [textOf(json.client_email), textOf(json.private_key), textOf(json.private_key_id)];
  return new JWT({ email, key, keyId, scopes: SCOPES });
}

function noToken(name: string, cause: unknown): GatewayError {
  return new GatewayError(
    'upstream_refused_key',
    `The gateway has no credentials for the provider “${name}”. Ask the gateway’s operator to check them.`,
    { cause },
  );
}
