/** The command line for issued keys: issue, list, show, revoke and rotate them in Redis. */
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { durationMs } from '../../proto/config.ts';
import { DURATION } from './duration.ts';
import { budget, models, text } from './grants.ts';
import { DEFAULT_PREFIX, digestOf, idOf, newKey, startOf } from './key.ts';
import { type KeyRecord, stateOf } from './record.ts';
import { RedisStore } from './store.ts';

const HELP = `Issues, lists, revokes and rotates API keys. They are kept in Redis, and only their SHA-256 is.

  npm run -s keys -- issue --subject WHO [options]   a new key, shown this once
  npm run -s keys -- list [--json]
  npm run -s keys -- show ID
  npm run -s keys -- revoke ID                       it stops within seconds, without a restart
  npm run -s keys -- rotate ID [--grace 24h]         a new key for the same holder; the old one goes on for the grace

Without npm: node plugins/api-key-auth/keys.ts issue …

Options of issue (rotate has --expires and --prefix)
  --subject WHO         stable id of the person or program that holds the key
  --name TEXT           what the key is for
  --username NAME, --tenant NAME, --groups A,B, --roles A,B
                        the rest of the identity
  --models A,B*         the models that it may use; a * at the end stands for any ending. Default: all
  --expires 90d         after this time, or at an ISO date such as 2027-01-31; default: never, or with rotate the time
                        that the old key was given
  --budget-usd N, --budget-tokens N, --budget-per 24h
                        handed on with the identity, for a plugin that counts
  --prefix TEXT         what the key begins with; default ${DEFAULT_PREFIX}

Options of all
  --redis URL           such as redis://localhost:6379                   environment: REDIS_URL
  --namespace TEXT      what the names of all entries begin with; default wardgate:keys:
  --json                print JSON
  --help                this text

The key goes to standard output, all else to standard error: KEY=$(npm run -s keys -- issue --subject ci)
Exit codes: 0 done, 1 it failed, 2 the command was not understood.
`;

const string = { type: 'string' } as const;
const OPTIONS = {
  subject: string,
  name: string,
  username: string,
  tenant: string,
  groups: string,
  roles: string,
  models: string,
  expires: string,
  'budget-usd': string,
  'budget-tokens': string,
  'budget-per': string,
  prefix: string,
  grace: string,
  redis: string,
  namespace: string,
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

type Options = ReturnType<typeof readArguments>['values'];

/** What a command works with. */
interface Task {
  store: RedisStore;
  options: Options;
  /** Empty where the command wants none. */
  id: string;
}

type Option = keyof Options;

const COMMON: Option[] = ['redis', 'namespace', 'json', 'help'];
const OF_HOLDER: Option[] = ['subject', 'name', 'username', 'tenant', 'groups', 'roles', 'models'];
const OF_BUDGET: Option[] = ['budget-usd', 'budget-tokens', 'budget-per'];

interface Command {
  wantsId: boolean;
  options: Option[];
  run(task: Task): Promise<void>;
}

const COMMANDS: Record<string, Command> = {
  issue: { wantsId: false, options: [...OF_HOLDER, ...OF_BUDGET, 'expires', 'prefix'], run: issue },
  list: { wantsId: false, options: [], run: list },
  show: { wantsId: true, options: [], run: show },
  revoke: { wantsId: true, options: [], run: revoke },
  rotate: { wantsId: true, options: ['grace', 'expires', 'prefix'], run: rotate },
};

/** The command cannot be understood: exit code 2. */
class Misuse extends Error {}

async function main(): Promise<void> {
  const { values: options, positionals } = readArguments();
  const [name, id = '', ...more] = positionals;
  if (options.help) return void process.stdout.write(HELP);
  const command = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined)
    throw new Misuse(`Say what to do: ${Object.keys(COMMANDS).join(', ')}. --help tells more.`);
  if (more.length > 0 || (!command.wantsId && id !== '')) throw new Misuse(`${name} does not want that many words.`);
  if (command.wantsId && !/^[0-9a-f]{16}$/.test(id)) {
    throw new Misuse(`Say which key by its id, 16 hexadecimal digits that \`list\` shows: ${name} 3f1c9a0b5d7e2468`);
  }
  const stray = Object.keys(options).find((option) => ![...command.options, ...COMMON].includes(option as Option));
  if (stray !== undefined) throw new Misuse(`--${stray} does not go with ${name}.`);
  const store = await open(options);
  try {
    await command.run({ store, options, id });
  } finally {
    store.close();
  }
}

