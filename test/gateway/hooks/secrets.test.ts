/** What a guard matched, and what a credential was, stands nowhere: not in an answer, a header, the log or a metric. */
import { expect, test } from 'vitest';
import { textStream } from '../../support/chunks.ts';
import { type RawResponse, send } from '../../support/client.ts';
import { configFor, startGateway, type TestGateway } from '../../support/gateway.ts';
import { startScriptedUpstream } from '../../support/scripted-upstream.ts';
import { ask, prompt, says, soon } from '../chat.ts';

const EMAIL = 'jane.roe@example.com';
const CARD = '4111 1111 1111 1111';
const KEY = 'sk-demo-very-secret-123';
const SECRETS = [
  EMAIL,
  CARD,
  CARD.replaceAll(' ', ''),
  KEY,
  'upstream-key',
  'session=77',
  'the-answer-text',
  'the-prompt-text',
];

/** Everything that a gateway has let out, but for the answers that are meant for the client. */
async function outputs(gateway: TestGateway, responses: RawResponse[]): Promise<string> {
  for (const response of responses) await response.text();
  await soon(() => gateway.logged.filter(({ msg }) => msg === 'request').length).toBe(responses.length);
  const metrics = await (await send(`${gateway.metricsUrl}/metrics`)).text();
  const ready = await (await send(`${gateway.metricsUrl}/readyz`)).text();
  const heads = responses.map(({ headers }) => headers.flat().join('\n')).join('\n');
  return [gateway.logText, metrics, ready, heads].join('\n');
}

const keys = { at: 'local:api-key-auth', config: { keys: [{ key: KEY, subject: 'jo' }] } };
const headers = { Authorization: `Bearer ${KEY}`, Cookie: 'session=77', 'X-Api-Key': KEY };
const body = prompt(`the-prompt-text: mail ${EMAIL}, card ${CARD}`);

test.each(['mask', 'restore', 'reject'])('with action %s', async (action) => {
  await using upstream = await startScriptedUpstream();
  upstream.always((request) =>
    request.body.includes('"stream":true')
      ? { stream: { events: textStream(`the-answer-text ${EMAIL}`) } }
      : says(`the-answer-text ${EMAIL}`),
  );
  const plugins = { keys, pii: { at: 'local:pii-guard', config: { rules: ['email', 'credit-card'], action } } };
  const config = configFor(upstream.url, { plugins, trace: { header: true }, log: { level: 'debug' } });
  await using gateway = await startGateway(config, { metrics: true, log: 'debug' });
  const responses = [
    await ask(gateway, body, { headers }),
    await ask(gateway, { ...body, stream: true }, { headers }),
    await ask(gateway, prompt('the-prompt-text'), { headers }),
    await ask(gateway, body, { headers: { Authorization: `Bearer ${KEY}x` } }),
    await ask(gateway, `{"messages": "the-prompt-text ${EMAIL}"`, { headers }),
  ];
  const text = await outputs(gateway, responses);
  expect(SECRETS.filter((secret) => text.includes(secret))).toEqual([]);
  expect(text).toContain('EMAIL_ADDRESS');
  const errors = responses.filter(({ status }) => status !== 200).map(({ received }) => received.toString());
  expect(SECRETS.filter((secret) => errors.join().includes(secret))).toEqual([]);
  const sent = upstream.requests
    .map(({ body: bytes, headers: head }) => bytes.toString() + JSON.stringify(head))
    .join();
  expect([EMAIL, CARD, KEY, 'session=77'].filter((secret) => sent.includes(secret))).toEqual([]);
});

test('with a provider that fails and repeats what it was sent', async () => {
  await using upstream = await startScriptedUpstream();
  upstream.always((request) => ({
    whole: { error: { message: `cannot do ${request.body} for ${request.header('authorization')}` } },
    status: request.body.includes('401') ? 401 : 500,
  }));
  const plugins = { keys, pii: { at: 'local:pii-guard' } };
  await using gateway = await startGateway(configFor(upstream.url, { plugins }), { metrics: true, log: 'debug' });
  const responses = [
    await ask(gateway, body, { headers }),
    await ask(gateway, prompt('the-prompt-text 401'), { headers }),
  ];
  const text = (await outputs(gateway, responses)) + responses.map(({ received }) => received).join();
  expect(SECRETS.filter((secret) => text.includes(secret))).toEqual([]);
});

test('with a plugin that puts what it saw into the error that it throws', async () => {
  await using upstream = await startScriptedUpstream();
  const leaky = {
    name: 'leaky',
    create: () => ({
      describe: () => ({
        contract: 1 as const,
        name: 'leaky',
        version: '1',
        hooks: ['request' as const],
        rewrites: false,
      }),
      request({ segments }: { segments: { text: string }[] }) {
        throw Object.assign(new Error(`cannot parse ${segments[0]!.text}`), { name: `Bad ${segments[0]!.text}` });
      },
    }),
  };
  const config = configFor(upstream.url, { plugins: { leaky: { at: 'local:leaky' } } });
  await using gateway = await startGateway(config, { metrics: true, log: 'debug', factories: [leaky as never] });
  const responses = [await ask(gateway, body)];
  const text = (await outputs(gateway, responses)) + responses.map(({ received }) => received).join();
  expect(SECRETS.filter((secret) => text.includes(secret))).toEqual([]);
});
