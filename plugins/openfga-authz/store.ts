/** The store and the model that questions are asked of: found by name, pinned, and found again when they are gone. */
import type { AuthorizationModel, OpenFgaApi } from '@openfga/sdk';
import type { Config } from './config.ts';
import { faultOf, isGone, OpenfgaFault } from './faults.ts';

const DEFAULT_STORE = 'wardgate';
/** Pages of 100 stores that are looked through: a server of before 2025 does not filter by name. */
const MAX_PAGES = 20;

/** A store and one version of its model. */
export interface Pin {
  storeId: string;
  modelId: string;
  /** Which relations each type of the model has. */
  relations: ReadonlyMap<string, ReadonlySet<string>>;
  /** True when a tuple more may turn a yes into a no (`but not`). */
  subtracts: boolean;
}

/** What a call is sent with, such as its deadline. */
export type SendOptions = { signal: AbortSignal } & Record<string, unknown>;

/** Finds the store and its model, and holds on to them. */
export class Store {
  readonly #config: Config;
  readonly #api: OpenFgaApi;
  readonly #options: () => SendOptions;
  readonly #clock: () => number;
  readonly #onChange: () => void;
  #pin: Pin | undefined;
  #pinnedAt = 0;
  #finding: Promise<Pin> | undefined;

  /** @param parts.onChange is called when what was pinned has become another store or model, or is gone */
  constructor(parts: {
    config: Config;
    api: OpenFgaApi;
    options: () => SendOptions;
    clock: () => number;
    onChange: () => void;
  }) {
    this.#config = parts.config;
    this.#api = parts.api;
    this.#options = parts.options;
    this.#clock = parts.clock;
    this.#onChange = parts.onChange;
  }

  /** The pinned store. After `refresh` it is looked up again beside the questions. @throws OpenfgaFault */
  async pinned(): Promise<Pin> {
    if (this.#pin === undefined) return this.#find();
    const pin = this.#pin;
    if (this.#clock() - this.#pinnedAt >= this.#config.refresh) this.#refresh(pin);
    return pin;
  }

  /**
   * A deleted store goes on answering from what it was, and a newer model is to be used some day, so it is not enough to
   * wait for errors. While OpenFGA is away, nothing is known to be gone.
   */
  #refresh(pin: Pin): void {
    this.#pinnedAt = this.#clock();
    this.#find().catch((error: OpenfgaFault) => {
      if (error.code === 'openfga_no_store' || error.code === 'openfga_no_model') this.forget(pin);
    });
  }

  /** The store or the model has turned out to be gone. */
  forget(pin: Pin): void {
    if (this.#pin !== pin) return;
    this.#pin = undefined;
    this.#onChange();
  }

  #find(): Promise<Pin> {
    this.#finding ??= this.#look().finally(() => {
      this.#finding = undefined;
    });
    return this.#finding;
  }

  async #look(): Promise<Pin> {
    const found = await this.#lookUp().catch((error: unknown) => {
      throw isGone(error) ? this.#missing() : faultOf(error);
    });
    const before = this.#pin;
    this.#pin = found;
    this.#pinnedAt = this.#clock();
    if (before !== undefined && (before.storeId !== found.storeId || before.modelId !== found.modelId))
      this.#onChange();
    return found;
  }

  async #lookUp(): Promise<Pin> {
    const options = this.#options();
    const storeId = this.#config.storeId ?? (await this.#storeNamed(options));
    const model = await this.#model(storeId, options);
    if (model === undefined) throw this.#missing('openfga_no_model');
    return pinOf(storeId, model);
  }

  async #model(storeId: string, options: SendOptions): Promise<AuthorizationModel | undefined> {
    const { modelId } = this.#config;
    if (modelId !== undefined) {
      return (await this.#api.readAuthorizationModel(storeId, modelId, options)).authorization_model;
    }
    const { authorization_models: models } = await this.#api.readAuthorizationModels(storeId, 1, undefined, options);
    return listed(models)[0];
  }

  async #storeNamed(options: SendOptions): Promise<string> {
    const name = this.#config.store ?? DEFAULT_STORE;
    const ids = await storesNamed(this.#api, name, options);
    if (ids.length > 1) {
      throw new OpenfgaFault('openfga_two_stores', 'OpenFGA has several stores of this name. Write `storeId` instead.');
    }
    if (ids[0] === undefined) throw this.#missing();
    return ids[0];
  }

  #missing(code = 'openfga_no_store'): OpenfgaFault {
    const { store = DEFAULT_STORE, storeId, apiUrl } = this.#config;
    const what = code === 'openfga_no_store' ? `no store ${storeId ?? `named ${store}`}` : 'no model in its store';
    const command = `node plugins/openfga-authz/seed.ts --api-url ${apiUrl} --store ${storeId ? 'NAME' : store}`;
    return new OpenfgaFault(
      code,
      `OpenFGA has ${what}, or not the model of this config. Make it: ${command} --model FILE`,
    );
  }
}

/** The ids of the stores that have this very name, the oldest first. */
export async function storesNamed(api: OpenFgaApi, name: string, options: object): Promise<string[]> {
  const ids: string[] = [];
  let token: string | undefined;
  for (let page = 0; page < MAX_PAGES; page++) {
    const answer = await api.listStores(100, token, name, options);
    for (const store of listed(answer.stores)) if (store.name === name) ids.push(store.id);
    token = answer.continuation_token || undefined;
    if (token === undefined) return ids.sort();
  }
  throw new OpenfgaFault(
    'openfga_many_stores',
    'OpenFGA has too many stores to look through. Write `storeId` instead.',
  );
}

/** A list in an answer of OpenFGA. @throws OpenfgaFault when it is none */
function listed<T>(value: T[] | undefined): T[] {
  if (Array.isArray(value)) return value;
  throw new OpenfgaFault('openfga_malformed', 'What answers at `apiUrl` does not speak like OpenFGA.');
}

function pinOf(storeId: string, { id, type_definitions: types }: AuthorizationModel): Pin {
  const relations = new Map(listed(types).map(({ type, relations = {} }) => [type, new Set(Object.keys(relations))]));
  return { storeId, modelId: id, relations, subtracts: JSON.stringify(types).includes('"difference":') };
}
