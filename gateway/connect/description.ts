/** Is what a plugin says of itself something the gateway can work with? */
import { CONTRACT_VERSION, type Description, HOOKS, type Hook } from '../../proto/contract.ts';

/**
 * Says what is wrong with a description as the end of a sentence that begins with the plugin's name, or answers
 * `undefined` when it is sound.
 */
export function descriptionProblem(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null) return 'does not describe itself';
  const { contract, name, version, hooks, rewrites, gate } = value as Partial<Record<keyof Description, unknown>>;
  if (contract !== CONTRACT_VERSION) {
    return `speaks version ${String(contract).slice(0, 20)} of the contract, this gateway speaks ${CONTRACT_VERSION}`;
  }
  if (!isText(name) || !isText(version)) return 'describes itself without a name or a version';
  if (!isHooks(hooks)) return `must describe its hooks as a list of ${Object.keys(HOOKS).join(', ')}`;
  if (rewrites !== undefined && typeof rewrites !== 'boolean') return 'must describe `rewrites` as true or false';
  if (gate !== undefined && typeof gate !== 'string') return 'must describe its gate as a string';
  return undefined;
}

/** The same description, whatever order its keys came in. */
export function sameDescription(one: Description | undefined, other: Description): boolean {
  return one !== undefined && stable(one) === stable(other);
}

function stable(value: object): string {
  return JSON.stringify(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function isHooks(value: unknown): value is Hook[] {
  return Array.isArray(value) && value.length > 0 && value.every((one) => typeof one === 'string' && isHook(one));
}

function isHook(name: string): name is Hook {
  return Object.hasOwn(HOOKS, name);
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= 200;
}
