/** The vendors' official clients, unmodified, read what the grid holds of every stream; see test/fixtures/README.md. */

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Finish } from '../../gateway/hub/reply.ts';
import { fixtureNames } from '../support/fixture.ts';
import { readPieces } from '../support/hub.ts';
import { saidBy } from '../support/hub-events.ts';
import { bytesOf, DIALECTS, type GridVendor, sentTo, VENDORS } from './rig.ts';

/** What a client's own library makes of a stream; of several answers, the first. */
interface Read {
  /** Refusals included, which are texts of their own in some dialects. */
  text: string;
  calls: { name: string; arguments: unknown }[];
  finish: string | null | undefined;
}

/** Each library at the address of a server that answers with the stream. */
const LIBRARIES: Record<string, (url: string) => Promise<Read>> = {
  async 'openai-chat'(url) {
    const client = new OpenAI({ baseURL: url, apiKey: 'k', maxRetries: 0 });
    const { choices } = await client.chat.completions.stream({ model: 'm', messages: [] }).finalChatCompletion();
    const { message, finish_reason: finish } = choices[0]!;
    const calls = (message.tool_calls ?? []).map((call) => ('function' in call ? called(call.function) : undefined!));
    return { text: (message.content ?? '') + (message.refusal ?? ''), calls, finish };
  },
  async 'openai-responses'(url) {
    const client = new OpenAI({ baseURL: url, apiKey: 'k', maxRetries: 0 });
    const {
      output,
      status,
      incomplete_details: why,
    } = await client.responses.stream({ model: 'm', input: 'x' }).finalResponse();
    const parts = output.flatMap((item) => (item.type === 'message' ? item.content : []));
    const text = parts.map((part) => (part.type === 'refusal' ? part.refusal : part.text)).join('');
    return {
      text,
      calls: output.flatMap((item) => (item.type === 'function_call' ? called(item) : [])),
      finish: why?.reason ?? status,
    };
  },
  async 'anthropic-messages'(url) {
    const client = new Anthropic({ baseURL: url, apiKey: 'k', maxRetries: 0 });
    const {
      content,
      stop_reason: finish,
      stop_details: why,
    } = await client.messages.stream({ model: 'm', max_tokens: 1, messages: [] }).finalMessage();
    const text = content.map((block) => (block.type === 'text' ? block.text : '')).join('');
    const uses = content.filter((block) => block.type === 'tool_use');
    const calls = uses.map(({ name, input }) => ({ name, arguments: input }));
    return { text: text + (why?.explanation ?? ''), calls, finish };
  },
  async gemini(url) {
    const client = new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: url } });
    const read: Read = { text: '', calls: [], finish: undefined };
    for await (const chunk of await client.models.generateContentStream({ model: 'm', contents: 'x' })) {
      const candidate = chunk.candidates?.find(({ index = 0 }) => index === 0);
      for (const { text, thought, functionCall: call } of candidate?.content?.parts ?? []) {
        if (!thought) read.text += text ?? '';
        if (call !== undefined) read.calls.push({ name: call.name ?? '', arguments: call.args });
      }
      read.finish = candidate?.finishReason ?? chunk.promptFeedback?.blockReason ?? read.finish;
    }
    return read;
  },
};

function called(call: { name: string; arguments: string }): Read['calls'][number] {
  return { name: call.name, arguments: JSON.parse(call.arguments || '{}') };
}

/** How each dialect says why an answer ended, where all agree what that is. */
const FINISHES: Partial<Record<Finish, Record<string, string>>> = {
  stop: { 'openai-chat': 'stop', 'openai-responses': 'completed', 'anthropic-messages': 'end_turn', gemini: 'STOP' },
  length: {
    'openai-chat': 'length',
    'openai-responses': 'max_output_tokens',
    'anthropic-messages': 'max_tokens',
    gemini: 'MAX_TOKENS',
  },
  'tool-calls': {
    'openai-chat': 'tool_calls',
    'openai-responses': 'completed',
    'anthropic-messages': 'tool_use',
    gemini: 'STOP',
  },
};

let replayed: Buffer;
const server = createServer((request, response) => {
  request.resume().on('end', () => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(replayed);
  });
});
let url = '';

beforeAll(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => void server.close());

describe.each(DIALECTS)('the official client of $dialect.name', (client) => {
  const read = LIBRARIES[client.dialect.name]!;
  // What compatible servers do otherwise than OpenAI passes as it is to those who speak to them in their own way.
  const isOdd = ({ vendor, provider }: GridVendor) =>
    vendor === 'openai-compatible' && provider.takes.includes(client.dialect.name);
  const vendors = VENDORS.filter((vendor) => vendor.clients.includes(client) && !isOdd(vendor));
  const cells = vendors.flatMap((vendor) =>
    fixtureNames('streams', vendor.vendor).map((name) => ({ vendor, name, of: vendor.vendor })),
  );
  const isError = ({ name }: { name: string }) => /^error(-|$)/.test(name);

  test.each(cells.filter((cell) => !isError(cell)))('reads what $of said: $name', async ({ vendor, name }) => {
    replayed = sentTo(client, vendor, name);
    const events = readPieces(vendor.openReader(), [bytesOf(vendor, name)]);
    const said = saidBy(events.filter((event) => !('choice' in event) || event.choice === 0));
    const found = await read(url);
    expect({ text: found.text, calls: found.calls }).toEqual({
      text: said.text + said.refusal,
      calls: said.calls.map(({ name: tool, arguments: args }) => ({ name: tool, arguments: args })),
    });
    const finish = FINISHES[said.finish!];
    expect(found.finish).toEqual(finish === undefined ? expect.any(String) : finish[client.dialect.name]);
  });

  test.each(cells.filter(isError))('sees that the stream of $of broke: $name', async ({ vendor, name }) => {
    replayed = sentTo(client, vendor, name);
    await expect(read(url)).rejects.toThrow();
  });
});
