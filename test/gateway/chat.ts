/** What most tests of the gateway send, and how they read the answer. */
import { expect } from 'vitest';
import { completion } from '../support/chunks.ts';
import { type RawResponse, send } from '../support/client.ts';
import type { Script } from '../support/script.ts';

/** A chat request with one user message. */
export function prompt(text = 'Hello', more: Record<string, unknown> = {}): Record<string, unknown> {
  return { model: 'test-model', messages: [{ role: 'user', content: text }], ...more };
}

/** An upstream's whole answer that says `text`. */
export function says(text = 'Hi there', more: Partial<Script> = {}): Script {
  return { whole: completion(text), ...more } as Script;
}

/** Asks for a chat completion on `route`, which is `/` by default. */
export function ask(
  { url }: { url: string },
  body: object | string | Buffer = prompt(),
  { headers = {}, route = '' }: { headers?: Record<string, string | string[]>; route?: string } = {},
): Promise<RawResponse> {
  const type: Record<string, string> = { 'Content-Type': 'application/json' };
  return send(`${url}${route}/v1/chat/completions`, { body, headers: { ...type, ...headers } });
}

/** OpenAI's error object, as every client of its API reads it. */
export interface ApiError {
  message: string;
  type: string;
  param: string | null;
  code: string;
}

/** Reads an error and insists on its shape: JSON, one object `error`, with exactly the four members. */
export async function errorOf(response: RawResponse): Promise<ApiError & { status: number }> {
  const type = response.header('content-type');
  if (!type?.startsWith('application/json')) throw new Error(`An error of type ${type}: ${await response.text()}`);
  const { error, ...rest } = await response.json<{ error: ApiError }>();
  const members = Object.keys(error).sort().join();
  if (Object.keys(rest).length > 0 || members !== 'code,message,param,type') {
    throw new Error(`Not an error as OpenAI writes it: ${response.received}`);
  }
  return { status: response.status, ...error };
}

/** What a whole answer says. */
export async function contentOf(response: RawResponse): Promise<string> {
  const { choices } = await response.json<{ choices: { message: { content: string } }[] }>();
  return choices[0]!.message.content;
}

/** Looks again and again, every 5 ms, until the value is as expected: for what follows an answer, such as its log line. */
export function soon<T>(value: () => T) {
  return expect.poll(value, { interval: 5, timeout: 10_000 });
}
