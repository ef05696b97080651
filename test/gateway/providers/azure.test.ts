import { describe, expect, test } from 'vitest';
import type { Json } from '../../../gateway/dialects/dialect.ts';
import { azure } from '../../../gateway/providers/azure/provider.ts';
import { streamFixture } from '../../support/fixture.ts';
import { configFor, startGateway, type TestGateway } from '../../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { readSse } from '../../support/sse.ts';
import { ask, errorOf, prompt, says } from '../chat.ts';

function made(settings: Json) {
  const timeouts = { connect: 1, firstByte: 1, idle: 1 };
  return azure.make('az', { kind: 'azure', timeouts, streamUsage: true, unmapped: 'refuse', ...settings });
}

describe('the address', () => {
  const RESOURCE = 'https://res.openai.azure.com';
  const path = (settings: Json, which: 'chat' | 'embeddings' = 'chat') =>
    made(settings).endpoints[which]![0]!.path({ model: 'gpt 4/o', stream: false });

  test.each([
    [{ baseUrl: RESOURCE }, '/openai/v1/chat/completions'],
    [{ baseUrl: `${RESOURCE}/openai/` }, '/openai/v1/chat/completions'],
    [{ baseUrl: `${RESOURCE}/openai/v1/` }, '/openai/v1/chat/completions'],
    [{ baseUrl: `${RESOURCE}/under/it` }, '/under/it/openai/v1/chat/completions'],
    [{ baseUrl: RESOURCE, apiVersion: 'preview' }, '/openai/v1/chat/completions?api-version=preview'],
    [
      { baseUrl: RESOURCE, apiVersion: '2024-06-01' },
      '/openai/deployments/gpt%204%2Fo/chat/completions?api-version=2024-06-01',
    ],
    [
      { baseUrl: `${RESOURCE}/openai`, deployment: 'mini' },
      '/openai/deployments/mini/chat/completions?api-version=2024-10-21',
    ],
  ])('%j is %s', (settings, expected) => {
    expect(path(settings)).toBe(expected);
    expect(path(settings, 'embeddings')).toBe(expected.replace('chat/completions', 'embeddings'));
  });
});

interface Rig extends AsyncDisposable {
  upstream: ScriptedUpstream;
  gateway: TestGateway;
}

async function rigged(provider: Json = {}): Promise<Rig> {
  const upstream = await startScriptedUpstream();
  const settings = { kind: 'azure', baseUrl: upstream.url, ...provider };
  const gateway = await startGateway(configFor(upstream.url, { provider: settings }));
  return {
    upstream,
    gateway,
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await upstream.close();
    },
  };
}

describe('through the gateway', () => {
  test('the key is Azure’s header, and a token is a bearer’s', async () => {
    await using keyed = await rigged();
    keyed.upstream.next(says());
    await ask(keyed.gateway);
    expect(keyed.upstream.requests[0]).toMatchObject({ path: '/openai/v1/chat/completions' });
    expect(keyed.upstream.requests[0]!.header('api-key')).toBe('upstream-key');
    expect(keyed.upstream.requests[0]!.header('authorization')).toBeUndefined();
    await using trusted = await rigged({ token: 'entra' });
    trusted.upstream.next(says());
    await ask(trusted.gateway);
    expect(trusted.upstream.requests[0]!.header('authorization')).toBe('Bearer entra');
    expect(trusted.upstream.requests[0]!.header('api-key')).toBeUndefined();
  });

  test('a stream passes as Azure sends it: the first chunk without choices as well', async () => {
    await using rig = await rigged();
    const stream = streamFixture('openai-compatible', 'azure').toString();
    rig.upstream.next({ stream: { events: [stream], end: 'close-without-done' } });
    const body = prompt('Hi', { stream: true, stream_options: { include_usage: true } });
    expect(await (await ask(rig.gateway, body)).text()).toBe(stream);
  });

  test('a prompt that Azure’s filter stops is the client’s matter, with Azure’s words and code', async () => {
    await using rig = await rigged();
    const error = {
      message: 'The response was filtered due to the prompt triggering content management policy.',
      type: null,
      param: 'prompt',
      code: 'content_filter',
      status: 400,
      innererror: { code: 'ResponsibleAIPolicyViolation' },
    };
    rig.upstream.next({ whole: { error }, status: 400 });
    expect(await errorOf(await ask(rig.gateway))).toMatchObject({
      status: 400,
      code: 'content_filter',
      param: 'prompt',
      message: error.message,
    });
  });

  test('an answer that Azure’s filter cut says so', async () => {
    await using rig = await rigged();
    const stream = streamFixture('openai-compatible', 'azure').toString();
    rig.upstream.next({ stream: { events: [stream], end: 'close-without-done' } });
    const reply = await ask(rig.gateway, prompt('Hi', { stream: true }));
    const finishes = (await readSse(reply)).events.flatMap(({ data }) =>
      data === '[DONE]' ? [] : ((JSON.parse(data) as { choices: Json[] }).choices ?? []),
    );
    expect(finishes.map(({ finish_reason }) => finish_reason)).toContain('content_filter');
  });

  test('a deployment that is not there is told as Azure tells it', async () => {
    await using rig = await rigged({ deployment: 'gone' });
    const error = { code: 'DeploymentNotFound', message: 'The API deployment for this resource does not exist.' };
    rig.upstream.next({ whole: { error }, status: 404 });
    expect(await errorOf(await ask(rig.gateway))).toMatchObject({ status: 404, code: 'DeploymentNotFound' });
    expect(rig.upstream.requests[0]!.path).toBe('/openai/deployments/gone/chat/completions?api-version=2024-10-21');
  });
});
