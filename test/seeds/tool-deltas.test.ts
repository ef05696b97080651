/** S3-06, S3-13: the arguments of a tool call are passed on delta by delta, as they come, whoever speaks what. */
import { createParser } from 'eventsource-parser';
import { expect, test } from 'vitest';
import { startSimulator } from '../../simulator/server.ts';
import { CLIENTS } from '../failover/clients.ts';
import { startGateway } from '../support/gateway.ts';

const DELTAS = 100;
const PROMPT = `Please call tool get_weather, with ${DELTAS} deltas.`;

type Json = Record<string, unknown>;

/** The piece of a tool call's arguments that an event carries, by dialect; undefined where it carries none. */
const PIECE: Record<string, (event: Json) => string | undefined> = {
  'openai-chat': ({ choices }) => {
    const [choice] = choices as { delta?: { tool_calls?: { function?: { arguments?: string } }[] } }[];
    return choice?.delta?.tool_calls?.[0]?.function?.arguments || undefined;
  },
  'openai-responses': ({ type, delta }) =>
    type === 'response.function_call_arguments.delta' ? (delta as string) : undefined,
  'anthropic-messages': ({ type, delta }) =>
    type === 'content_block_delta' ? (delta as { partial_json?: string }).partial_json || undefined : undefined,
};

const PAIRS = [
  ['openai-chat', 'openai'],
  ['openai-chat', 'anthropic'],
  ['openai-chat', 'bedrock'],
  ['openai-chat', 'cohere'],
  ['openai-responses', 'openai'],
  ['openai-responses', 'bedrock'],
  ['anthropic-messages', 'anthropic'],
  ['anthropic-messages', 'openai'],
] as const;

test.each(PAIRS)(
  'S3-06, S3-13: %s from %s: a call of 100 deltas arrives as 100 deltas, a guard of texts mounted',
  async (dialect, provider) => {
    const simulator = await startSimulator({ tokenDelayMs: 0 });
    const { url } = simulator;
    const aws = { region: 'us-east-1', accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' };
    await using gateway = await startGateway({
      providers: {
        openai: { kind: 'openai', baseUrl: `${url}/v1`, key: 'k' },
        anthropic: { kind: 'anthropic', baseUrl: `${url}/v1`, key: 'k' },
        cohere: { kind: 'cohere', baseUrl: `${url}/v2`, key: 'k' },
        bedrock: { kind: 'bedrock', baseUrl: url, ...aws },
      },
      models: { m: provider },
      plugins: { pii: { at: 'local:pii-guard', config: { rules: ['email'], action: 'mask' } } },
      routes: { '/': {}, '/guarded': { plugins: ['pii'] } },
    });
    const client = CLIENTS[dialect]!;
    for (const route of ['', '/guarded']) {
      const pieces: string[] = [];
      const parser = createParser({
        onEvent({ data }) {
          const piece = data === '[DONE]' ? undefined : PIECE[dialect]!(JSON.parse(data));
          if (piece !== undefined) pieces.push(piece);
        },
      });
      const response = await fetch(`${gateway.url}${route}${client.path('m', true)}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...client.headers },
        body: JSON.stringify(client.body('m', { text: PROMPT, stream: true, tool: true })),
      });
      parser.feed(await response.text());
      expect(pieces).toHaveLength(DELTAS);
      expect(JSON.parse(pieces.join(''))).toEqual({ city: expect.stringMatching(/^x+$/) });
    }
    await simulator.close();
  },
);
