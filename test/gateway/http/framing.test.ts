/** Requests that two parsers could read differently, on a bare socket: refused, and never answered twice. */
import { describe, expect, test } from 'vitest';
import { textStream } from '../../support/chunks.ts';
import { openConnection, type RawConnection } from '../../support/client.ts';
import { Gate } from '../../support/gate.ts';
import { configFor, startGateway } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { ask, contentOf, errorOf, prompt, says, soon } from '../chat.ts';

const BODY = JSON.stringify(prompt('smuggled?'));
const HEAD = 'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n';
const CHUNKED = `${HEAD}Transfer-Encoding: chunked\r\n`;
const LENGTH = `Content-Length: ${BODY.length}\r\n`;
const SECOND = 'GET /health HTTP/1.1\r\nHost: x\r\n\r\n';

/** Everything that comes until the other side closes. */
async function everything(connection: RawConnection): Promise<string> {
  let text = '';
  connection.socket.on('data', (bytes: Buffer) => {
    text += bytes.toString('latin1');
  });
  await connection.closed;
  return text;
}

const SHAPES: Record<string, string | Buffer> = {
  'Content-Length and Transfer-Encoding': `${CHUNKED}${LENGTH}\r\n0\r\n\r\n`,
  'Transfer-Encoding and Content-Length': `${HEAD}${LENGTH}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  'two different lengths': `${HEAD}${LENGTH}Content-Length: 3\r\n\r\n${BODY}`,
  'the same length twice': `${HEAD}${LENGTH}${LENGTH}\r\n${BODY}`,
  'a list of lengths': `${HEAD}Content-Length: ${BODY.length}, ${BODY.length}\r\n\r\n${BODY}`,
  'a length with a sign': `${HEAD}Content-Length: +${BODY.length}\r\n\r\n${BODY}`,
  'a negative length': `${HEAD}Content-Length: -1\r\n\r\n${BODY}`,
  'a length in hexadecimal': `${HEAD}Content-Length: 0x10\r\n\r\n${BODY}`,
  'a length beyond all numbers': `${HEAD}Content-Length: 99999999999999999999999\r\n\r\n${BODY}`,
  'chunked not last': `${HEAD}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`,
  'chunked twice': `${HEAD}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  'an unknown coding': `${HEAD}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`,
  'a chunk size that is no number': `${CHUNKED}\r\nzz\r\n{}\r\n0\r\n\r\n`,
  'a chunk size with a sign': `${CHUNKED}\r\n-1\r\n{}\r\n0\r\n\r\n`,
  'a chunk size beyond all numbers': `${CHUNKED}\r\nfffffffffffffffff\r\n{}`,
  'a chunk longer than its size': `${CHUNKED}\r\n2\r\n{}x\r\n0\r\n\r\n`,
  'a folded header': `${HEAD}X-A: b\r\n c\r\n${LENGTH}\r\n${BODY}`,
  'a header without a colon': `${HEAD}NoColon\r\n${LENGTH}\r\n${BODY}`,
  'a space before the colon': `${HEAD}Content-Length : ${BODY.length}\r\n\r\n${BODY}`,
  'a header without a name': `${HEAD}: x\r\n${LENGTH}\r\n${BODY}`,
  'a bare LF after a header': `POST /v1/chat/completions HTTP/1.1\nHost: x\n${LENGTH.replace('\r', '')}\n${BODY}`,
  'a bare CR in a header': `${HEAD}X-A: b\rX-B: c\r\n${LENGTH}\r\n${BODY}`,
  'a NUL in a header': `${HEAD}X-A: b\0c\r\n${LENGTH}\r\n${BODY}`,
  'a NUL in the path': `GET /v1/mod\0els HTTP/1.1\r\nHost: x\r\n\r\n`,
  'a space in the path': `GET /v1/models /x HTTP/1.1\r\nHost: x\r\n\r\n`,
  'an unknown version': `GET /v1/models HTTP/9.9\r\nHost: x\r\n\r\n`,
  'HTTP/2 without negotiation': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  'TLS on the plain port': Buffer.from('16030100a5010000a10303', 'hex'),
  'no HTTP at all': 'SSH-2.0-OpenSSH_9.6\r\n\r\n',
};

