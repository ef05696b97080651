/** cel-authz: who may do what, by rules in the config that are written in CEL. In process, it answers at once. */
import { z } from 'zod';
import {
  type Action,
  type AllowOrReject,
  type AuthorizeInput,
  CONTRACT_VERSION,
  DEFAULT_ACTIONS,
  type Description,
  type Plugin,
  type PluginFactory,
} from '../../proto/contract.ts';
import { CONFIG, type Config, type Rule, readConfig } from './config.ts';
import { type Decision, decide, type Rules, sorted } from './rules.ts';
import { factsOf, ResourceVariable } from './variables.ts';

const NAME = 'cel-authz';
const STRANGER = 'You are not signed in, and this is not for everybody. Sign in, or send your key, and try again.';
const TOLD: Record<Action, string> = {
  'model.use': 'You may not use this model here. Choose another one, or ask the operator of this gateway for access.',
  'model.list': 'You may not see the models here. Ask the operator of this gateway for access.',
  'tool.call': 'The model asked for a tool that you may not use. Ask the operator of this gateway for access to it.',
};

/** Makes the plugin. @throws ConfigProblem when the config is not its kind or an expression is not sound */
export const celAuthz: PluginFactory = {
  name: NAME,
  create: (config) => new CelAuthz(readConfig(config)),
};

class CelAuthz implements Plugin {
  readonly #config: Config;
  readonly #rules: Rules;

  constructor(config: Config) {
    this.#config = config;
    this.#rules = sorted(config.rules);
  }

  describe(): Description {
    const actions: Action[] = [...DEFAULT_ACTIONS, ...(this.#config.tools ? (['tool.call'] as const) : [])];
    return {
      contract: CONTRACT_VERSION,
      name: NAME,
      version: '0.1.0',
      hooks: ['authorize'],
      rewrites: false,
      actions,
      configSchema: z.toJSONSchema(CONFIG, { io: 'input' }),
    };
  }

  /**
   * Decides on each resource. Where none passes the whole question is refused, so that the person learns why; a list of
   * models is merely empty, unless a stranger asked for it.
   */
  authorize(input: AuthorizeInput): AllowOrReject {
    const facts = factsOf(input);
    const decisions = input.resources.map((one) =>
      decide(this.#rules, { ...facts, resource: new ResourceVariable(one) }),
    );
    const [first] = decisions;
    const isListed = input.action === 'model.list' && input.request.identity !== undefined;
    if (first === undefined || isListed || decisions.some(({ isAllowed }) => isAllowed)) {
      return { allow: { decisions: decisions.map(({ isAllowed }) => isAllowed) } };
    }
    return this.#refusal(first, input);
  }

  #refusal(decision: Decision, { request, action }: AuthorizeInput): AllowOrReject {
    const rule = (decision as { rule: Rule | undefined }).rule;
    const told = request.identity === undefined ? STRANGER : (TOLD[action] ?? TOLD['model.use']);
    return {
      reject: {
        code: rule?.code ?? this.#config.code,
        message: rule?.message ?? this.#config.message ?? told,
        findings: [{ label: rule?.name ?? 'no-rule', count: 1 }],
      },
    };
  }
}
