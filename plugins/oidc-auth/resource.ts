/** What the gateway says of itself as an OAuth resource (RFC 9728). */
import type { Config } from './config.ts';

const WELL_KNOWN = '/.well-known/oauth-protected-resource';

export interface ResourceMetadata {
  /** Where the document is served. */
  path: string;
  /** The same as a whole URL, for challenges. */
  url: string;
  /** The document, as JSON. */
  body: string;
}

/** The resource's metadata; undefined when the config names no resource. */
export function resourceMetadata({ resource, issuers }: Config): ResourceMetadata | undefined {
  if (resource === undefined) return undefined;
  const { origin, pathname } = new URL(resource);
  // RFC 9728, section 3.1: the well-known part goes between host and path.
  const path = `${WELL_KNOWN}${pathname.replace(/\/$/, '')}`;
  const scopes = [...new Set(issuers.flatMap((issuer) => issuer.requiredScopes))];
  const document = {
    resource,
    authorization_servers: issuers.map(({ issuer }) => issuer),
    bearer_methods_supported: ['header'],
    ...(scopes.length > 0 && { scopes_supported: scopes }),
  };
  return { path, url: `${origin}${path}`, body: JSON.stringify(document) };
}
