/** The gateway behind a real nginx. No clock: the upstream holds back until the client has read. */
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { textStream } from '../support/chunks.ts';
import { type RawResponse, send } from '../support/client.ts';
import { Gate } from '../support/gate.ts';
import { configFor, startGateway, type TestGateway } from '../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { type Nginx, NO_NGINX, startNginx } from './nginx.ts';

const SETTINGS = readFileSync('deploy/cdn/nginx.conf', 'utf8');

let upstream: ScriptedUpstream;
let nginx: Nginx;

describe.skipIf(NO_NGINX)('nginx with deploy/cdn/nginx.conf', () => {
  beforeEach(async () => {
    upstream = await startScriptedUpstream();
    nginx = await startNginx(inFrontOf(upstream.url));
  });
  afterEach(async () => {
    await nginx?.stop();
    await upstream.close();
  });

  test('lets a stream drip, though nothing in its headers asks for that', drips);

  test('compresses no stream, whatever the client accepts', async () => {
    upstream.next({ stream: { events: textStream('word '.repeat(500)) } });
    const response = await post({ 'Accept-Encoding': 'gzip, deflate, br' });
    expect(response.header('content-encoding')).toBeUndefined();
    expect(await response.text()).toContain('[DONE]');
  });

  test('closes the upstream when the client leaves', async () => {
    upstream.next({ stream: { events: [textStream('one')[0]!], end: 'open' } });
    const response = await post();
    await readUntil(response, response.chunks, 'data:');
    response.connection.destroy();
    expect(await (await upstream.arrived()).closed).toBe('left');
  });

  test('passes on a broken stream as broken, and asks nobody a second time', async () => {
    upstream.next({ stream: { events: textStream('one'), end: 'cut' } });
    const response = await post();
    await expect(response.bytes()).rejects.toThrow();
    upstream.next({ fault: 'close' });
    expect((await post()).status).toBe(502);
    expect(upstream.requests).toHaveLength(2);
  });

  test('uses its connections again', async () => {
    upstream.always({ whole: { ok: true } });
    for (let i = 0; i < 3; i += 1) await (await post()).text();
    expect(upstream.connectionsAccepted).toBe(1);
  });
});

describe.skipIf(NO_NGINX)('the gateway', () => {
  let gateway: TestGateway;

  beforeEach(async () => {
    upstream = await startScriptedUpstream();
    gateway = await startGateway(configFor(upstream.url));
  });
  afterEach(async () => {
    await nginx?.stop();
    await gateway.stop();
    await upstream.close();
  });

  test('drips through nginx with deploy/cdn/nginx.conf', async () => {
    nginx = await startNginx(inFrontOf(gateway.url));
    await drips();
  });

  test('drips through an nginx that buffers by default, because its headers say so', async () => {
    nginx = await startNginx(`server { listen $PORT; location / { proxy_pass ${gateway.url}; } }`);
    await drips();
  });
});

/** Each event arrives while the upstream is holding the next one back. */
async function drips(): Promise<void> {
  const events = textStream('one two three');
  const gates = events.map(() => new Gate());
  upstream.next({ stream: { events: events.flatMap((event, i) => [event, gates[i]!]) } });
  const response = await post();
  for (const [i, event] of events.entries()) {
    await readUntil(response, response.chunks, JSON.stringify(event));
    expect(response.received.toString()).not.toContain(JSON.stringify(events[i + 1] ?? '[DONE]'));
    gates[i]!.open();
  }
  expect((await response.bytes()).toString()).toContain('[DONE]');
}

function inFrontOf(url: string): string {
  const [address, port] = ['server 127.0.0.1:3000;', 'listen 80;'];
  expect(SETTINGS).toContain(address);
  expect(SETTINGS).toContain(port);
  const twice = `server ${new URL(url).host};`.repeat(2); // A second one to go to, if it were to try again.
  return SETTINGS.replace(address, twice).replace(port, 'listen $PORT;');
}

function post(headers: Record<string, string> = {}): Promise<RawResponse> {
  return send(`${nginx.url}/v1/chat/completions`, { headers, body: { model: 'any', stream: true, messages: [] } });
}

async function readUntil(response: RawResponse, chunks: AsyncGenerator<Buffer>, text: string): Promise<void> {
  while (!response.received.includes(text)) {
    if ((await chunks.next()).done) throw new Error(`The answer ended without ${text}`);
  }
}
