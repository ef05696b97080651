/** What the demo's model says, worked out by hand: the reference that OpenFGA's answers are compared with. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

export const MODEL = 'deploy/openfga/model.json';
export const TUPLES = 'deploy/openfga/tuples.yaml';

/** Runs the seed command. */
export async function seed(
  { apiUrl, store, model = MODEL, tuples, ...more }: Record<'apiUrl' | 'store', string> & Record<string, string>,
  environment: Record<string, string> = {},
): Promise<string> {
  const args = ['plugins/openfga-authz/seed.ts', '--api-url', apiUrl, '--store', store, '--model', model];
  if (tuples !== undefined) args.push('--tuples', tuples);
  for (const [name, value] of Object.entries(more)) args.push(`--${name}`, value);
  const { stdout } = await promisify(execFile)(process.execPath, args, { env: { ...process.env, ...environment } });
  return stdout;
}

/** Names; what is written in OpenFGA is escaped. */
export interface World {
  /** User → organisation. */
  inOrg: [string, string][];
  /** User → team. */
  inTeam: [string, string][];
  /** Organisation → provider. */
  entitled: [string, string][];
  /** User → provider. */
  extra: [string, string][];
  /** Team → provider. */
  teamHasProvider: [string, string][];
  /** Provider → model. */
  owns: [string, string][];
  /** Team → model. */
  teamHasModel: [string, string][];
  /** User → model. */
  granted: [string, string][];
}

/** May a user, who by its token is in these teams as well, use that model? */
export function mayUse(world: World, user: string, groups: string[], model: string): boolean {
  const has = (pairs: [string, string][], a: string, b: string) => pairs.some(([x, y]) => x === a && y === b);
  const isIn = (team: string) => groups.includes(team) || has(world.inTeam, user, team);
  const byTeam = (pairs: [string, string][], thing: string) =>
    pairs.some(([team, target]) => target === thing && isIn(team));
  const providers = world.owns.filter(([, owned]) => owned === model).map(([provider]) => provider);
  const byProvider = (provider: string) =>
    world.entitled.some(([org, target]) => target === provider && has(world.inOrg, user, org)) ||
    has(world.extra, user, provider) ||
    byTeam(world.teamHasProvider, provider);
  return has(world.granted, user, model) || byTeam(world.teamHasModel, model) || providers.some(byProvider);
}
