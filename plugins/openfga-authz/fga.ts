/** Questions to OpenFGA, through its SDK: check, batch check and list-objects, each with a deadline and bounded. */
import { Agent } from 'node:http';
import { Agent as TlsAgent } from 'node:https';
import {
  type BatchCheckSingleResult,
  type ConsistencyPreference,
  Credentials,
  CredentialsMethod,
  OpenFgaApi,
  type TupleKey,
  type UserConfigurationParams,
} from '@openfga/sdk';
import type { Asker } from './asker.ts';
import type { Config, ObjectType } from './config.ts';
import { faultOf, isGone, OpenfgaFault } from './faults.ts';
import { type Pin, type SendOptions, Store } from './store.ts';

/** OpenFGA's own bound on the checks of one batch. */
const MAX_BATCH = 50;
/** It takes messages of about 600 KB, and each check of a batch brings its tuples along. */
const MAX_BATCH_BYTES = 300_000;
/** Batches of one question that are under way at a time. */
const PARALLEL = 4;
/** No answer is larger: 1,000 objects of 256 characters, or a model of 256 KB as JSON. */
const MAX_ANSWER = 4 * 1024 * 1024;
const MAX_SOCKETS = 256;
const RETRY_WAIT_MS = 20;

/** May this asker use that object? */
export interface Question extends ObjectType {
  asker: Asker;
  /** Such as `model:gpt-4o`. */
  object: string;
  /** Two questions with one key have one answer. */
  key: string;
}

/** OpenFGA, as the config has it. */
export class Fga {
  readonly #config: Config;
  readonly #api: OpenFgaApi;
  readonly #agents = {
    httpAgent: new Agent({ keepAlive: true, maxSockets: MAX_SOCKETS }),
    httpsAgent: new TlsAgent({ keepAlive: true, maxSockets: MAX_SOCKETS }),
  };
  readonly #store: Store;
  readonly #clock: () => number;

  /** @param onChange is called when earlier answers may no longer hold: another store, another model */
  constructor(config: Config, clock: () => number, onChange: () => void) {
    this.#config = config;
    this.#clock = clock;
    this.#api = apiOf(config);
    const options = () => this.#sending(AbortSignal.timeout(config.timeout));
    this.#store = new Store({ config, api: this.#api, options, clock, onChange });
  }

  /**
   * The answers, in order.
   *
   * @param isList when many are asked at once and `listing` says so, one list stands in for the checks
   * @throws OpenfgaFault when one of them cannot be had: nobody is told yes or no by half an answer
   */
  ask(questions: Question[], isList: boolean, signal: AbortSignal): Promise<boolean[]> {
    return this.#pinned(async (pin) => {
      for (const question of questions) this.#checkFit(pin, question);
      if (questions.length === 1) return [await this.#check(pin, questions[0]!, signal)];
      return isList && this.#config.listing === 'list-objects'
        ? this.#listed(pin, questions, signal)
        : this.#batches(pin, questions, signal);
    });
  }

  close(): void {
    this.#agents.httpAgent.destroy();
    this.#agents.httpsAgent.destroy();
  }

  /** A memory store that was started anew has other ids: they are looked up, and the question is asked once more. */
  async #pinned<T>(ask: (pin: Pin) => Promise<T>): Promise<T> {
    const pin = await this.#store.pinned();
    try {
      return await ask(pin);
    } catch (error) {
      if (!isGone(error)) throw faultOf(error);
    }
    this.#store.forget(pin);
    return ask(await this.#store.pinned()).catch((error: unknown) => {
      throw faultOf(error);
    });
  }

  async #check(pin: Pin, { asker, relation, object }: Question, signal: AbortSignal): Promise<boolean> {
    const body = {
      tuple_key: { user: asker.user, relation, object },
      ...contextual(asker.tuples),
      authorization_model_id: pin.modelId,
      consistency: this.#config.consistency as ConsistencyPreference,
    };
    return decided((await this.#api.check(pin.storeId, body, this.#sending(signal))).allowed);
  }

  async #batches(pin: Pin, questions: Question[], signal: AbortSignal): Promise<boolean[]> {
    const pages = pagesOf(questions);
    const answers: boolean[][] = [];
    let next = 0;
    const work = async () => {
      for (let page = next++; page < pages.length; page = next++) {
        answers[page] = await this.#batch(pin, pages[page]!, signal);
      }
    };
    await Promise.all(Array.from({ length: Math.min(PARALLEL, pages.length) }, work));
    return answers.flat();
  }

  /** The answers come in any order, and one may be an error while the others are not. */
  async #batch(pin: Pin, questions: Question[], signal: AbortSignal): Promise<boolean[]> {
    const body = {
      checks: questions.map(({ asker, relation, object }, i) => ({
        tuple_key: { user: asker.user, relation, object },
        ...contextual(asker.tuples),
        correlation_id: String(i),
      })),
      authorization_model_id: pin.modelId,
      consistency: this.#config.consistency as ConsistencyPreference,
    };
    const { result } = await this.#api.batchCheck(pin.storeId, body, this.#sending(signal));
    if (typeof result !== 'object' || result === null) throw malformed();
    return questions.map((_, i) => single(Object.hasOwn(result, String(i)) ? result[String(i)] : undefined));
  }

  /**
   * What is in the list is allowed. What is not in it is denied only when the list is whole; OpenFGA cuts it at a number
   * and at a deadline without saying so. The time until the answer was here is never shorter than the server's own, so
   * an answer that was faster than its deadline was not cut by it. After any other, the rest is checked one by one.
   */
  async #listed(pin: Pin, questions: Question[], signal: AbortSignal): Promise<boolean[]> {
    const lists = new Map<string, Promise<ObjectList>>();
    for (const question of questions) {
      const { type, relation } = question;
      const key = `${type}#${relation}`;
      if (!lists.has(key)) lists.set(key, this.#list(pin, question, signal));
    }
    await Promise.all(lists.values());
    const answers: (boolean | undefined)[] = [];
    for (const { type, relation, object } of questions) {
      const { objects, isWhole } = (await lists.get(`${type}#${relation}`))!;
      answers.push(objects.has(object) || (isWhole ? false : undefined));
    }
    const open = questions.filter((_, i) => answers[i] === undefined);
    const rest = open.length === 0 ? [] : await this.#batches(pin, open, signal);
    return answers.map((answer) => answer ?? rest.shift()!);
  }

  /** Ids are compared as they are written: what is not written as we write it is nothing that a check could name. */
  async #list(pin: Pin, { asker, type, relation }: Question, signal: AbortSignal): Promise<ObjectList> {
    const body = {
      user: asker.user,
      relation,
      type,
      ...contextual(asker.tuples),
      authorization_model_id: pin.modelId,
      consistency: this.#config.consistency as ConsistencyPreference,
    };
    const askedAt = this.#clock();
    const { objects } = await this.#api.listObjects(pin.storeId, body, this.#sending(signal));
    if (!Array.isArray(objects) || !objects.every((one) => typeof one === 'string')) throw malformed();
    const isWhole = objects.length < this.#config.listMaxResults && this.#clock() - askedAt < this.#config.listDeadline;
    return { objects: new Set(objects), isWhole };
  }

  /** What the model cannot answer is told apart from what OpenFGA gets wrong. */
  #checkFit({ relations, subtracts }: Pin, { type, relation, asker }: Question): void {
    const group = this.#config.groups?.tuple;
    const isFit = relations.get(type)?.has(relation);
    const isGroupFit =
      group === undefined || asker.tuples.length === 0 || relations.get(group.object.type)?.has(group.relation);
    if (!isFit || !isGroupFit) {
      const missing = isFit ? `${group?.relation} of ${group?.object.type}` : `${relation} of ${type}`;
      throw new OpenfgaFault('openfga_unfit_model', `The model in OpenFGA has no relation ${missing}.`);
    }
    if (subtracts && asker.dropped > 0) {
      throw new OpenfgaFault(
        'openfga_too_many_groups',
        'A token has more groups than OpenFGA takes, and the model says `but not`: one that was left out may forbid. Let fewer pass by `groups.prefix` or `groups.map`.',
      );
    }
  }

  #sending(signal: AbortSignal): SendOptions {
    return { signal, ...this.#agents, maxContentLength: MAX_ANSWER, maxRedirects: 0, proxy: false };
  }
}