describe('refused with 400 and closed, whatever follows', () => {
  test.each(Object.entries(SHAPES))('%s', async (_name, bytes) => {
    await using upstream = await startScriptedUpstream();
    upstream.always(says());
    await using gateway = await startGateway(configFor(upstream.url));
    const connection = await openConnection(gateway.url);
    const text = everything(connection);
    await connection.send(Buffer.concat([Buffer.from(bytes), Buffer.from(SECOND)]));
    const answers = (await text).match(/HTTP\/1\.1 \d{3}/g);
    expect(answers).toEqual(['HTTP/1.1 400']);
    expect(await text).toMatch(/\r\nconnection: close\r\n/i);
    const body = JSON.parse((await text).split('\r\n\r\n')[1]!) as { error: object };
    expect(body.error).toMatchObject({ code: 'invalid_request', type: 'invalid_request_error', param: null });
    expect(upstream.requests).toEqual([]);
  });
});

test('a head that is too long is 431, in the shape of every error', async () => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway(configFor(upstream.url, { limits: { headers: '4KiB' } }));
  const connection = await openConnection(gateway.url);
  await connection.send(`${HEAD}X-Long: ${'x'.repeat(8_192)}\r\n\r\n`);
  expect(await errorOf(await connection.response())).toMatchObject({ status: 431, code: 'invalid_request' });
});

test.each([
  ['in its head', HEAD],
  ['in its body', `${HEAD}Content-Length: 5\r\n\r\n{`],
  ['in its first line', 'POST /v1/ch'],
])('a request that stops %s is 408', async (_where, bytes) => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway(configFor(upstream.url, { limits: { bodyTime: '200ms' } }));
  const connection = await openConnection(gateway.url);
  const text = everything(connection);
  await connection.send(bytes);
  expect(await text).toMatch(/^HTTP\/1\.1 408 .*\r\n\r\n\{"error":\{.*"code":"body_timeout"\}\}$/s);
});

test('a request without a host is refused', async () => {
  await using upstream = await startScriptedUpstream();
  await using gateway = await startGateway(configFor(upstream.url));
  const connection = await openConnection(gateway.url);
  await connection.send('GET /v1/models HTTP/1.1\r\n\r\n');
  expect((await connection.response()).status).toBe(400);
});

test('garbage behind a request that is being answered does not get into its answer', async () => {
  await using upstream = await startScriptedUpstream();
  const gate = new Gate();
  const [first, ...rest] = textStream('Hello there');
  upstream.next({ stream: { events: [first!, gate, ...rest] } });
  await using gateway = await startGateway(configFor(upstream.url));
  const connection = await openConnection(gateway.url);
  const text = everything(connection);
  await connection.request({ path: '/v1/chat/completions', body: prompt('x', { stream: true }) });
  await soon(() => connection.socket.bytesRead).toBeGreaterThan(0);
  await connection.send('NOT HTTP AT ALL\r\n\r\n');
  gate.open();
  // Whether the stream is cut or goes on to its end: nothing may stand in it that the provider did not send.
  expect(await text).not.toContain('400 Bad Request');
});

test('garbage behind a request that waits for its answer is no answer to it', async () => {
  await using upstream = await startScriptedUpstream();
  const gate = new Gate();
  upstream.next({ ...says('the answer'), after: gate });
  await using gateway = await startGateway(configFor(upstream.url));
  const connection = await openConnection(gateway.url);
  await connection.request({ path: '/v1/chat/completions', body: prompt() });
  await upstream.arrived();
  const text = everything(connection);
  await connection.send('NOT HTTP AT ALL\r\n\r\n');
  gate.open();
  expect((await text).match(/HTTP\/1\.1 \d+/g)?.length ?? 0).toBeLessThanOrEqual(1);
  expect((await ask(gateway).then((response) => response.status)) > 0).toBe(true);
});

test('HTTP/1.0 is answered without chunks, a stream too', async () => {
  await using upstream = await startScriptedUpstream();
  upstream.next(says('whole'), { stream: { events: textStream('streamed', { size: 100 }) } });
  await using gateway = await startGateway(configFor(upstream.url));
  const old = HEAD.replace('1.1', '1.0');
  const whole = await openConnection(gateway.url);
  await whole.send(`${old}${LENGTH}\r\n${BODY}`);
  expect(await contentOf(await whole.response())).toBe('whole');
  const stream = await openConnection(gateway.url);
  const body = JSON.stringify(prompt('x', { stream: true }));
  await stream.send(`${old}Content-Length: ${body.length}\r\n\r\n${body}`);
  const response = await stream.response();
  expect(response.header('transfer-encoding')).toBeUndefined();
  expect(await response.text()).toMatch(/streamed.*data: \[DONE\]\n\n$/s);
});
