/** Is what a plugin says of itself something the gateway can work with? */
import { type Action, CONTRACT_VERSION, type Description, HOOKS, type Hook } from '../../proto/contract.ts';

/**
 * Says what is wrong with a description as the end of a sentence that begins with the plugin's name, or answers
 * `undefined` when it is sound.
 */
export function descriptionProblem(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null) return 'does not describe itself';
  const described = value as Partial<Record<keyof Description, unknown>>;
  const { contract, name, version, hooks, rewrites, gate } = described;
  if (contract !== CONTRACT_VERSION) {
    return `speaks version ${String(contract).slice(0, 20)} of the contract, this gateway speaks ${CONTRACT_VERSION}`;
  }
  if (!isText(name) || !isText(version)) return 'describes itself without a name or a version';
  if (!isHooks(hooks)) return `must describe its hooks as a list of ${Object.keys(HOOKS).join(', ')}`;
  if (rewrites !== undefined && typeof rewrites !== 'boolean') return 'must describe `rewrites` as true or false';
  if (gate !== undefined && typeof gate !== 'string') return 'must describe its gate as a string';
  return askedProblem(described);
}

const ACTIONS: Record<Action, true> = { 'model.use': true, 'model.list': true, 'tool.call': true };
/** The most of a body that an authorizer may want, in bytes. */
const MAX_BODY = 1024 * 1024;
const MAX_ENDPOINTS = 32;
/** A normalised path of characters that need no escape. */
const ENDPOINT = /^(?:\/[A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]*|\/\.well-known(?=\/))+$/;

function askedProblem({ actions, body, endpoints }: Partial<Record<keyof Description, unknown>>): string | undefined {
  if (actions !== undefined && !isListOf(actions, (one) => Object.hasOwn(ACTIONS, one))) {
    return `must describe its actions as a list of ${Object.keys(ACTIONS).join(', ')}`;
  }
  if (body !== undefined && !(Number.isInteger(body) && (body as number) >= 0 && (body as number) <= MAX_BODY)) {
    return `must describe \`body\` as a number of bytes, ${MAX_BODY} at most`;
  }
  const areSound =
    isListOf(endpoints ?? [], (one) => ENDPOINT.test(one)) &&
    ((endpoints as string[] | undefined) ?? []).length <= MAX_ENDPOINTS;
  return areSound ? undefined : `must describe its endpoints as a list of at most ${MAX_ENDPOINTS} paths`;
}

/** The same description, whatever order its keys came in. */
export function sameDescription(one: Description | undefined, other: Description): boolean {
  return one !== undefined && stable(one) === stable(other);
}

function stable(value: object): string {
  return JSON.stringify(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function isHooks(value: unknown): value is Hook[] {
  return isListOf(value, isHook) && value.length > 0;
}

function isListOf(value: unknown, isOne: (text: string) => boolean): value is string[] {
  return Array.isArray(value) && value.every((one) => typeof one === 'string' && isOne(one));
}

function isHook(name: string): name is Hook {
  return Object.hasOwn(HOOKS, name);
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= 200;
}
