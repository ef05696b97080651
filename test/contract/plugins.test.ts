/** The plugins that come along, by the contract suite: each in process, over gRPC both ways, and over HTTP. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { apiKeyAuth } from '../../plugins/api-key-auth/plugin.ts';
import { celAuthz } from '../../plugins/cel-authz/plugin.ts';
import { idempotency } from '../../plugins/idempotency/plugin.ts';
import { localLimit } from '../../plugins/local-limit/plugin.ts';
import { oidcAuth } from '../../plugins/oidc-auth/plugin.ts';
import { opaAuthz } from '../../plugins/opa-authz/plugin.ts';
import { piiGuard } from '../../plugins/pii-guard/plugin.ts';
import { rateLimit } from '../../plugins/rate-limit/plugin.ts';
import { usageLog } from '../../plugins/usage-log/plugin.ts';
import type { Action, AuthorizeInput } from '../../proto/contract.ts';
import { opaServer } from '../plugins/opa-authz/opa-server.ts';
import { startIssuer } from '../support/issuer.ts';
import { answer, authenticate, authorize, endpoint, facts, limit, outcome, prompt, window } from './facts.ts';
import { contractSuite } from './suite.ts';

const KEY = 'sk-a-long-and-random-key';
const KEY_CLAIMS = { 'api-key': { id: '244e2335b4a12b50', models: ['gpt-4o*'], budget: { tokens: 50, per: '1h' } } };

contractSuite(
  apiKeyAuth,
  {
    keys: [{ key: KEY, subject: 'jo', groups: ['staff'], models: ['gpt-4o*'], budget: { tokens: 50, per: '1h' } }],
  },
  [
    {
      title: 'no key',
      hook: 'authenticate',
      input: authenticate(),
      expected: { allow: { challenge: 'Bearer realm="wardgate"' } },
    },
    {
      title: 'a good key',
      hook: 'authenticate',
      input: authenticate({ authorization: `Bearer ${KEY}` }),
      expected: {
        allow: { identity: { subject: 'jo', issuer: 'api-key-auth', groups: ['staff'], claims: KEY_CLAIMS } },
      },
    },
    { title: 'a bad key', hook: 'authenticate', input: authenticate({ 'x-api-key': 'sk-wrong' }) },
    {
      title: 'the models of a key',
      hook: 'authorize',
      input: keyHolder('model.list', 'gpt-4o-mini', 'llama3:8b'),
      expected: { allow: { decisions: [true, false] } },
    },
    { title: 'a model that is not the key’s', hook: 'authorize', input: keyHolder('model.use', 'llama3:8b') },
    {
      title: 'somebody without a key',
      hook: 'authorize',
      input: authorize('llama3:8b'),
      expected: { allow: { decisions: [true] } },
    },
  ],
);

function keyHolder(action: Action, ...names: string[]): AuthorizeInput {
  const { request, resources } = authorize(...names);
  const identity = { subject: 'jo', issuer: 'api-key-auth', claims: KEY_CLAIMS };
  return { request: { ...request, identity }, action, resources };
}

contractSuite(celAuthz, { rules: ['"staff" in identity.groups', { deny: 'resource.name.startsWith("secret-")' }] }, [
  {
    title: 'two models of three',
    hook: 'authorize',
    input: authorize('gpt-4o', 'secret-1', 'llama3:8b'),
    expected: { allow: { decisions: [true, false, true] } },
  },
  { title: 'a model that is denied', hook: 'authorize', input: authorize('secret-1') },
  {
    title: 'a stranger',
    hook: 'authorize',
    input: { ...authorize('gpt-4o'), request: { ...authorize().request, identity: undefined } },
  },
]);

contractSuite(localLimit, { limits: [{ maxTokens: 2, tokensPerFill: 2, fillInterval: '1d', per: 'all' }] }, [
  { title: 'the first request', hook: 'limit', input: limit() },
  { title: 'its end', hook: 'observe', input: outcome(), expected: { allow: {} } },
  { title: 'the second request', hook: 'limit', input: limit() },
  { title: 'one too many', hook: 'limit', input: limit() },
]);

const opa = await opaServer(({ action }) => (action === 'model.use' ? { allow: ['a'], message: 'Only a.' } : ['a']));
afterAll(() => opa[Symbol.asyncDispose]());

contractSuite(opaAuthz, { url: opa.url, tools: true, body: '8KiB' }, [
  {
    title: 'two of three models',
    hook: 'authorize',
    input: authorize('a', 'b', 'a'),
    expected: { allow: { decisions: [true, false, true], decisionId: 'd-1' } },
  },
  {
    title: 'a model that the policy denies',
    hook: 'authorize',
    input: authorize('b'),
    expected: { reject: { code: 'policy_denied', message: 'Only a.', status: 403, decisionId: 'd-1' } },
  },
]);

const issuer = await startIssuer();
const bearing = (token: string) => authenticate({ authorization: `Bearer ${token}` });
const metadata = endpoint('');
metadata.request = { ...metadata.request, method: 'GET', path: '/.well-known/oauth-protected-resource' };
afterAll(() => issuer.stop());

contractSuite(oidcAuth, { issuers: [{ issuer: issuer.url, audience: 'account' }], resource: 'https://gw.example' }, [
  { title: 'no token', hook: 'authenticate', input: authenticate() },
  { title: 'a good token', hook: 'authenticate', input: bearing(await issuer.token()) },
  { title: 'a token for others', hook: 'authenticate', input: bearing(await issuer.token({ aud: 'other' })) },
  { title: 'a path of its own', hook: 'endpoint', input: metadata },
]);

contractSuite(piiGuard, { rules: ['email', 'credit-card'], action: 'mask' }, [
  { title: 'nothing to find', hook: 'request', input: prompt('Hello, who are you?', ''), expected: { allow: {} } },
  { title: 'an address in one of two messages', hook: 'request', input: prompt('Hi', 'write to jo@corp.example 🙂') },
  { title: 'a card in an answer', hook: 'response', input: answer('It is 4111 1111 1111 1111.') },
  { title: 'a stream that may go on into an address', hook: 'stream', input: window('write to jo@corp.exa') },
  { title: 'the end of a stream', hook: 'stream', input: window('jo@corp.example', true, 'write to ') },
  { title: 'nothing at the end of a stream', hook: 'stream', input: window('', true) },
]);

/** Nothing listens there: each instance counts for itself, so that all give the same verdicts. */
const NO_REDIS = 'redis://127.0.0.1:1';