interface ObjectList {
  objects: Set<string>;
  isWhole: boolean;
}

/** The SDK's API as a config has it, for the plugin and for the seed command alike. */
export function apiOf(config: Pick<Config, 'apiUrl' | 'credentials' | 'retries'>): OpenFgaApi {
  return new Api({
    apiUrl: config.apiUrl.replace(/\/+$/, ''),
    credentials: credentialsOf(config.credentials),
    retryParams: { maxRetry: config.retries, minWaitInMs: RETRY_WAIT_MS },
    telemetry: { metrics: {} },
  });
}

/** The SDK fetches its tokens without any deadline; through its own client they have the one of that, 10 seconds. */
class Api extends OpenFgaApi {
  constructor(params: UserConfigurationParams) {
    super(params);
    this.credentials = Credentials.init(this.configuration, this.axios);
  }
}

function credentialsOf(credentials: Config['credentials']): UserConfigurationParams['credentials'] {
  if (credentials === undefined) return { method: CredentialsMethod.None };
  if ('token' in credentials) {
    return { method: CredentialsMethod.ApiToken, config: { token: credentials.token } } as never;
  }
  const { issuer, audience, clientId, clientSecret } = credentials;
  return {
    method: CredentialsMethod.ClientCredentials,
    config: { apiTokenIssuer: issuer, apiAudience: audience, clientId, clientSecret },
  };
}

function contextual(tuples: TupleKey[]): { contextual_tuples?: { tuple_keys: TupleKey[] } } {
  return tuples.length === 0 ? {} : { contextual_tuples: { tuple_keys: tuples } };
}

function pagesOf(questions: Question[]): Question[][] {
  const tuples = JSON.stringify(questions[0]?.asker.tuples ?? []).length;
  const size = Math.max(1, Math.min(MAX_BATCH, Math.floor(MAX_BATCH_BYTES / (tuples + 1000))));
  const pages: Question[][] = [];
  for (let start = 0; start < questions.length; start += size) pages.push(questions.slice(start, start + size));
  return pages;
}

function single(result: BatchCheckSingleResult | undefined): boolean {
  if (result?.error == null) return decided(result?.allowed);
  const { input_error: input, internal_error: internal } = result.error;
  throw new OpenfgaFault(
    'openfga_failed_item',
    `OpenFGA could not decide one of a batch: ${words(internal ?? input)}.`,
  );
}

function words(code: unknown): string {
  return typeof code === 'string' && /^\w{1,60}$/.test(code) ? code : 'it does not say why';
}

function decided(allowed: unknown): boolean {
  if (typeof allowed === 'boolean') return allowed;
  throw malformed();
}

function malformed(): OpenfgaFault {
  return new OpenfgaFault('openfga_malformed', 'OpenFGA answered something that is no decision.');
}
