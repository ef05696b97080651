/** A request for plugins to judge, and questions about it. */
import type {
  AuthenticateInput,
  AuthorizeInput,
  EndpointInput,
  LimitInput,
  ObserveInput,
  RecallInput,
  RememberInput,
  RequestFacts,
  SegmentsInput,
  StreamInput,
} from '../../proto/contract.ts';

export const facts: RequestFacts = {
  id: 'req-1',
  method: 'POST',
  path: '/openai/v1/chat/completions',
  route: '/openai',
  headers: { 'x-team': 'red' },
  context: { tier: 'gold' },
  model: 'gpt-4o-mini',
  provider: 'openai',
  identity: {
    subject: 'jo',
    issuer: 'https://sso.example/realms/demo',
    groups: ['staff'],
    claims: { level: 3, nested: { list: [1, 'two', null] } },
  },
};

export function authenticate(headers: Record<string, string> = {}): AuthenticateInput {
  return { request: { id: 'req-1', method: 'POST', path: '/openai', route: '/openai', headers } };
}

export function authorize(...names: string[]): AuthorizeInput {
  return { request: facts, action: 'model.use', resources: names.map((name) => ({ type: 'model', name })) };
}

export function endpoint(query: string, body = ''): EndpointInput {
  const headers = { cookie: 'a=1; b=2', 'content-type': 'application/x-www-form-urlencoded' };
  return { request: { id: 'req-1', method: 'POST', path: '/echo/callback', route: '', headers }, query, body };
}

export function recall(key: string): RecallInput {
  return { request: facts, key, fingerprint: 'ab12' };
}

export function remember(outcome: RememberInput['outcome']): RememberInput {
  const answer = { status: 200, contentType: 'application/json', body: '' };
  return { ...recall('new'), grant: 'ab12', outcome, ...(outcome === 'answered' && answer) };
}

export function limit(estimatedInputTokens = 10): LimitInput {
  return { request: facts, estimatedInputTokens, maxOutputTokens: 100 };
}

export function prompt(...texts: string[]): SegmentsInput {
  const segments = texts.map((text, i) => ({
    id: String(i),
    role: 'user' as const,
    channel: 'text' as const,
    path: `/messages/${i}/content`,
    text,
  }));
  return { request: facts, segments, history: 'reject' };
}

export function answer(text: string): SegmentsInput {
  const input = prompt(text);
  return { ...input, segments: [{ ...input.segments[0]!, role: 'assistant', path: '/choices/0/message/content' }] };
}

export function window(text: string, last = false, before = ''): StreamInput {
  return { request: facts, channel: '0/text', before, text, last };
}

export function outcome(grant?: string): ObserveInput {
  return {
    request: facts,
    status: 200,
    outcome: 'finished',
    streamed: false,
    upstreamModel: 'gpt-4o-mini-2024',
    provider: 'openai',
    usage: { inputTokens: 10, outputTokens: 0, cachedInputTokens: 0 },
    costUsd: 0,
    durationMs: 12.5,
    firstTokenMs: 3,
    grant,
    trace: [
      {
        plugin: 'pii',
        hook: 'request',
        verdict: 'rewrite',
        findings: [{ label: 'EMAIL', count: 2 }],
        ms: 1.5,
        calls: 1,
      },
    ],
  };
}
