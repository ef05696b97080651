/** What an authorizer is asked, as Envoy's `CheckRequest`. */
import type { AuthorizeInput, Identity, RequestFacts } from '../../proto/contract.ts';

/** Where Envoy's own JWT filter puts the claims, and where policies written for it look for them. */
const JWT_NAMESPACE = 'envoy.filters.http.jwt_authn';
/** What Envoy has no place for: what is to be done, and with which resources. */
const OWN_NAMESPACE = 'wardgate';

/** The message as proto-loader writes it. */
export function checkRequest(input: AuthorizeInput): object {
  const now = Date.now();
  return {
    attributes: {
      request: {
        time: { seconds: Math.floor(now / 1_000), nanos: (now % 1_000) * 1_000_000 },
        http: httpRequest(input.request),
      },
      contextExtensions: input.request.context ?? {},
      metadataContext: { filterMetadata: metadata(input) },
    },
  };
}

/** The query is not known here: unlike Envoy's, this path ends before the `?`. */
function httpRequest(facts: RequestFacts): object {
  const { id, method, path, headers = {}, body } = facts;
  const host = headers.host ?? '';
  return {
    id,
    method,
    path,
    host,
    scheme: 'http',
    protocol: 'HTTP/1.1',
    // -1 says that it is not known.
    size: facts.bodySize ?? -1,
    headers: { ...headers, ':method': method, ':path': path, ':scheme': 'http', ...bodyHeaders(facts) },
    ...(body !== undefined && { body }),
  };
}

/**
 * The headers that describe the body as it is sent, whatever the client's own said. opa-envoy parses a body only when it
 * is called JSON, and not when it is shorter than its `content-length`: of a cut one that is the length of the whole.
 */
function bodyHeaders({ body, bodySize }: RequestFacts): Record<string, string> {
  if (body === undefined) return {};
  const sent = Buffer.byteLength(body);
  const whole = Math.max(bodySize ?? sent, sent);
  return {
    'content-type': 'application/json',
    'content-length': String(whole),
    'x-envoy-auth-partial-body': String(whole > sent),
  };
}

function metadata({ request, action, resources }: AuthorizeInput): Record<string, object> {
  const { identity, route, model, provider } = request;
  const own = struct({ action, resources, route, model, provider, tenant: identity?.tenant });
  if (identity === undefined) return { [OWN_NAMESPACE]: own };
  return { [OWN_NAMESPACE]: own, [JWT_NAMESPACE]: struct({ jwt_payload: jwtPayload(identity) }) };
}

/** The claims of a token by the names that OpenID Connect and Keycloak give them. What is known of the identity counts first. */
function jwtPayload({ subject, issuer, username, email, groups, roles, claims }: Identity): object {
  const known = { sub: subject, iss: issuer, preferred_username: username, email, groups };
  const payload = { ...claims };
  for (const [name, value] of Object.entries(known)) if (value !== undefined) payload[name] = value;
  if (roles !== undefined) payload.realm_access ??= { roles };
  return payload;
}

// --- google.protobuf.Struct -----------------------------------------------------------------------------------------

/** Fields without a value are left out. */
function struct(value: object): object {
  const fields = Object.entries(value).filter(([, one]) => one !== undefined);
  return { fields: Object.fromEntries(fields.map(([name, one]) => [name.toWellFormed(), structValue(one)])) };
}

/** Text is made well-formed: any client can put a lone surrogate into its JSON, and a strict peer would not read on. */
function structValue(value: unknown): object {
  if (typeof value === 'string') return { stringValue: value.toWellFormed() };
  if (typeof value === 'number') return { numberValue: value };
  if (typeof value === 'boolean') return { boolValue: value };
  if (Array.isArray(value)) return { listValue: { values: value.map(structValue) } };
  if (typeof value === 'object' && value !== null) return { structValue: struct(value) };
  return { nullValue: 0 };
}
