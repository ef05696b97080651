/** S1-91 and S1-92 by the demo's own policy, asked as Envoy asks: opa-envoy, or its wire side before a real OPA. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ask, prompt } from '../gateway/chat.ts';
import { startExample } from '../seeds/example.ts';
import { send } from '../support/client.ts';
import { lend } from './opa.ts';
import { realServer } from './servers.ts';

const opa = realServer('opa');
const envoy = realServer('opa-envoy');
const ROUTE = '/opa/openai';
const OPENS = { 'x-opa-passthrough-enabled': 'true' };
const KEY = { authorization: 'Bearer sk-alice' };

async function isKnown(): Promise<boolean> {
  const response = await fetch(`${opa.url}/v1/data/authz/allowed`);
  return ((await response.json()) as { result?: unknown }).result !== undefined;
}

describe.skipIf(!envoy.here)('the demo’s policy', () => {
  let takeBack = async () => {};
  beforeAll(async () => {
    // An OPA that was started with deploy/opa has it already.
    if (!opa.here || (await isKnown())) return;
    takeBack = await lend(opa.url, 'deploy/opa/authz.rego', `wardgate_test_authz_${process.pid}`);
  });
  afterAll(() => takeBack());

  const start = (edit?: (text: string) => string) =>
    startExample('examples/opa.yaml', { environment: { OPA_ENVOY_GRPC: envoy.url } }, edit);

  test('S1-91: gpt-4o without the header is 403 with an empty body', async () => {
    await using example = await start();
    const refused = await ask(example.gateway, prompt('Hello', { model: 'gpt-4o' }), { route: ROUTE });
    expect([refused.status, await refused.text()]).toEqual([403, '']);
  });

  test.each([
    ['without a token', {}],
    ['with one', KEY],
  ])('S1-92: gpt-3.5-turbo with the header is served, %s', async (_title, own) => {
    await using example = await start();
    const body = prompt('Hello', { model: 'gpt-3.5-turbo' });
    const served = await ask(example.gateway, body, { route: ROUTE, headers: { ...OPENS, ...own } });
    expect(served.status).toBe(200);
  });

  test.each([
    ['another model', 'gpt-4o', OPENS],
    ['another value of the header', 'gpt-3.5-turbo', { 'x-opa-passthrough-enabled': 'True' }],
    ['no header', 'gpt-3.5-turbo', {}],
  ])('%s is 403', async (_title, model, headers) => {
    await using example = await start();
    const refused = await ask(example.gateway, prompt('Hello', { model }), { route: ROUTE, headers });
    expect([refused.status, await refused.text()]).toEqual([403, '']);
  });

  test('another environment is 403, and so is a body that is not shown whole', async () => {
    const body = prompt('Hello', { model: 'gpt-3.5-turbo' });
    for (const [from, to] of [
      ['environment: development', 'environment: production'],
      ['body: 8KiB', 'body: 8B'],
      ['body: 8KiB', 'body: 0B'],
    ] as const) {
      await using example = await start((text) => text.replace(from, to));
      expect([to, (await ask(example.gateway, body, { route: ROUTE, headers: OPENS })).status]).toEqual([to, 403]);
    }
  });

  test('a list of models has no model in it, so it is 403, too', async () => {
    await using example = await start();
    const refused = await send(`${example.gateway.url}${ROUTE}/v1/models`, { headers: OPENS });
    expect([refused.status, await refused.text()]).toEqual([403, '']);
  });
});