function readArguments() {
  try {
    return parseArgs({ allowPositionals: true, options: OPTIONS });
  } catch (error) {
    throw new Misuse((error as Error).message.split('\n')[0]);
  }
}

async function open({ redis, namespace = 'wardgate:keys:' }: Options): Promise<RedisStore> {
  const url = redis || process.env.REDIS_URL;
  if (!url) throw new Misuse('Say where the keys are kept: --redis redis://localhost:6379, or REDIS_URL.');
  const parsed = URL.parse(url);
  if (parsed === null || !/^rediss?:$/.test(parsed.protocol)) throw new Misuse('--redis wants redis:// or rediss://.');
  const store = new RedisStore({ url, namespace }, false);
  try {
    await Promise.race([store.ready(), silence()]);
  } catch (error) {
    // The URL may hold a password.
    store.close();
    const reason = (error as Error).message || (error as { code?: string }).code;
    throw new Error(`Redis at ${parsed.host} cannot be used (${reason}). Start it, or name another with --redis.`);
  }
  return store;
}

/** How long Redis may take to say the first word, in milliseconds. */
const PATIENCE_MS = 5_000;

async function silence(): Promise<never> {
  await setTimeout(PATIENCE_MS, undefined, { ref: false });
  throw new Error('it takes the connection and says nothing');
}

// --- The commands ---------------------------------------------------------------------------------------------------

async function issue({ store, options }: Task): Promise<void> {
  if (options.subject === undefined) throw new Misuse('Say whose key it is: --subject ci');
  const now = Date.now();
  const holder = checked(HOLDER, {
    subject: options.subject,
    name: options.name,
    username: options.username,
    tenant: options.tenant,
    groups: listOf(options.groups),
    roles: listOf(options.roles),
    models: listOf(options.models),
    budget: budgetOf(options),
  });
  const expires = options.expires === undefined ? undefined : momentOf(options.expires, now);
  const key = make(options, { ...holder, expires }, now);
  await store.add(key.id, key.record);
  tell(key, options);
}

/** The new key is stored first and shown last: should the old one be revoked in between, it is taken back unseen. */
async function rotate({ store, options, id }: Task): Promise<void> {
  const { grace = '24h' } = options;
  if (!DURATION.test(grace)) throw new Misuse('--grace wants a number and its unit, such as 30m, 24h or 0s.');
  const now = Date.now();
  const old = await found(store, id);
  mustWork(old, now);
  const { version: _version, digest: _digest, start: _start, created: _created, ...holder } = old;
  const expires = options.expires === undefined ? sameTimeAgain(old, now) : momentOf(options.expires, now);
  const next = make(options, { ...holder, expires }, now);
  await store.add(next.id, next.record);
  const replaced = (record: KeyRecord): KeyRecord => {
    mustWork(record, now);
    const end = Math.min(now + durationMs(grace), record.expires === undefined ? Infinity : Date.parse(record.expires));
    return { ...record, expires: new Date(end).toISOString(), replacedBy: next.id };
  };
  const changed = await store.change(id, replaced).catch(async (error: unknown) => {
    await store.remove(next.id);
    throw error;
  });
  tell(next, options);
  say(`The old key ${id} stops at ${changed?.expires}.`);
}

async function revoke({ store, id }: Task): Promise<void> {
  const now = new Date().toISOString();
  const record = await store.change(id, (one) => ({ ...one, revoked: one.revoked ?? now }));
  if (record === undefined) throw missing(id);
  say(`Key ${id} of ${record.subject} is revoked. Every gateway that reaches this Redis refuses it within seconds.`);
}

async function show({ store, options, id }: Task): Promise<void> {
  const record = await found(store, id);
  if (options.json) return print(shown(id, record));
  for (const [name, value] of Object.entries(shown(id, record))) {
    process.stdout.write(`${name.padEnd(12)}${typeof value === 'string' ? value : JSON.stringify(value)}\n`);
  }
}

async function list({ store, options }: Task): Promise<void> {
  const keys: Record<string, unknown>[] = [];
  for await (const [id, record] of store.all()) keys.push(shown(id, record));
  keys.sort((a, b) => String(a.created).localeCompare(String(b.created)));
  if (options.json) return print(keys);
  if (keys.length === 0) return say('There are no keys yet. Issue one: npm run -s keys -- issue --subject WHO');
  const columns = ['id', 'start', 'state', 'subject', 'name', 'created', 'expires', 'revoked', 'models'];
  const rows = keys.map((key) => columns.map((column) => String(key[column] ?? '-')));
  const widths = columns.map((column, i) => Math.max(column.length, ...rows.map((row) => row[i]!.length)));
  for (const row of [columns, ...rows]) {
    process.stdout.write(
      `${row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd()}\n`,
    );
  }
}

