/** The official client, unmodified, against the gateway: only its base URL is new. */
import OpenAI, {
  APIError,
  APIUserAbortError,
  AuthenticationError,
  InternalServerError,
  PermissionDeniedError,
  RateLimitError,
} from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { choice, chunk, errorBody, textStream, toolCallStream } from '../support/chunks.ts';
import { Gate } from '../support/gate.ts';
import { startGateway, type TestGateway, testPlugin } from '../support/gateway.ts';
import { type ScriptedUpstream, startScriptedUpstream } from '../support/scripted-upstream.ts';
import { REFUSING, routeForEach } from './refusing-plugins.ts';

let simulator: Simulator;
let upstream: ScriptedUpstream;
let gateway: TestGateway;

beforeAll(async () => {
  simulator = await startSimulator({ tokenDelayMs: 0 });
  upstream = await startScriptedUpstream();
  const factories = [
    ...REFUSING,
    testPlugin('broken', {
      limit: () => {
        throw new Error('boom');
      },
    }),
  ];
  gateway = await startGateway(
    {
      providers: {
        simulated: { kind: 'openai-compatible', baseUrl: `${simulator.url}/v1` },
        scripted: { kind: 'openai-compatible', baseUrl: `${upstream.url}/v1` },
      },
      models: { scripted: 'scripted', other: { provider: 'simulated', model: 'gpt-x' }, '*': 'simulated' },
      ...routeForEach(factories),
    },
    { factories },
  );
});

afterAll(async () => {
  await gateway.stop();
  await upstream.close();
  await simulator.close();
});

function client(route = ''): OpenAI {
  return new OpenAI({ baseURL: `${gateway.url}${route}/v1`, apiKey: 'sk-client', maxRetries: 0 });
}

const user = (content: string) => [{ role: 'user' as const, content }];
const TOOLS = ['search_documents', 'clock'].map((name) => ({
  type: 'function' as const,
  function: { name, parameters: { type: 'object', properties: { query: { type: 'string' } } } },
}));

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const one of source) all.push(one);
  return all;
}

describe.each(['', '/pii'])('on the route “%s”', (route) => {
  test.each(['other', 'any-model'])('S0-03 the model %s answers whole and as a stream at one URL', async (model) => {
    const openai = client(route);
    const whole = await openai.chat.completions.create({ model, messages: user('Good morning') });
    expect(whole.choices[0]!.message.content).toBe('You said: Good morning');
    expect(whole.usage!.total_tokens).toBeGreaterThan(0);
    const stream = await openai.chat.completions.create({ model, messages: user('Good morning'), stream: true });
    const chunks = await collect(stream);
    expect(chunks.map((one) => one.choices[0]!.delta.content ?? '').join('')).toBe('You said: Good morning');
    expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe('stop');
  });

  test('S3-01 a stream carries usage exactly when it is asked for', async () => {
    const asked = { model: 'any-model', messages: user('Good morning'), stream: true } as const;
    const without = await collect(await client(route).chat.completions.create(asked));
    expect(without.every((one) => one.choices.length === 1 && !one.usage)).toBe(true);
    const chunks = await collect(
      await client(route).chat.completions.create({ ...asked, stream_options: { include_usage: true } }),
    );
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { total_tokens: expect.any(Number) } });
  });

  test('several choices are kept apart', async () => {
    const asked = { model: 'any-model', messages: user('Hello'), n: 2 };
    const whole = await client(route).chat.completions.create(asked);
    expect(whole.choices.map(({ message }) => message.content)).toEqual(['You said: Hello', 'You said: Hello']);
    const final = await client(route).chat.completions.stream(asked).finalChatCompletion();
    expect(final.choices.map(({ message }) => message.content)).toEqual(['You said: Hello', 'You said: Hello']);
    expect(final.choices.map(({ finish_reason }) => finish_reason)).toEqual(['stop', 'stop']);
  });

  test('S3-06 a tool call streams as separate deltas and is put together by the client', async () => {
    const asked = { model: 'any-model', messages: user('use the tool clock, it is half past nine'), tools: TOOLS };
    const runner = client(route).chat.completions.stream(asked);
    const deltas: string[] = [];
    runner.on('tool_calls.function.arguments.delta', ({ name, arguments_delta }) => {
      expect(name).toBe('clock');
      if (arguments_delta !== '') deltas.push(arguments_delta);
    });
    const { choices } = await runner.finalChatCompletion();
    const [call] = choices[0]!.message.tool_calls!;
    expect(choices[0]!.finish_reason).toBe('tool_calls');
    expect(call).toMatchObject({ function: { name: 'clock' } });
    const text = (call as { function: { arguments: string } }).function.arguments;
    expect(JSON.parse(text)).toEqual({ query: 'use the tool clock, it is half past nine' });
    expect(deltas.join('')).toBe(text);
    expect(deltas.length).toBeGreaterThan(1);
  });

  test('S3-06 parallel tool calls with their fragments taking turns are put together', async () => {
    const calls = [
      { name: 'search_documents', arguments: { query: 'first of all' } },
      { name: 'clock', arguments: { query: 'second to none' } },
    ];
    upstream.next({ stream: { events: toolCallStream(calls, { size: 3, interleaved: true }) } });
    const asked = { model: 'scripted', messages: user('both'), tools: TOOLS };
    const { choices } = await client(route).chat.completions.stream(asked).finalChatCompletion();
    const made = choices[0]!.message.tool_calls as { function: { name: string; arguments: string } }[];
    expect(made.map((call) => [call.function.name, JSON.parse(call.function.arguments) as unknown])).toEqual(
      calls.map((call) => [call.name, call.arguments]),
    );
  });

  test('an error in the middle of a stream is an APIError, after what was said', async () => {
    const gate = new Gate();
    upstream.next({ stream: { events: [chunk([choice(0, { content: 'Hello, ' })]), gate, errorBody('overloaded')] } });
    const stream = await client(route).chat.completions.create({
      model: 'scripted',
      messages: user('Hi'),
      stream: true,
    });
    const said: string[] = [];
    const reading = (async () => {
      for await (const one of stream) {
        said.push(one.choices[0]!.delta.content!);
        gate.open();
      }
    })();
    await expect(reading).rejects.toBeInstanceOf(APIError);
    expect(said).toEqual(['Hello, ']);
  });

  test('a stream that breaks off is an APIError', async () => {
    upstream.next({ stream: { events: textStream('Hello, you').slice(0, -1), end: 'cut' } });
    const stream = await client(route).chat.completions.create({
      model: 'scripted',
      messages: user('Hi'),
      stream: true,
    });
    await expect(collect(stream)).rejects.toMatchObject({ code: 'stream_broken', type: 'server_error' });
  });

  test('aborting ends the call upstream', async () => {
    const index = upstream.requests.length;
    upstream.next({ stream: { events: [chunk([choice(0, { content: 'Hello, ' })])], end: 'open' } });
    const stream = await client(route).chat.completions.create({
      model: 'scripted',
      messages: user('Hi'),
      stream: true,
    });
    for await (const _ of stream) break;
    expect(await upstream.requests[index]!.closed).toBe('left');
    upstream.next({ fault: 'silence' });
    const abort = new AbortController();
    const asked = client(route).chat.completions.create(
      { model: 'scripted', messages: user('Hi') },
      { signal: abort.signal },
    );
    const silent = await upstream.arrived(index + 1);
    abort.abort();
    await expect(asked).rejects.toBeInstanceOf(APIUserAbortError);
    expect(await silent.closed).toBe('left');
  });
});

