/**
 * `ext-authz://host:port`: a service that authorises for Envoy (envoy.service.auth.v3 over gRPC), such as opa-envoy or
 * Authorino, as it is.
 *
 * It answers `authorize`, one `Check` a call, and sees what the mount shows it: the headers that it names, as much of the
 * body as it says, the route's context as `context_extensions`, the identity as the claims of Envoy's JWT filter. What the
 * service would change in the request, or add to a good answer, is not done.
 */
import type { AllowOrReject, AuthorizeInput, CallOptions, Hook } from '../../proto/contract.ts';
import { PluginFault } from '../../proto/contract.ts';
import { type Connection, type Endpoint, EndpointProblem, type HookInput } from './connection.ts';
import { type CheckResponse, verdictIn } from './ext-authz-reply.ts';
import { checkRequest } from './ext-authz-request.ts';
import { foreignMethod, UnaryLine } from './unary.ts';

const CHECK = foreignMethod<CheckResponse>(
  'envoy/service/auth/v3/external_auth.proto',
  'envoy.service.auth.v3.Authorization',
  'Check',
);

/**
 * Connects, and goes on trying in the background when the service is down.
 *
 * @throws {@link EndpointProblem} when the address, the config or the certificates make no sense
 */
export async function connectExtAuthz(endpoint: Endpoint): Promise<Connection> {
  if (endpoint.config !== undefined) {
    throw new EndpointProblem('an ext-authz service takes no `config`: its policy is its own');
  }
  const connection = new ExtAuthzConnection(endpoint);
  await connection.start();
  return connection;
}

class ExtAuthzConnection extends UnaryLine<CheckResponse> {
  constructor(endpoint: Endpoint) {
    super(endpoint, CHECK, { version: 'ext-authz', hooks: ['authorize'], actions: ['model.use', 'model.list'] });
  }

  override ask<H extends Hook>(hook: H, input: HookInput[H], options?: CallOptions): Promise<unknown> {
    if (hook !== 'authorize') throw new PluginFault('no_such_hook', `ext-authz does not answer \`${hook}\``);
    return this.guarded(() => this.judge(input as AuthorizeInput, options?.signal), options?.signal);
  }

  private async judge(input: AuthorizeInput, signal: AbortSignal | undefined): Promise<AllowOrReject> {
    return verdictIn(await this.call(checkRequest(input), signal), input.resources.length);
  }
}
