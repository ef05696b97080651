/** A model with several providers whose streams break as the test scripts them. */
import { send } from '../../support/client.ts';
import { type StartOptions, startGateway } from '../../support/gateway.ts';
import type { Script, StreamItem, StreamScript } from '../../support/script.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse, type SseResult } from '../../support/sse.ts';
import { samples } from '../prometheus.ts';

type Settings = Record<string, unknown>;

/** What a test may say of its gateway; the rest goes into the config as it is. */
export interface RigParts extends Settings {
  /** Kinds of the providers; two of vLLM by default, which goes on from a prefix. */
  kinds?: string[];
  /** More settings of the model `best`. */
  model?: Settings;
  /** Mounted on the one route in this order. */
  plugins?: Record<string, Settings>;
}

/** A gateway whose model `best` is served by `up[0]`, `up[1]`, …, in this order. */
export async function rig(parts: RigParts = {}, options: StartOptions = {}) {
  const { kinds = ['vllm', 'vllm'], model, plugins = {}, ...settings } = parts;
  const up: ScriptedUpstream[] = [];
  for (const _ of kinds) up.push(await startScriptedUpstream());
  const name = (i: number) => `p${i}`;
  const providers = kinds.map((kind, i) => [name(i), { kind, baseUrl: `${up[i]!.url}/v1`, key: 'k' }]);
  const targets = kinds.map((_, i) => ({ provider: name(i), model: `m${i}` }));
  const gateway = await startGateway(
    {
      providers: Object.fromEntries(providers),
      models: { best: { breaker: false, ...model, targets } },
      plugins,
      routes: { '/': { plugins: Object.keys(plugins) } },
      ...settings,
    },
    { metrics: true, log: 'info', ...options },
  );
  return {
    up,
    gateway,
    /** Asks for a stream and reads it to its end. */
    async stream(body: Settings = {}): Promise<SseResult> {
      return readSse(await send(`${gateway.url}/v1/chat/completions`, { body: chat(body) }));
    },
    async metric(wanted: string): Promise<number | undefined> {
      const text = await (await send(`${gateway.metricsUrl}/metrics`)).text();
      return samples(text).find((one) => one.name === wanted)?.value;
    },
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      for (const one of up) await one.close();
    },
  };
}

/** A chat request for the model; the usage of its stream is asked for. */
export function chat(more: Settings = {}): Settings {
  return {
    model: 'best',
    stream: true,
    stream_options: { include_usage: true },
    messages: [{ role: 'user', content: 'Hello' }],
    ...more,
  };
}

/** A stream of these events that ends in a way of its own; by default it just closes, without a finish. */
export function broken(events: StreamItem[], more: Partial<StreamScript> = {}): Script {
  return { stream: { events, end: 'close-without-done', ...more } };
}

/** An event of a message of Anthropic's. */
export function claudeEvent(body: { type: string } & Settings): string {
  return `event: ${body.type}\ndata: ${JSON.stringify(body)}\n\n`;
}

/** The events of a message of Anthropic's up to its text; `usage` is what its beginning tells. */
export function claudeBegins(inputTokens = 10): string[] {
  const usage = { input_tokens: inputTokens, output_tokens: 1 };
  return [
    claudeEvent({
      type: 'message_start',
      message: { id: 'msg_1', type: 'message', role: 'assistant', model: 'claude', content: [], usage },
    }),
    claudeEvent({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } }),
  ];
}

/** One piece of its text. */
export function claudeSays(text: string, index = 0): string {
  return claudeEvent({ type: 'content_block_delta', index, delta: { type: 'text_delta', text } });
}

/** What ends it. */
export function claudeEnds(outputTokens = 5, index = 0): string[] {
  return [
    claudeEvent({ type: 'content_block_stop', index }),
    claudeEvent({
      type: 'message_delta',
      delta: { stop_reason: 'end_turn', stop_sequence: null },
      usage: { output_tokens: outputTokens },
    }),
    claudeEvent({ type: 'message_stop' }),
  ];
}
