/** A gateway whose clients are told apart by keys, and guarded by openfga-authz. */

import type { Identity } from '../../../proto/contract.ts';
import { says } from '../../gateway/chat.ts';
import { send } from '../../support/client.ts';
import { configFor, startGateway, type TestGateway, testPlugin } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';

export type Who = Partial<Identity> | undefined;

/** A gateway that believes who a client says it is. */
export class Guarded implements AsyncDisposable {
  readonly gateway: TestGateway;
  readonly upstream: ScriptedUpstream;
  readonly #url: string;

  constructor(gateway: TestGateway, upstream: ScriptedUpstream, route: string) {
    this.gateway = gateway;
    this.upstream = upstream;
    this.#url = `${gateway.url}${route === '/' ? '' : route}`;
  }

  /** Asks for a completion, as a user of that name, as that identity, or as nobody. */
  use(who: string | Who, model: string) {
    const body = { model, messages: [{ role: 'user', content: 'Hello' }] };
    return send(`${this.#url}/v1/chat/completions`, { headers: saying(who), body });
  }

  async status(who: string | Who, model: string): Promise<number> {
    const response = await this.use(who, model);
    await response.text();
    return response.status;
  }

  models(who: string | Who) {
    return send(`${this.#url}/v1/models`, { headers: saying(who) });
  }

  /** The ids that `GET /v1/models` shows. */
  async list(who: string | Who): Promise<string[]> {
    const response = await this.models(who);
    const { data } = await response.json<{ data: { id: string }[] }>();
    return data.map(({ id }) => id).sort();
  }

  /** Why plugins faulted, as the log has it. */
  get faults(): string[] {
    return this.gateway.logged.flatMap(({ fault }) => (typeof fault === 'string' ? [fault] : []));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.gateway.stop();
    await this.upstream.close();
  }
}

function saying(who: string | Who): Record<string, string> {
  if (who === undefined) return {};
  const identity =
    typeof who === 'string' ? { subject: `id-of-${who}`, username: who } : { subject: 'someone', ...who };
  return { 'x-me': Buffer.from(JSON.stringify(identity)).toString('base64url') };
}

const believing = testPlugin('believing', {
  authenticate: ({ request }) => {
    const me = request.headers?.['x-me'];
    return { allow: me === undefined ? {} : { identity: JSON.parse(Buffer.from(me, 'base64url').toString()) } };
  },
});

/** Starts it with models by name, and more settings of the plugin's mount beside its config. */
export async function startGuarded(
  config: Record<string, unknown>,
  models: string[] = ['gpt-4o', 'gpt-3.5-turbo', 'claude-35'],
  { route = '/', ...mount }: Record<string, unknown> & { route?: string } = {},
): Promise<Guarded> {
  const upstream = await startScriptedUpstream();
  upstream.always(says());
  const gateway = await startGateway(
    configFor(upstream.url, {
      models: Object.fromEntries(models.map((model) => [model, 'up'])),
      plugins: { me: { at: 'local:believing' }, fga: { at: 'local:openfga-authz', config, ...mount } },
      routes: { [route]: { plugins: ['me', 'fga'], identity: 'optional' } },
    }),
    { factories: [believing], log: 'warn' },
  );
  return new Guarded(gateway, upstream, route);
}