test('a value in the answer is masked, whole and streamed', async () => {
  const asked = { model: 'any-model', messages: user('I am jane@example.com') };
  const openai = client('/pii');
  const whole = await openai.chat.completions.create(asked);
  const final = await openai.chat.completions.stream(asked).finalChatCompletion();
  for (const { choices } of [whole, final]) expect(choices[0]!.message.content).toBe('You said: I am <EMAIL_1>');
});

test.each([
  ['/nobody', AuthenticationError, 401, 'bad_key'],
  ['/forbidden', PermissionDeniedError, 403, 'not_yours'],
  ['/exhausted', RateLimitError, 429, 'quota'],
  ['/broken', InternalServerError, 503, 'guard_unavailable'],
] as const)('a refusal on %s is the client’s own error class', async (route, kind, status, code) => {
  for (const stream of [false, true]) {
    const asked = client(route).chat.completions.create({ model: 'any-model', messages: user('Hi'), stream });
    const error = await asked.then(
      () => undefined,
      (thrown: unknown) => thrown as APIError,
    );
    expect(error).toBeInstanceOf(kind);
    expect(error).toMatchObject({ status, code, requestID: expect.stringMatching(/.+/) });
    if (status === 429) expect(error!.headers!.get('retry-after')).toBe('7');
  }
});

test.each([
  [400, 400, OpenAI.BadRequestError],
  // The gateway’s own key is not the client’s business.
  [401, 502, InternalServerError],
  [403, 502, InternalServerError],
  [404, 404, OpenAI.NotFoundError],
  [429, 429, RateLimitError],
  [500, 502, InternalServerError],
  [503, 503, InternalServerError],
] as const)('a provider that answers %i is an error of status %i', async (from, status, kind) => {
  for (const stream of [false, true]) {
    const asked = client().chat.completions.create({ model: `error-${from}`, messages: user('Hi'), stream });
    const error = await asked.then(
      () => undefined,
      (thrown: unknown) => thrown as APIError,
    );
    expect(error).toBeInstanceOf(kind);
    expect(error!.status).toBe(status);
  }
});

test('the client’s key never goes upstream', async () => {
  const index = upstream.requests.length;
  upstream.next({ stream: { events: textStream('Hi') } });
  await client()
    .chat.completions.stream({ model: 'scripted', messages: user('Hi') })
    .finalChatCompletion();
  expect(upstream.requests[index]!.headers.flat().join(' ')).not.toContain('sk-client');
});

test('the models are listed', async () => {
  const models = await collect(client().models.list());
  expect(models.map(({ id }) => id)).toEqual(expect.arrayContaining(['scripted', 'other']));
});
