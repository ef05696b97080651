/** Clients that know nothing of resuming read streams that can be resumed as any other. */

import { createOpenAI } from '@ai-sdk/openai';
import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import { streamText } from 'ai';
import OpenAI from 'openai';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';

let simulator: Simulator;
let gateway: TestGateway;
beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0 });
  gateway = await startGateway({
    providers: { up: { kind: 'openai-compatible', baseUrl: `${simulator.url}/v1` } },
    models: { m: 'up' },
    plugins: {},
    routes: { '/': { resume: true } },
  });
});
afterAll(async () => {
  await gateway.stop();
  await simulator.close();
});

const TEXT = 'Say these words again.';
const messages = [{ role: 'user' as const, content: TEXT }];

test('OpenAI’s, chat completions and responses', async () => {
  const client = new OpenAI({ apiKey: 'x', baseURL: `${gateway.url}/v1` });
  let said = '';
  const chat = await client.chat.completions.create({ model: 'm', messages, stream: true });
  for await (const { choices } of chat) said += choices[0]?.delta.content ?? '';
  expect(said).toContain(TEXT);
  const response = client.responses.stream({ model: 'm', input: TEXT });
  expect((await response.finalResponse()).output_text).toContain(TEXT);
});

test('Anthropic’s', async () => {
  const client = new Anthropic({ apiKey: 'x', baseURL: gateway.url });
  const stream = client.messages.stream({ model: 'm', max_tokens: 100, messages });
  expect(await stream.finalText()).toContain(TEXT);
});

test('Vercel’s', async () => {
  const { chat } = createOpenAI({ apiKey: 'x', baseURL: `${gateway.url}/v1` });
  expect(await streamText({ model: chat('m'), prompt: TEXT }).text).toContain(TEXT);
});

test('Google’s, which leaves out events with an id in front: it gets ids only where it asks for them', async () => {
  const asked = { 'x-wardgate-stream-resume': 'true' };
  const path = '/v1beta/models/m:streamGenerateContent?alt=sse';
  const body = JSON.stringify({ contents: [{ role: 'user', parts: [{ text: TEXT }] }] });
  const headers = { 'content-type': 'application/json', ...asked };
  const kept = await fetch(gateway.url + path, { method: 'POST', headers, body });
  expect(await kept.text()).toMatch(/^id: /);
  const client = new GoogleGenAI({ apiKey: 'x', httpOptions: { baseUrl: gateway.url } });
  let said = '';
  const stream = await client.models.generateContentStream({ model: 'm', contents: TEXT });
  for await (const { text } of stream) said += text ?? '';
  expect(said).toContain(TEXT);
});
