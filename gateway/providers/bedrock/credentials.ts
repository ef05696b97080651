/**
 * Where the credentials for AWS come from.
 * Source: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
 */
import { defaultProvider } from '@aws-sdk/credential-provider-node';
import { GatewayError } from '../../errors.ts';

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
