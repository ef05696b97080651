/** A plugin that answers every hook with every field that the contract has, and takes its cue from the text. */
import { ConfigProblem, HOOKS, type Hook, type Plugin, type PluginFactory } from '../../proto/contract.ts';

export const echo: PluginFactory = {
  name: 'echo',
  create(config: unknown): Plugin {
    const { word = 'secret', refuse } = (config ?? {}) as { word?: string; refuse?: boolean };
    if (refuse) throw new ConfigProblem([{ path: ['refuse'], message: 'must not be true' }]);
    return echoWith(word);
  },
};

function echoWith(word: string): Plugin {
  const findings = [{ label: 'WORD', count: 1 }];
  const text: NonNullable<Plugin['request']> = async ({ segments }) => {
    if (segments.some((one) => one.text.includes('forbidden'))) return { reject: fullReject(segments[0]!.id) };
    const hits = segments.filter((one) => one.text.includes(word));
    if (hits.length === 0) return { allow: {} };
    const rewritten = hits.map(({ id, text }) => ({ id, text: text.replaceAll(word, '<W>') }));
    return { rewrite: { segments: rewritten, placeholders: [{ placeholder: '<W>', original: word }], findings } };
  };
  return {
    describe: () => ({
      contract: 1,
      name: 'echo',
      version: '1.2.3',
      hooks: Object.keys(HOOKS) as Hook[],
      rewrites: true,
      gate: 's',
      media: true,
      actions: ['model.use', 'tool.call'],
      body: 1024,
      endpoints: ['/echo/callback', '/.well-known/echo'],
      configSchema: { type: 'object', properties: { word: { type: 'string' } } },
    }),
    authenticate: ({ request }) => {
      const key = request.headers?.authorization;
      if (key === undefined) return { allow: {} };
      if (key === 'Cookie stale') {
        const headers = { 'x-session': 'over' };
        return {
          allow: { challenge: 'Bearer realm="echo"', login: '/echo/login', cookies: ['a=; Max-Age=0', 'b=;'], headers },
        };
      }
      if (key !== 'Bearer good')
        return {
          reject: { code: 'invalid_key', message: 'No.', headers: { 'www-authenticate': 'Bearer' }, cookies: ['a=1'] },
        };
      return {
        allow: { identity: { subject: 'jo', roles: ['a', 'b'], claims: { deep: { list: [true, null, 1.5] } } } },
      };
    },
    authorize: ({ request, resources }) => {
      const isCut = request.body !== undefined && request.bodySize !== Buffer.byteLength(request.body);
      const decisionId = resources.length > 2 ? 'decision-1' : undefined;
      return { allow: { decisions: resources.map(({ name }) => name !== 'dear' && !isCut), decisionId } };
    },
    limit: ({ estimatedInputTokens, maxOutputTokens }) => {
      if (estimatedInputTokens > 1000)
        return { reject: { code: 'over', message: 'Later.', headers: { 'retry-after': '42' }, status: 429 } };
      return {
        allow: {
          headers: { 'x-left': `${estimatedInputTokens}/${maxOutputTokens}` },
          grant: 'grant-1',
          outputTokens: 0,
          renewMs: 1500.5,
        },
      };
    },
    renew: ({ grant }) => {
      if (grant !== 'grant-1') throw new Error('incomplete');
      return undefined;
    },
    recall: ({ key, fingerprint }) => {
      if (key === 'new') return { allow: { grant: fingerprint } };
      return { respond: { status: 200, body: 'ü'.repeat(100_000), contentType: 'application/json' } };
    },
    remember: ({ outcome, status, body, grant }) => {
      const isWhole = outcome === 'answered' && status === 200 && body === '' && grant === 'ab12';
      if (!isWhole && outcome !== 'failed') throw new Error('incomplete');
      return undefined;
    },
    request: text,
    response: text,
    stream: ({ text, before, last }) => {
      if (text.includes('forbidden')) return { reject: { code: 'no', message: 'No.', findings } };
      const hold = last ? '' : text.slice(-4);
      return { release: { release: `${before}|${text.slice(0, text.length - hold.length)}`, hold } };
    },
    observe: ({ grant, usage, trace }) => {
      // Says by its silence that all has arrived.
      if (grant !== 'grant-1' || usage?.outputTokens !== 0 || trace[0]?.findings?.[0]?.count !== 2)
        throw new Error('incomplete');
      return undefined;
    },
    endpoint: ({ request, query, body }) => {
      if (query === '') return { respond: { status: 204 } };
      const cookies = [`q=${query}`, 'other=1'];
      return {
        respond: {
          status: 302,
          headers: { location: `/?${query}` },
          cookies,
          body: `${request.method} ${body}`,
          contentType: 'text/html',
        },
      };
    },
  };
}

function fullReject(id: string) {
  return {
    code: 'bad_word',
    message: 'This is not said here. Say it otherwise.',
    findings: [{ label: 'WORD', count: 1 }],
    segments: [id],
    status: 451,
    headers: { 'x-reason': 'word' },
    body: '{"error":"ü 🙂"}',
    contentType: 'application/json',
  };
}