// --- Their parts ----------------------------------------------------------------------------------------------------

const HOLDER = z.object({
  subject: text,
  name: text.optional(),
  username: text.optional(),
  tenant: text.optional(),
  groups: z.array(text).optional(),
  roles: z.array(text).optional(),
  models: models.optional(),
  budget: budget.optional(),
});

type Holder = Omit<KeyRecord, 'version' | 'digest' | 'start' | 'created'>;

interface MadeKey {
  key: string;
  id: string;
  record: KeyRecord;
}

function make({ prefix = DEFAULT_PREFIX }: Options, holder: Holder, now: number): MadeKey {
  if (!/^[0-9A-Za-z_-]{0,32}$/.test(prefix)) throw new Misuse('--prefix wants up to 32 letters, digits, - and _.');
  const key = newKey(prefix);
  const digest = digestOf(key);
  const own = { version: 1, digest: digest.toString('hex'), start: startOf(key, prefix) } as const;
  return { key, id: idOf(digest), record: { ...own, created: new Date(now).toISOString(), ...holder } };
}

function tell({ key, id, record }: MadeKey, { json }: Options): void {
  if (json) print({ ...shown(id, record), key });
  else process.stdout.write(`${key}\n`);
  say(`Key ${id} of ${record.subject}. It is shown this once: only its SHA-256 is kept.`);
}

/** The end of a key that lasts as long as the old one was to last. */
function sameTimeAgain({ created, expires }: KeyRecord, now: number): string | undefined {
  if (expires === undefined) return undefined;
  return new Date(now + Date.parse(expires) - Date.parse(created)).toISOString();
}

async function found(store: RedisStore, id: string): Promise<KeyRecord> {
  const record = await store.get(id);
  if (record === undefined) throw missing(id);
  return record;
}

function missing(id: string): Error {
  return new Error(`There is no key ${id}. \`list\` shows those that there are.`);
}

function mustWork(record: KeyRecord, now: number): void {
  const state = stateOf(record, now);
  if (state !== undefined) throw new Error(`This key is ${state} already. Issue a new one.`);
  if (record.replacedBy !== undefined) throw new Error(`This key was replaced already: rotate ${record.replacedBy}.`);
}

/** A key for people and programs: all but its digest. */
function shown(id: string, record: KeyRecord): Record<string, unknown> {
  const { version: _version, digest: _digest, start, ...rest } = record;
  return { id, start: `${start}…`, state: stateOf(record, Date.now()) ?? 'works', ...rest };
}

function listOf(written: string | undefined): string[] | undefined {
  return written?.split(',').map((one) => one.trim());
}

function budgetOf(options: Options): object | undefined {
  const { 'budget-usd': usd, 'budget-tokens': tokens, 'budget-per': per } = options;
  if (usd === undefined && tokens === undefined && per === undefined) return undefined;
  return { usd: usd && Number(usd), tokens: tokens && Number(tokens), per };
}

/** A time from now, or an ISO date, as ISO in UTC. */
function momentOf(written: string, now: number): string {
  const at = DURATION.test(written) ? now + durationMs(written) : Date.parse(written);
  const isDate = DURATION.test(written) || /^\d{4}-\d\d-\d\d(T.*(Z|[+-]\d\d:\d\d))?$/.test(written);
  if (!isDate || !(Math.abs(at) < 8e15)) {
    throw new Misuse(
      '--expires wants a time such as 90d or 12h, or a date such as 2027-01-31 or 2027-01-31T18:00:00Z.',
    );
  }
  if (at <= now) throw new Misuse('--expires lies in the past; the key would never work.');
  return new Date(at).toISOString();
}

function checked<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const lines = result.error.issues.map((issue) => `--${optionOf(issue.path)}: ${issue.message}`);
  throw new Misuse(lines.join('\n'));
}

function optionOf([first, second]: PropertyKey[]): string {
  return first === 'budget' && typeof second === 'string' ? `budget-${second}` : String(first);
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

main().catch((error: Error) => {
  say(error.message);
  process.exitCode = error instanceof Misuse ? 2 : 1;
});
