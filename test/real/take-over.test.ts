/** S3-04, S3-14: a replica is killed in the middle of an answer, and another one goes on with it to its end. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { askAs, CLIENTS, type Client } from '../failover/clients.ts';
import { type RawResponse, send } from '../support/client.ts';
import { readSse } from '../support/sse.ts';
import { type GatewayProcess, startProcess } from './gateway-process.ts';
import { type OwnRedis, startRedis } from './redis.ts';

const WORDS = Array.from({ length: 40 }, (_, i) => `word${i}`).join(' ');
const PROMPT = `Write to jane.roe@example.com: ${WORDS}`;

let redis: OwnRedis;
let simulator: Simulator;
beforeAll(async () => {
  redis = await startRedis();
  simulator = await startSimulator({ tokenDelayMs: 20 });
});
afterAll(async () => {
  await simulator.close();
  await redis[Symbol.asyncDispose]();
});

/** Some dialects' clients take no ids unless they ask for them. */
const ASKED = { 'x-wardgate-stream-resume': 'true' };

function configOf(rescue: 'continue' | 'replay' | 'off') {
  const base = `${simulator.url}/v1`;
  return {
    redis: redis.url,
    providers: {
      claude: { kind: 'anthropic', baseUrl: base, key: 'k' },
      gpt: { kind: 'openai', baseUrl: base, key: 'k' },
    },
    models: {
      m: {
        rescue,
        targets: [
          { provider: rescue === 'continue' ? 'claude' : 'gpt', model: 'sim' },
          { provider: 'gpt', model: 'sim' },
        ],
      },
    },
    plugins: { pii: { at: 'local:pii-guard', config: { rules: ['email'], action: 'restore' } } },
    routes: { '/': { resume: { store: 'redis' }, plugins: ['pii'] } },
  };
}

/** Two replicas, and a stream that has begun at the first. */
async function begin(client: Client, rescue: 'continue' | 'replay' | 'off') {
  const [a, b] = await Promise.all([startProcess(configOf(rescue)), startProcess(configOf(rescue))]);
  const body = client.body('m', { text: PROMPT, stream: true });
  const response = await send(`${a.url}${client.path('m', true)}`, { body, headers: { ...client.headers, ...ASKED } });
  let text = '';
  for await (const bytes of response.chunks) {
    text += bytes;
    if (text.includes('word9')) break;
  }
  return { a, b, body, text, stream: response.header('x-wardgate-stream-id')! };
}

function resume(b: GatewayProcess, client: Client, body: object, last: string): Promise<RawResponse> {
  return send(`${b.url}${client.path('m', true)}`, { body, headers: { ...client.headers, 'last-event-id': last } });
}

describe.each(['continue', 'replay'] as const)('with `rescue: %s`', (rescue) => {
  test.each(Object.keys(CLIENTS))(
    '%s: the other replica ends the answer, every word once, the mask undone',
    async (dialect) => {
      const client = CLIENTS[dialect]!;
      const { a, b, body, text, stream } = await begin(client, rescue);
      await using _a = a;
      await using _b = b;
      const have = text.slice(0, text.lastIndexOf('\n\n') + 2);
      const last = [...have.matchAll(/^id: (\S+)$/gm)].at(-1)![1]!;
      a.process.kill('SIGKILL');
      const rest = await (await resume(b, client, body, last)).text();
      const ids = [...(have + rest).matchAll(/^id: \S+-(\d+)$/gm)].map(([, number]) => Number(number));
      expect(ids).toEqual(ids.map((_, i) => i + 1));
      expect(rest).not.toContain('stream_broken');
      const whole = await collect(client, have + rest);
      expect(whole, rest).toMatchObject({
        text: `You said: ${PROMPT}`,
        begins: 1,
        ended: true,
        error: undefined,
        broken: [],
      });
      expect(whole.finishes).toHaveLength(1);
      expect(stream).toHaveLength(22);
    },
  );
});

test('with `rescue: off`, or another body, the answer ends as broken', async () => {
  const client = CLIENTS['openai-chat']!;
  const { a, b, body, stream } = await begin(client, 'off');
  await using _a = a;
  await using _b = b;
  a.process.kill('SIGKILL');
  const [off, other] = await Promise.all([
    resume(b, client, body, `${stream}-1`).then(readSse),
    resume(b, client, { ...body, user: 'x' }, `${stream}-1`).then(readSse),
  ]);
  const broken = [off, other].filter(({ errors }) => errors.length > 0);
  // Of two who ask at once the later one reads; the other is cut off.
  expect(broken.length).toBeGreaterThan(0);
  for (const { errors, done } of broken)
    expect({ errors, done }).toMatchObject({ errors: [{ code: 'stream_broken' }], done: false });
});

/** The whole stream, as a client that never noticed would have read it. */
async function collect(client: Client, text: string) {
  const { createServer } = await import('node:http');
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).end(text);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as { port: number };
  try {
    return await askAs(client, `http://127.0.0.1:${port}`, 'm', { text: '', stream: true });
  } finally {
    server.close();
  }
}
