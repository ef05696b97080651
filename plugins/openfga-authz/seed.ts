/**
 * Puts a model and tuples into OpenFGA, and makes the store for them:
 *
 *     node plugins/openfga-authz/seed.ts --api-url http://localhost:8080 --store wardgate \
 *       --model deploy/openfga/model.json --tuples deploy/openfga/tuples.yaml
 *
 * It waits until OpenFGA is there. Run again, it writes only what is not there yet; it deletes nothing.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { FgaApiError, type OpenFgaApi } from '@openfga/sdk';
import { parse } from 'yaml';
import type { z } from 'zod';
import { STORE_NAME } from './config.ts';
import { apiOf } from './fga.ts';
import { MODEL, type Seeded, seed, TUPLES } from './seeding.ts';
import { storesNamed } from './store.ts';

const HELP = `Puts an authorization model and tuples into OpenFGA. Run again, it writes only what is not there yet.

  node plugins/openfga-authz/seed.ts --api-url URL --store NAME --model FILE [--tuples FILE]

  --api-url URL    where OpenFGA answers HTTP (environment: FGA_API_URL)
  --store NAME     the store, which is made if it is not there; default: wardgate
  --model FILE     the model as JSON (from the DSL: fga model transform --file model.fga > model.json)
  --tuples FILE    a list of { user, relation, object } as YAML or JSON
  --wait SECONDS   how long OpenFGA may take to come up; default: 60
Environment: FGA_API_TOKEN, a preshared key
`;
const PAUSE_MS = 500;
const STATUS = { done: 0, failed: 1, usage: 2 };

class UsageError extends Error {}

async function main(): Promise<void> {
  const args = readArguments();
  if (args.help) return void process.stdout.write(HELP);
  const apiUrl = args['api-url'] ?? process.env.FGA_API_URL;
  if (apiUrl === undefined || !URL.canParse(apiUrl))
    throw new UsageError('--api-url wants a URL such as http://localhost:8080');
  if (!STORE_NAME.test(args.store))
    throw new UsageError('--store wants a name of 3 to 64 letters, digits, dashes and dots');
  if (args.model === undefined) throw new UsageError('--model wants a file');
  const model = fileAs(MODEL, args.model);
  const tuples = args.tuples === undefined ? [] : fileAs(TUPLES, args.tuples);
  const token = process.env.FGA_API_TOKEN;
  const api = apiOf({ apiUrl, credentials: token ? { token } : undefined, retries: 2 });
  await untilThere(api, apiUrl, args.store, secondsOf(args.wait));
  const done = await seed(api, { store: args.store, model: model as never, tuples: tuples as never });
  process.stdout.write(report(args.store, done));
}

function readArguments() {
  try {
    return parseArgs({
      options: {
        'api-url': { type: 'string' },
        store: { type: 'string', default: 'wardgate' },
        model: { type: 'string' },
        tuples: { type: 'string' },
        wait: { type: 'string', default: '60' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function secondsOf(written: string): number {
  const seconds = Number(written);
  if (written !== '' && seconds >= 0 && seconds <= 3600) return seconds;
  throw new UsageError('--wait wants a number of seconds, at most 3600');
}

/** JSON is YAML, so one reader does for both. */
function fileAs<Schema extends z.ZodType>(schema: Schema, file: string): z.output<Schema> {
  if (file.endsWith('.fga')) {
    throw new UsageError(`${file} is DSL; make JSON of it first: fga model transform --file ${file} > model.json`);
  }
  const result = schema.safeParse(contentOf(file));
  if (result.success) return result.data;
  const problems = result.error.issues.map(({ path, message }) => `  ${path.join('.') || 'file'}: ${message}`);
  throw new UsageError([`${file} cannot be used:`, ...problems].join('\n'));
}

function contentOf(file: string): unknown {
  try {
    return parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new UsageError(`${file} cannot be read: ${(error as Error).message}`);
  }
}

/** A server that is only starting refuses connections, or answers 5xx; one that refuses what it is asked goes on so. */
async function untilThere(api: OpenFgaApi, apiUrl: string, store: string, seconds: number): Promise<void> {
  const until = performance.now() + seconds * 1000;
  for (;;) {
    try {
      return void (await storesNamed(api, store, { timeout: 5000 }));
    } catch (error) {
      if (isRefusal(error)) throw error;
      if (performance.now() >= until) throw new Error(`OpenFGA did not answer at ${apiUrl} within ${seconds} s.`);
    }
    await sleep(PAUSE_MS);
  }
}

function isRefusal(error: unknown): boolean {
  return error instanceof FgaApiError && error.statusCode !== undefined && error.statusCode < 500;
}

function report(store: string, { storeId, isNewStore, modelId, isNewModel, written, present }: Seeded): string {
  return [
    `store ${store} (${storeId}): ${isNewStore ? 'made' : 'there already'}`,
    `model ${modelId}: ${isNewModel ? 'written' : 'there already'}`,
    `tuples: ${written} written, ${present} there already`,
    '',
  ].join('\n');
}

/** What OpenFGA says of a model or a tuple that it refuses is what the operator wants to read. */
function sentence(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (!(error instanceof FgaApiError)) return error.message;
  const { statusCode, apiErrorMessage } = error as FgaApiError & { apiErrorMessage?: unknown };
  return `OpenFGA answered ${statusCode}: ${typeof apiErrorMessage === 'string' ? apiErrorMessage : error.message}`;
}

main().catch((error: unknown) => {
  const isUsage = error instanceof UsageError;
  process.stderr.write(`seed: ${sentence(error)}\n${isUsage ? 'See --help.\n' : ''}`);
  process.exitCode = isUsage ? STATUS.usage : STATUS.failed;
});