contractSuite(
  rateLimit,
  {
    redis: NO_REDIS,
    onRedisLoss: 'local',
    limits: [
      { name: 'two', per: 'all', max: 8, window: '1d' },
      { name: 'dear', per: 'all', max: 1, window: '1d', models: ['dear'], onRedisLoss: 'reject' },
    ],
  },
  [
    { title: 'the first request', hook: 'limit', input: limit() },
    { title: 'its end', hook: 'observe', input: outcome(), expected: { allow: {} } },
    { title: 'the second request', hook: 'limit', input: limit() },
    { title: 'one too many', hook: 'limit', input: limit() },
    { title: 'one that needs Redis', hook: 'limit', input: { ...limit(), request: { ...facts, model: 'dear' } } },
  ],
);

const again = { request: facts, key: 'order-1', fingerprint: 'a'.repeat(64) };

contractSuite(idempotency, { redis: NO_REDIS }, [
  { title: 'a key that cannot be looked up', hook: 'recall', input: again },
  {
    title: 'an answer that nobody claimed',
    hook: 'remember',
    input: { ...again, outcome: 'answered', status: 200, contentType: 'application/json', body: '{}' },
    expected: { allow: {} },
  },
]);

contractSuite(usageLog, { to: join(tmpdir(), `usage-${process.pid}.log`) }, [
  { title: 'the end of a request', hook: 'observe', input: outcome(), expected: { allow: {} } },
]);
