/** Google Cloud's credentials: an access token for each call, by Google's own library, which keeps and renews it. */
import { type AuthClient, GoogleAuth, type GoogleAuthOptions } from 'google-auth-library';
import { GatewayError } from '../../errors.ts';
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
  const auth = new GoogleAuth<AuthClient>({ scopes: [SCOPE], ...filed(credentials) });
  return async () => {
    const found = await auth.getAccessToken().catch((cause: unknown) => {
      throw noToken(name, cause);
    });
    if (!found) throw noToken(name, undefined);
    return found;
  };
}

const SCOPE = 'https://www.googleapis.com/auth/cloud-platform';

function filed(credentials: string | undefined): GoogleAuthOptions<AuthClient> {
  if (credentials === undefined) return {};
  const json = parseJson(credentials);
  return isJsonObject(json) ? { credentials: json } : { keyFilename: credentials };
}

function noToken(name: string, cause: unknown): GatewayError {
  return new GatewayError(
    'upstream_refused_key',
    `The gateway has no credentials for the provider “${name}”. Ask the gateway’s operator to check them.`,
    { cause },
  );
}
