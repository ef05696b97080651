/**
 * Serves Envoy's rate limit protocol, so that an Envoy or an agentgateway counts in the same Redis:
 *
 *     node plugins/rate-limit/envoy.ts --grpc 127.0.0.1:8081 --config deploy/ratelimit/config.yaml
 */
import { parseArgs } from 'node:util';
import { readEnvoyConfig } from './envoy-config.ts';
import { serveEnvoy } from './envoy-service.ts';

const HELP = `Serves Envoy's rate limit protocol (envoy.service.ratelimit.v3) with the limits of a file.

  node plugins/rate-limit/envoy.ts --config FILE [--config FILE …] [--grpc HOST:PORT] [--redis URL]

  --config FILE       limits as envoyproxy/ratelimit reads them, or with settings of our own; see the README
  --grpc HOST:PORT    where to listen; default 0.0.0.0:8081
  --redis URL         redis://host:port, in place of the file's (environment: REDIS_URL)
  --help              this text

Health: grpc.health.v1. SIGTERM finishes what is under way.
`;

async function main(): Promise<void> {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    options: { config: { ...text, multiple: true }, grpc: text, redis: text, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help) return void process.stdout.write(HELP);
  if (values.config === undefined) throw new Error('--config wants a file; --help tells more');
  const address = values.grpc ?? '0.0.0.0:8081';
  if (!/^.+:\d{1,5}$/.test(address)) throw new Error(`--grpc wants HOST:PORT, not ${address}`);
  const config = readEnvoyConfig(values.config);
  const redis = values.redis ?? process.env.REDIS_URL;
  if (redis) config.redis = [addressOf(redis)];
  const log = (line: string) => process.stdout.write(`${line}\n`);
  const server = await serveEnvoy(config, address, log);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => void server.close().then(() => process.exit(0)));
  }
  log(`serves ${config.domains.map(({ domain }) => domain).join(', ')} at ${server.address}`);
}

/** envoyproxy/ratelimit is given host:port alone. */
function addressOf(redis: string): string {
  const url = redis.includes('://') ? redis : `redis://${redis}`;
  if (!/^rediss?:\/\/[^\s/]+/.test(url)) throw new Error('--redis wants an address such as redis://redis:6379');
  return url;
}

main().catch((error: Error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
