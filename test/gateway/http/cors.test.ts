/** Browsers that call the gateway themselves, as Open WebUI's direct connections do. */
import { describe, expect, test } from 'vitest';
import { textStream } from '../../support/chunks.ts';
import { send } from '../../support/client.ts';
import { configFor, startGateway, testPlugin } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { ask, errorOf, prompt, says } from '../chat.ts';

const ORIGIN = 'https://chat.example';

const asked: string[] = [];
const wall = testPlugin('wall', {
  authenticate({ request }) {
    asked.push(request.method);
    return { reject: { code: 'walled', message: 'Closed.' } };
  },
});

async function start(cors: unknown, plugins: Record<string, Record<string, unknown>> = {}) {
  const upstream = await startScriptedUpstream();
  upstream.always(says());
  const gateway = await startGateway(configFor(upstream.url, { plugins, route: { cors } }), { factories: [wall] });
  return {
    upstream,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

function preflight({ url }: { url: string }, headers: Record<string, string> = {}) {
  return send(`${url}/v1/chat/completions`, {
    method: 'OPTIONS',
    headers: { Origin: ORIGIN, 'Access-Control-Request-Method': 'POST', ...headers },
  });
}

test('S1-31: a preflight without a token passes on a guarded route, and no plugin is asked', async () => {
  asked.length = 0;
  await using rig = await start(true, { wall: { at: 'local:wall' } });
  const response = await preflight(rig.gateway, {
    'Access-Control-Request-Headers': 'authorization,content-type,x-stainless-os',
  });
  expect(response.status).toBe(204);
  expect(response.header('access-control-allow-origin')).toBe('*');
  expect(response.header('access-control-allow-methods')).toContain('POST');
  expect(response.header('access-control-allow-headers')).toBe('authorization,content-type,x-stainless-os');
  expect(response.header('access-control-max-age')).toBe('600');
  expect([await response.text(), asked]).toEqual(['', []]);
});

describe('the actual request', () => {
  test('S1-103: a streamed answer may be read by the page, with its limits', async () => {
    await using rig = await start(true);
    rig.upstream.next({ stream: { events: textStream('Hi') } });
    const response = await ask(rig.gateway, prompt('x', { stream: true }), { headers: { Origin: ORIGIN } });
    expect(response.headerValues('access-control-allow-origin')).toEqual(['*']);
    expect(response.header('access-control-expose-headers')).toMatch(
      /x-request-id.*retry-after.*x-ratelimit-remaining/,
    );
    expect((await readSse(response)).done).toBe(true);
  });

  test('a whole answer, a list of models and every error may be read too', async () => {
    await using rig = await start(true, { wall: { at: 'local:wall', hooks: ['authenticate'] } });
    await using open = await start(true);
    const origin = { headers: { Origin: ORIGIN } };
    for (const response of [
      await ask(open.gateway, prompt(), origin),
      await ask(open.gateway, '{', origin),
      await send(`${open.gateway.url}/v1/models`, origin),
      await send(`${open.gateway.url}/v1/nothing`, origin),
      await ask(rig.gateway, prompt(), origin),
    ]) {
      expect(response.headerValues('access-control-allow-origin'), String(response.status)).toEqual(['*']);
    }
  });
});

describe('a list of origins', () => {
  const cors = { origins: [ORIGIN, 'http://localhost:9999'], headers: ['authorization'], maxAge: '1m' };

  test('lets those pass, one at a time, and says that answers differ', async () => {
    await using rig = await start(cors);
    for (const origin of cors.origins) {
      const response = await preflight(rig.gateway, { Origin: origin });
      expect(response.header('access-control-allow-origin')).toBe(origin);
      expect(response.header('vary')).toBe('origin');
      expect(response.header('access-control-allow-headers')).toBe('authorization');
      expect(response.header('access-control-max-age')).toBe('60');
    }
  });

  test.each(['https://evil.example', `${ORIGIN}.evil.example`, 'null', 'https://CHAT.example'])(
    'and not %s',
    async (origin) => {
      await using rig = await start(cors);
      const before = await preflight(rig.gateway, { Origin: origin });
      const after = await ask(rig.gateway, prompt(), { headers: { Origin: origin } });
      for (const response of [before, after]) {
        expect(response.header('access-control-allow-origin')).toBeUndefined();
        expect(response.header('vary')).toBe('origin');
      }
    },
  );
});

test('without `cors` no page may read anything, and OPTIONS does no harm', async () => {
  await using rig = await start(false);
  const response = await preflight(rig.gateway);
  expect(response.headers.map(([name]) => name).filter((name) => name.startsWith('access-control'))).toEqual([]);
  expect(response.status).toBe(204);
  expect(
    (await ask(rig.gateway, prompt(), { headers: { Origin: ORIGIN } })).header('access-control-allow-origin'),
  ).toBeUndefined();
});

test('a preflight to no route is 404', async () => {
  await using upstream = await startScriptedUpstream();
  const providers = { up: { kind: 'openai-compatible', baseUrl: upstream.url } };
  await using gateway = await startGateway({ providers, models: { m: 'up' }, routes: { '/a': { cors: true } } });
  expect((await errorOf(await preflight(gateway))).status).toBe(404);
});
