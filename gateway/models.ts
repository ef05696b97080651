/** The models that a client may see, and the answers about them. */
import { answerJson } from './answer.ts';
import { GatewayError } from './errors.ts';
import * as hooks from './hooks.ts';
import type { Life } from './life.ts';
import type { Model } from './snapshot.ts';

/** `GET /v1/models`: what the route has and the authorizers let this client see. */
export async function listModels(life: Life): Promise<void> {
  const listed = await visible(life, life.route.models);
  answerJson(life, life.dialect.modelList(listed.map(described)));
}

/** `GET /v1/models/{id}`. A model that the client may not see does not exist for it. */
export async function describeModel(life: Life, name: string): Promise<void> {
  const id = decoded(name);
  const model = life.route.models.find((candidate) => candidate.id === id);
  if (model === undefined || (await visible(life, [model])).length === 0) {
    throw new GatewayError('model_not_found', 'There is no such model here.', { param: 'model' });
  }
  answerJson(life, life.dialect.modelEntry(described(model)));
}

/** Client libraries escape what is in many models' names, such as `/` and `:`. */
function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

function described({ id, targets }: Model): { id: string; ownedBy: string } {
  return { id, ownedBy: targets.map(({ provider }) => provider.name).join(',') };
}

async function visible({ route, record }: Life, models: Model[]): Promise<Model[]> {
  const authorizers = route.hooks.authorize['model.list'];
  if (authorizers === null || models.length === 0) return models;
  const resources = models.map(({ id }) => ({ type: 'model' as const, name: id }));
  const allowed = await hooks.authorize(authorizers, record, { action: 'model.list', resources });
  return models.filter((_model, i) => allowed[i]);
}
