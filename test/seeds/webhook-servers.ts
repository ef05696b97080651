/** Guardrail services as the seeds' demo runs them: they know nothing of this gateway. */
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';

interface Message {
  role: string;
  content: string;
}

/** A text's fate: passed, masked into another text, or blocked for a reason. */
type Judge = (text: string) => { masked: string } | { blocked: string } | undefined;

export interface WebhookServer extends AsyncDisposable {
  port: string;
  /** The paths that were asked, with the headers that came along. */
  asked: { path: string; headers: IncomingHttpHeaders }[];
  stop(): Promise<void>;
}

/** Model Armor in mode `balanced`: hate is blocked, an e-mail address masked. */
export function startModelArmor(): Promise<WebhookServer> {
  return startWebhook('Model Armor', (text) => {
    if (/hate all people/.test(text)) return { blocked: 'RAI policy violation' };
    const masked = text.replace(/[\w.]+@[\w.]+\w/g, '[REDACTED]');
    return masked === text ? undefined : { masked };
  });
}

/** Bedrock Guardrails in mode `strict`: an e-mail address is blocked. */
export function startBedrockGuardrails(): Promise<WebhookServer> {
  return startWebhook('Bedrock Guardrails', (text) =>
    /\w@\w/.test(text) ? { blocked: 'PII detected: EMAIL' } : undefined,
  );
}

async function startWebhook(name: string, judge: Judge): Promise<WebhookServer> {
  const asked: WebhookServer['asked'] = [];
  const server = createServer((request, response) => {
    asked.push({ path: request.url ?? '', headers: request.headers });
    void answer(name, judge, request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const stop = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return { port: String((server.address() as AddressInfo).port), asked, stop, [Symbol.asyncDispose]: stop };
}

async function answer(name: string, judge: Judge, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method !== 'POST') return void response.writeHead(405).end();
  const { body } = (await json(request)) as { body: { messages?: Message[]; choices?: { message: Message }[] } };
  const messages = body.messages ?? body.choices!.map(({ message }) => message);
  const verdicts = messages.map(({ content }) => judge(content));
  const blocked = verdicts.find((verdict) => verdict && 'blocked' in verdict);
  let action: object = { reason: `No violations detected by ${name}` };
  if (blocked && 'blocked' in blocked) {
    const side = body.messages ? 'Request' : 'Response';
    const text = `${side} rejected by ${name}: BLOCKED: ${blocked.blocked}`;
    action = { body: text, status_code: 403, reason: blocked.blocked };
  } else if (verdicts.some(Boolean)) {
    const masked = messages.map((message, i) => {
      const verdict = verdicts[i];
      return verdict && 'masked' in verdict ? { ...message, content: verdict.masked } : message;
    });
    const shape = body.messages ? { messages: masked } : { choices: masked.map((message) => ({ message })) };
    action = { body: shape, reason: `Content sanitized by ${name}` };
  }
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ action }));
}
