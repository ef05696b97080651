import { afterEach, describe, expect, it, vi } from 'vitest';
import { CLIENT, startIssuer, type TestIssuer } from '../../support/issuer.ts';
import { bearer, configOf, identityIn, pluginFor, reasonIn } from './support.ts';

const introspection = { clientId: CLIENT.id, clientSecret: CLIENT.secret };

afterEach(() => {
  vi.useRealTimers();
});

/** An issuer that knows one opaque token. */
async function issuerWith(claims: object = {}): Promise<TestIssuer> {
  const issuer = await startIssuer();
  issuer.opaque.set('opaque-token', issuer.claims({ ...claims }));
  return issuer;
}

describe('an opaque token', () => {
  it('is what the issuer says it is, and is not asked about again for a while', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await using issuer = await issuerWith();
    await using plugin = pluginFor(configOf(issuer, { introspection: { ...introspection, cache: '30s' } }));
    for (let i = 0; i < 3; i++) expect(identityIn(await bearer(plugin, 'opaque-token')).username).toBe('mcp-user');
    expect(issuer.asked.introspect).toBe(1);
    issuer.opaque.clear();
    vi.setSystemTime(Date.now() + 29_000);
    identityIn(await bearer(plugin, 'opaque-token'));
    vi.setSystemTime(Date.now() + 1_500);
    expect(reasonIn(await bearer(plugin, 'opaque-token'))).toBe('inactive');
  });

  it('is not believed beyond its end', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await using issuer = await issuerWith({ exp: Math.floor(Date.now() / 1000) + 5 });
    await using plugin = pluginFor(configOf(issuer, { introspection, clockSkew: '0s' }));
    identityIn(await bearer(plugin, 'opaque-token'));
    vi.setSystemTime(Date.now() + 6_000);
    expect(reasonIn(await bearer(plugin, 'opaque-token'))).toBe('expired');
  });

  it.each([
    ['inactive', {}, 'another-token'],
    ['wrong_audience', { aud: 'other' }, 'opaque-token'],
    ['wrong_audience', { aud: undefined }, 'opaque-token'],
    ['foreign_issuer', { iss: 'https://other.example' }, 'opaque-token'],
    ['wrong_type', { typ: 'Refresh' }, 'opaque-token'],
    ['missing_claim', { sub: undefined }, 'opaque-token'],
    ['malformed', {}, 'not a token'],
  ])('%s: %o', async (reason, claims, token) => {
    await using issuer = await issuerWith(claims);
    await using plugin = pluginFor(configOf(issuer, { introspection }));
    expect(reasonIn(await bearer(plugin, token))).toBe(reason);
  });

  it.each([
    ['our own secret is refused', { clientSecret: 'wrong' }, () => {}],
    ['the issuer is away', {}, (issuer: TestIssuer) => issuer.stop()],
    [
      'the issuer talks nonsense',
      {},
      (issuer: TestIssuer) => {
        issuer.instead = (_request, response) =>
          void response.writeHead(200, { 'content-type': 'application/json' }).end('[]');
      },
    ],
  ])('cannot be judged when %s: a fault, never a 401', async (_title, more, spoil) => {
    await using issuer = await issuerWith();
    await using plugin = pluginFor(configOf(issuer, { introspection: { ...introspection, ...more } }));
    await spoil(issuer);
    await expect(bearer(plugin, 'opaque-token')).rejects.toMatchObject({ code: 'issuer_unavailable' });
  });

  it('that nobody knows is not asked about with every request', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    await using issuer = await issuerWith();
    await using plugin = pluginFor(configOf(issuer, { introspection }));
    for (let i = 0; i < 5; i++) expect(reasonIn(await bearer(plugin, 'unknown'))).toBe('inactive');
    expect(issuer.asked.introspect).toBe(1);
    vi.setSystemTime(Date.now() + 6_000);
    issuer.opaque.set('unknown', issuer.claims());
    identityIn(await bearer(plugin, 'unknown'));
  });

  it('is known by one issuer while another is away; unknown to the others, it cannot be judged', async () => {
    await using away = await startIssuer();
    await using issuer = await issuerWith();
    const issuers = [away, issuer].map((one) => configOf(one, { introspection }).issuers[0]);
    await away.stop();
    await using plugin = pluginFor({ issuers });
    identityIn(await bearer(plugin, 'opaque-token'));
    await expect(bearer(plugin, 'another')).rejects.toMatchObject({ code: 'issuer_unavailable' });
  });

  it('in great numbers does not become a flood', async () => {
    await using issuer = await issuerWith();
    await using plugin = pluginFor(configOf(issuer, { introspection }));
    const answers = await Promise.allSettled(Array.from({ length: 500 }, (_, i) => bearer(plugin, `made-up-${i}`)));
    expect(answers.filter(({ status }) => status === 'rejected').length).toBeGreaterThan(400);
    expect(issuer.asked.introspect).toBeLessThanOrEqual(64);
    identityIn(await bearer(plugin, 'opaque-token'));
  });
});
