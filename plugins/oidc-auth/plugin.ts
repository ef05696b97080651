/** oidc-auth: says who brings a token of an OpenID Connect issuer. */
import { z } from 'zod';
import {
  type AllowOrReject,
  type AuthenticateInput,
  CONTRACT_VERSION,
  type Description,
  type Plugin,
  type PluginFactory,
} from '../../proto/contract.ts';
import { CONFIG, type Config, readConfig } from './config.ts';
import { Issuer } from './issuer.ts';
import { type Challenger, challengeOf, refusal } from './refusals.ts';
import { Revocations } from './revocations.ts';
import { Tokens } from './tokens.ts';

const NAME = 'oidc-auth';

/** Makes the plugin. @throws ConfigProblem when the config is not its kind */
export const oidcAuth: PluginFactory = {
  name: NAME,
  create: (config) => new OidcAuth(readConfig(config)),
};

class OidcAuth implements Plugin {
  readonly #issuers: Issuer[];
  readonly #tokens: Tokens;
  readonly #notMine: AllowOrReject;
  readonly #duplicate: AllowOrReject;

  constructor(config: Config) {
    const challenger: Challenger = { realm: config.realm };
    const events = { onWithdrawn: () => this.#tokens.forget(), warn };
    this.#issuers = config.issuers.map((issuer) => new Issuer(issuer, config, events));
    this.#notMine = { allow: { challenge: challengeOf(challenger) } };
    this.#duplicate = refusal(challenger, 'duplicate_credentials');
    this.#tokens = new Tokens({
      config,
      issuers: this.#issuers,
      revocations: new Revocations(),
      challenger,
      notMine: this.#notMine,
    });
  }

  describe(): Description {
    return {
      contract: CONTRACT_VERSION,
      name: NAME,
      version: '0.1.0',
      hooks: ['authenticate'],
      rewrites: false,
      configSchema: z.toJSONSchema(CONFIG, { io: 'input' }),
    };
  }

  authenticate({ request }: AuthenticateInput): AllowOrReject | Promise<AllowOrReject> {
    const header = request.headers?.authorization;
    if (header === undefined) return this.#notMine;
    const token = bearerToken(header);
    if (token === undefined) return this.#notMine;
    return token === SEVERAL ? this.#duplicate : this.#tokens.judge(token);
  }

  close(): void {
    for (const issuer of this.#issuers) issuer.close();
  }
}

const SEVERAL = Symbol('more than one credential');

/** What stands after `Bearer`; undefined when the scheme is another's. Several headers arrive joined by commas. */
function bearerToken(header: string): string | typeof SEVERAL | undefined {
  if (header.includes(',')) return /(?:^|,)\s*bearer\s/i.test(header) ? SEVERAL : undefined;
  return /^bearer +(\S.*)$/i.exec(header.trim())?.[1];
}

function warn(message: string): void {
  process.emitWarning(`${NAME}: ${message}`, 'OidcAuthWarning');
}
