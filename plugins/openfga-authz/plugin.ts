/** openfga-authz: asks OpenFGA whether this identity may use that model, tool, server or route. */
import { z } from 'zod';
import {
  type AllowOrReject,
  type AuthorizeInput,
  type CallOptions,
  CONTRACT_VERSION,
  type Description,
  type Finding,
  type Plugin,
  type PluginFactory,
  type Resource,
} from '../../proto/contract.ts';
import { type Asker, askerOf } from './asker.ts';
import { CONFIG, type Config, type ObjectType, objectTypes, readConfig } from './config.ts';
import { Decisions } from './decisions.ts';
import { OpenfgaFault } from './faults.ts';
import { Fga, type Question } from './fga.ts';
import { Flight } from './flights.ts';
import { objectOf } from './ids.ts';

const NAME = 'openfga-authz';
const DEFAULT_CACHE = { allowed: 10_000, denied: 2_000, entries: 10_000 };

/** Makes the plugin. @throws ConfigProblem when the config is not its kind */
export const openfgaAuthz: PluginFactory = {
  name: NAME,
  // The wall clock may be set back or forth, and what is remembered must not notice.
  create: (config) => new OpenfgaAuthz(readConfig(config), () => performance.now()),
};

/** The plugin with its clock, which tells milliseconds and never goes back. */
export class OpenfgaAuthz implements Plugin {
  readonly #config: Config;
  readonly #types: Record<Resource['type'], ObjectType>;
  readonly #decisions: Decisions;
  readonly #fga: Fga;
  /** By what they ask; as many as there are requests that wait. */
  readonly #flights = new Map<string, Flight<boolean[]>>();
  readonly #isShared: boolean;
  readonly #clock: () => number;

  constructor(config: Config, clock: () => number) {
    const isFresh = config.consistency === 'HIGHER_CONSISTENCY';
    const cache = config.cache ?? (isFresh ? false : DEFAULT_CACHE);
    this.#config = config;
    this.#types = objectTypes(config);
    this.#decisions = new Decisions(cache, clock);
    // An answer to a question that left before one's own may be older than a grant that one has just seen made.
    this.#isShared = !isFresh || cache !== false;
    this.#fga = new Fga(config, clock, () => this.#decisions.clear());
    this.#clock = clock;
  }

  /** How many decisions are remembered. */
  get size(): number {
    return this.#decisions.size;
  }

  describe(): Description {
    return {
      contract: CONTRACT_VERSION,
      name: NAME,
      version: '0.1.0',
      hooks: ['authorize'],
      rewrites: false,
      actions: this.#config.tools ? ['model.use', 'model.list', 'tool.call'] : ['model.use', 'model.list'],
      configSchema: z.toJSONSchema(CONFIG, { io: 'input' }),
    };
  }

  /** What is remembered is answered at once. @throws OpenfgaFault when there is no decision */
  authorize(
    { request, action, resources }: AuthorizeInput,
    options?: CallOptions,
  ): AllowOrReject | Promise<AllowOrReject> {
    const asker = askerOf(this.#config, request.identity);
    if (asker === undefined) return { allow: { decisions: resources.map(() => false), findings: NO_USER } };
    const questions = resources.map((resource) => this.#question(asker, resource));
    // What has no id in OpenFGA can have been granted to nobody.
    const known = questions.map((question) => (question === undefined ? false : this.#decisions.get(question.key)));
    if (!known.includes(undefined)) return verdict(known as boolean[], asker);
    const open = questions.filter((_, i) => known[i] === undefined) as Question[];
    return this.#decide(open, action === 'model.list', options?.signal).then((answers) => {
      let next = 0;
      return verdict(
        known.map((decision) => decision ?? answers[next++]!),
        asker,
      );
    });
  }

  close(): void {
    this.#fga.close();
  }

  #question(asker: Asker, { type: resource, name }: Resource): Question | undefined {
    if (!Object.hasOwn(this.#types, resource)) throw new OpenfgaFault('openfga_unknown_type', UNKNOWN_TYPE);
    const { type, relation } = this.#types[resource];
    const object = objectOf(type, name);
    return object === undefined
      ? undefined
      : { asker, type, relation, object, key: `${relation}\n${object}\n${asker.key}` };
  }

  #decide(questions: Question[], isList: boolean, signal: AbortSignal | undefined): Promise<boolean[]> {
    if (!this.#isShared) return this.#launch(questions, isList).wait(signal);
    const key = [isList, ...questions.map((question) => question.key)].join('\n\n');
    const underWay = this.#flights.get(key);
    if (underWay !== undefined && !underWay.isGivenUp) return underWay.wait(signal);
    const flight = this.#launch(questions, isList);
    this.#flights.set(key, flight);
    void flight.ended.then(() => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    });
    return flight.wait(signal);
  }

  #launch(questions: Question[], isList: boolean): Flight<boolean[]> {
    const { timeout } = this.#config;
    const ask = async (signal: AbortSignal) => {
      const { epoch } = this.#decisions;
      const askedAt = this.#clock();
      const answers = await this.#fga.ask(questions, isList, signal);
      if (this.#decisions.epoch === epoch) {
        questions.forEach(({ key }, i) => this.#decisions.set(key, answers[i]!, askedAt));
      }
      return answers;
    };
    return new Flight(ask, timeout, new OpenfgaFault('openfga_late', `OpenFGA gave no answer within ${timeout} ms.`));
  }
}

const UNKNOWN_TYPE = 'The gateway asks about a type of resource that is not known here.';
const NO_USER: Finding[] = [{ label: 'NO_USER', count: 1 }];

function verdict(decisions: boolean[], { dropped }: Asker): AllowOrReject {
  if (dropped === 0) return { allow: { decisions } };
  return { allow: { decisions, findings: [{ label: 'GROUPS_LEFT_OUT', count: dropped }] } };
}
