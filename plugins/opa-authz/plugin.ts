/** opa-authz: asks Open Policy Agent who may use which model, over OPA's data API. */
import { z } from 'zod';
import {
  type Action,
  type AllowOrReject,
  type AuthorizeInput,
  type CallOptions,
  CONTRACT_VERSION,
  type Description,
  type Plugin,
  type PluginFactory,
} from '../../proto/contract.ts';
import { CONFIG, type Config, readConfig } from './config.ts';
import { type Decision, decisionOf, verdictOf } from './decision.ts';
import { keyOf, questionOf } from './input.ts';
import { Opa } from './opa.ts';
import { Remembered } from './remembered.ts';

const NAME = 'opa-authz';

/** Makes the plugin. @throws ConfigProblem when the config is not its kind or a certificate cannot be read */
export const opaAuthz: PluginFactory = {
  name: NAME,
  create: (config) => new OpaAuthz(readConfig(config), () => performance.now()),
};

/** The plugin with its clock, which tells milliseconds and never goes back. */
export class OpaAuthz implements Plugin {
  readonly #config: Config;
  readonly #opa: Opa;
  readonly #clock: () => number;
  readonly #remembered: Remembered | undefined;

  constructor(config: Config, clock: () => number) {
    this.#config = config;
    this.#opa = new Opa(config);
    this.#clock = clock;
    this.#remembered = config.cache === false ? undefined : new Remembered(config.cache, clock);
  }

  describe(): Description {
    const { tools, body } = this.#config;
    const actions: Action[] = ['model.use', 'model.list'];
    return {
      contract: CONTRACT_VERSION,
      name: NAME,
      version: '0.1.0',
      hooks: ['authorize'],
      rewrites: false,
      actions: tools ? [...actions, 'tool.call'] : actions,
      ...(body > 0 && { body }),
      configSchema: z.toJSONSchema(CONFIG, { io: 'input' }),
    };
  }

  /** One question, however many resources. @throws when OPA could not be asked, or has no decision that can be read */
  async authorize(input: AuthorizeInput, options: CallOptions = {}): Promise<AllowOrReject> {
    const decision = await this.#decision(input, options.signal);
    return verdictOf(this.#config.messages ? decision : { ...decision, message: undefined }, input.action);
  }

  async #decision(input: AuthorizeInput, signal: AbortSignal | undefined): Promise<Decision> {
    const key = this.#remembered && keyOf(input);
    const known = key && this.#remembered?.get(key);
    if (known) return known;
    const askedAt = this.#clock();
    const answer = await this.#opa.decide(questionOf(input), traceOf(input), signal);
    const decision = decisionOf(answer, this.#config.allow, input);
    if (key) this.#remembered?.set(key, decision, askedAt);
    return decision;
  }

  async close(): Promise<void> {
    await this.#opa.close();
  }
}

/** The W3C trace that the request belongs to, where the mount shows it. */
function traceOf({ request: { headers = {} } }: AuthorizeInput): Record<string, string> {
  const { traceparent, tracestate } = headers;
  return { ...(traceparent && { traceparent }), ...(traceparent && tracestate && { tracestate }) };
}
