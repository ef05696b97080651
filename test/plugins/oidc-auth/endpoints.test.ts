import fc from 'fast-check';
import { expect, it, vi } from 'vitest';
import { verdictProblem } from '../../../proto/verdict.ts';
import { CLIENT, startIssuer } from '../../support/issuer.ts';
import { configOf, inputWith, pluginFor } from './support.ts';

vi.spyOn(process, 'emitWarning').mockImplementation(() => {});

/** What strangers send: bytes of any kind, and what looks nearly right. */
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 200 }),
  fc.constantFrom(
    '',
    'a'.repeat(20_000),
    'eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..x.y.z',
    '1~',
    '6~a',
    '%',
    '%ff',
    '&=&=',
  ),
);
const query = fc.oneof(
  text,
  fc.tuple(fc.constantFrom('return', 'state', 'code', 'iss', 'error'), text).map(([name, value]) => `${name}=${value}`),
);
const cookie = fc.oneof(
  text,
  fc
    .tuple(fc.constantFrom('wardgate', 'wardgate-login', 'wardgate.1'), text)
    .map(([name, value]) => `${name}=${value}`),
);

it('answers soundly at its own paths, whatever is sent there (property)', async () => {
  await using issuer = await startIssuer();
  const login = {
    clientId: CLIENT.id,
    clientSecret: CLIENT.secret,
    publicUrl: 'https://gw.example',
    cookieSecret: 'c'.repeat(32),
  };
  await using plugin = pluginFor(configOf(issuer, {}, { login, resource: 'https://gw.example' }));
  const paths = fc.constantFrom(...plugin.describe().endpoints!, '/elsewhere');
  const headers = fc.record({ cookie, accept: text, 'content-type': text, origin: text, 'sec-fetch-site': text });
  await fc.assert(
    fc.asyncProperty(paths, fc.constantFrom('GET', 'POST'), headers, query, text, async (...sent) => {
      const [path, method, all, search, body] = sent;
      const { request } = inputWith(all, { path, method });
      const answer = await plugin.endpoint!({ request, query: search, body });
      expect(verdictProblem('endpoint', {}, answer)).toBeUndefined();
      expect(answer.respond.status).toBeLessThan(500);
      const { location } = answer.respond.headers ?? {};
      if (location !== undefined) expect(location).toMatch(new RegExp(`^(?:https://gw\\.example/|${issuer.url}/)`));
      expect(answer.respond.cookies?.join() ?? '').not.toMatch(/[\r\n]|wardgate=[^;]/);
    }),
    { numRuns: 1_000 },
  );
});
