/** What makes a store be as two files say: the model and the tuples. Run twice, the second time changes nothing. */
import type { OpenFgaApi, TupleKey, WriteAuthorizationModelRequest, WriteRequestWrites } from '@openfga/sdk';
import { z } from 'zod';
import { storesNamed } from './store.ts';

/** OpenFGA's own bound on the tuples of one write. */
const MAX_WRITE = 100;
const PARALLEL_READS = 8;

const REFERENCE = /^[A-Za-z0-9_-]{1,254}:[^\s:#*]+$/;
const USER = /^[A-Za-z0-9_-]{1,254}:(?:\*|[^\s:#*]+(?:#[A-Za-z0-9_-]{1,50})?)$/;
const ESCAPE = 'Characters that mean something to OpenFGA are escaped, such as model:llama3%3A8b for llama3:8b.';

/** One tuple as the files of OpenFGA's own command line have it. */
const tuple = z.strictObject({
  user: z.string().max(512).regex(USER, `Write user:ID, user:* or type:ID#relation. ${ESCAPE}`),
  relation: z.string().min(1).max(50),
  object: z.string().max(256).regex(REFERENCE, `Write type:ID. ${ESCAPE}`),
  condition: z
    .strictObject({ name: z.string().min(1), context: z.record(z.string(), z.unknown()).optional() })
    .optional(),
});

/** A list of tuples. */
export const TUPLES = z.array(tuple, { error: 'Write a list of tuples: { user, relation, object }.' });

/** An authorization model in JSON, as OpenFGA's API takes it. Its inside is OpenFGA's to judge. */
export const MODEL = z.looseObject({
  schema_version: z.string(),
  type_definitions: z.array(z.looseObject({ type: z.string().min(1) })).min(1),
  conditions: z.record(z.string(), z.unknown()).optional(),
});

/** What was there, and what was written. */
export interface Seeded {
  storeId: string;
  isNewStore: boolean;
  modelId: string;
  isNewModel: boolean;
  written: number;
  present: number;
}

export interface Seed {
  store: string;
  model: WriteAuthorizationModelRequest;
  tuples: TupleKey[];
}

/**
 * Makes the store, writes the model when the newest one differs, and writes the tuples that are not there. Nothing is
 * ever deleted.
 *
 * @throws FgaError when OpenFGA refuses something
 */
export async function seed(api: OpenFgaApi, { store, model, tuples }: Seed): Promise<Seeded> {
  const { storeId, isNewStore } = await storeOf(api, store);
  const { modelId, isNewModel } = await modelOf(api, storeId, model);
  const missing = await missingTuples(api, storeId, tuples);
  for (let start = 0; start < missing.length; start += MAX_WRITE) {
    // Another seeding that runs beside this one may have written some of them by now.
    const writes = {
      tuple_keys: missing.slice(start, start + MAX_WRITE),
      on_duplicate: 'ignore',
    } as WriteRequestWrites;
    await api.write(storeId, { writes, authorization_model_id: modelId }, {});
  }
  return {
    storeId,
    isNewStore,
    modelId,
    isNewModel,
    written: missing.length,
    present: tuples.length - missing.length,
  };
}

/** The oldest store of this name, or a new one. Two seedings at once agree on the older of what they made. */
async function storeOf(api: OpenFgaApi, name: string): Promise<{ storeId: string; isNewStore: boolean }> {
  const [known] = await storesNamed(api, name, {});
  if (known !== undefined) return { storeId: known, isNewStore: false };
  const made = await api.createStore({ name }, {});
  const [oldest = made.id] = await storesNamed(api, name, {});
  if (oldest !== made.id) await api.deleteStore(made.id, {});
  return { storeId: oldest, isNewStore: oldest === made.id };
}

async function modelOf(api: OpenFgaApi, storeId: string, model: WriteAuthorizationModelRequest) {
  const { authorization_models: models } = await api.readAuthorizationModels(storeId, 1, undefined, {});
  const newest = models[0];
  if (newest !== undefined && canonical(newest) === canonical(model)) return { modelId: newest.id, isNewModel: false };
  const { authorization_model_id: modelId } = await api.writeAuthorizationModel(storeId, model, {});
  return { modelId, isNewModel: true };
}

async function missingTuples(api: OpenFgaApi, storeId: string, tuples: TupleKey[]): Promise<TupleKey[]> {
  const unique = [...new Map(tuples.map((one) => [`${one.user}\n${one.relation}\n${one.object}`, one])).values()];
  const isMissing: boolean[] = [];
  let next = 0;
  const work = async () => {
    for (let i = next++; i < unique.length; i = next++) isMissing[i] = !(await isThere(api, storeId, unique[i]!));
  };
  await Promise.all(Array.from({ length: PARALLEL_READS }, work));
  return unique.filter((_, i) => isMissing[i]);
}

async function isThere(api: OpenFgaApi, storeId: string, { user, relation, object, condition }: TupleKey) {
  const { tuples } = await api.read(storeId, { tuple_key: { user, relation, object } }, {});
  const found = tuples[0];
  if (found === undefined) return false;
  if (plain(found.key.condition ?? {}) === plain(condition ?? {})) return true;
  throw new Error(`The tuple ${user} ${relation} ${object} is there under another condition. Delete it first.`);
}

/** The same text for the same model, whatever OpenFGA has added to it: its id, empty fields, another order of keys. */
function canonical({ schema_version, type_definitions, conditions }: WriteAuthorizationModelRequest): string {
  const types = type_definitions
    .map(({ type, relations, metadata }) => ({
      type,
      relations: filled(relations),
      metadata: filled(metadata?.relations),
    }))
    .sort((a, b) => (a.type < b.type ? -1 : 1));
  return plain({ schema_version, types, conditions: filled(conditions) });
}

function filled(value: object | null | undefined): object | undefined {
  return value && Object.keys(value).length > 0 ? value : undefined;
}

/** Without what is empty in the way that protobuf leaves fields empty; `{}` means something in a model and stays. */
function plain(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) => {
    if (part === null || part === '' || (Array.isArray(part) && part.length === 0)) return undefined;
    if (typeof part !== 'object' || Array.isArray(part)) return part;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
