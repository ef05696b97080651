import { describe, expect, it } from 'vitest';
import { pluginFor, problemsOf } from './support.ts';

const ISSUER = { issuer: 'https://sso.example/realms/demo', audience: 'gateway' };
const LOGIN = { clientId: 'gateway', publicUrl: 'https://gw.example', cookieSecret: 'c'.repeat(32) };

function placesOf(config: unknown): string[] {
  return problemsOf(config).map(({ path }) => path.join('.'));
}

describe('the config', () => {
  it.each([
    [{ issuers: [ISSUER] }],
    [{ issuers: [{ issuer: 'http://localhost:8080/realms/demo', azp: ['a', 'b'] }] }],
    [{ issuers: [{ ...ISSUER, issuer: 'http://sso.inner/realms/demo' }], allowInsecure: true }],
    [{ issuers: [ISSUER], login: LOGIN, redis: 'redis://127.0.0.1:6379' }],
  ])('%o is sound', (config) => {
    expect(problemsOf(config)).toEqual([]);
  });

  it.each([
    [{}, 'issuers'],
    [{ issuers: [] }, 'issuers'],
    [{ issuers: [{ issuer: ISSUER.issuer }] }, 'issuers.0.audience'],
    [{ issuers: [ISSUER, ISSUER] }, 'issuers.1.issuer'],
    [{ issuers: [{ ...ISSUER, issuer: 'sso.example' }] }, 'issuers.0.issuer'],
    [{ issuers: [{ ...ISSUER, issuer: 'ftp://sso.example' }] }, 'issuers.0.issuer'],
    [{ issuers: [{ ...ISSUER, issuer: 'https://user:pw@sso.example' }] }, 'issuers.0.issuer'],
    [{ issuers: [{ ...ISSUER, issuer: 'http://sso.example/realms/demo' }] }, 'issuers.0.issuer'],
    [{ issuers: [{ ...ISSUER, issuer: 'http://localhost.evil.example' }] }, 'issuers.0.issuer'],
    [{ issuers: [{ ...ISSUER, metadata: { jwks_uri: 'http://sso.example/certs' } }] }, 'issuers.0.metadata.jwks_uri'],
    [{ issuers: [{ ...ISSUER, discoveryUrl: 'http://keycloak:8080/x' }] }, 'issuers.0.discoveryUrl'],
    [{ issuers: [{ ...ISSUER, algorithms: ['HS256'] }] }, 'issuers.0.algorithms.0'],
    [{ issuers: [{ ...ISSUER, algorithms: ['none'] }] }, 'issuers.0.algorithms.0'],
    [{ issuers: [{ ...ISSUER, algorithms: [] }] }, 'issuers.0.algorithms'],
    [{ issuers: [{ ...ISSUER, clockSkew: '1h' }] }, 'issuers.0.clockSkew'],
    [{ issuers: [{ ...ISSUER, clockSkew: 10 }] }, 'issuers.0.clockSkew'],
    [{ issuers: [{ ...ISSUER, audiance: 'x' }] }, 'issuers.0.audiance'],
    [{ issuers: [ISSUER], foreign: 'allow' }, 'foreign'],
    [{ issuers: [ISSUER], realm: 'a"b' }, 'realm'],
    [{ issuers: [ISSUER], path: 'oauth2' }, 'path'],
    [{ issuers: [ISSUER], redis: 'http://redis' }, 'redis'],
    [{ issuers: [ISSUER], login: { ...LOGIN, cookieSecret: 'short' } }, 'login.cookieSecret'],
    [{ issuers: [ISSUER], login: { ...LOGIN, scopes: ['email'] } }, 'login.scopes'],
    [{ issuers: [ISSUER], login: { ...LOGIN, issuer: 'https://other.example' } }, 'login.issuer'],
    [{ issuers: [ISSUER, { ...ISSUER, issuer: 'https://b.example' }], login: LOGIN }, 'login.issuer'],
    [{ issuers: [ISSUER], login: { ...LOGIN, afterLogin: 'https://evil.example' } }, 'login.afterLogin'],
    [{ issuers: [ISSUER], login: { ...LOGIN, afterLogin: '//evil.example' } }, 'login.afterLogin'],
    ['issuers', ''],
  ])('%o has a problem at %s', (config, place) => {
    expect(placesOf(config)).toContain(place);
  });

  it('lists all its problems at once and repeats no secret', () => {
    const problems = problemsOf({
      issuers: [{ ...ISSUER, introspection: { clientId: 'a', clientSecret: 42, hush: 'very-secret' } }],
      login: { ...LOGIN, cookieSecret: 'very-secret', clientSecret: ['very-secret'] },
      colour: 'red',
    });
    expect(problems.map(({ path }) => path.join('.'))).toEqual(
      expect.arrayContaining([
        'issuers.0.introspection.clientSecret',
        'issuers.0.introspection.hush',
        'login.cookieSecret',
        'login.clientSecret',
        'colour',
      ]),
    );
    expect(JSON.stringify(problems)).not.toContain('very-secret');
  });
});

describe('the plugin describes itself', () => {
  it('with the paths that the config asks for, and a schema that knows no other settings', async () => {
    await using plain = pluginFor({ issuers: [ISSUER] });
    expect(plain.describe()).toMatchObject({ name: 'oidc-auth', hooks: ['authenticate'], rewrites: false });
    expect(plain.describe().endpoints).toBeUndefined();
    expect(plain.describe().configSchema).toMatchObject({ required: ['issuers'], additionalProperties: false });
    await using whole = pluginFor({
      issuers: [ISSUER],
      path: '/sso',
      resource: 'https://gw.example/openai',
      login: LOGIN,
    });
    expect(whole.describe()).toMatchObject({
      hooks: ['authenticate', 'endpoint'],
      endpoints: [
        '/sso/login',
        '/sso/callback',
        '/sso/logout',
        '/sso/userinfo',
        '/sso/backchannel-logout',
        '/.well-known/oauth-protected-resource/openai',
      ],
    });
  });

  it('as an OAuth resource where the config names it (RFC 9728)', async () => {
    await using plugin = pluginFor({
      issuers: [{ ...ISSUER, requiredScopes: ['llm'] }],
      resource: 'https://gw.example/',
    });
    const request = { id: 'r', method: 'GET', path: '/.well-known/oauth-protected-resource', route: '' };
    const { respond } = await plugin.endpoint!({ request, query: '', body: '' });
    expect(JSON.parse(respond.body!)).toEqual({
      resource: 'https://gw.example/',
      authorization_servers: [ISSUER.issuer],
      bearer_methods_supported: ['header'],
      scopes_supported: ['llm'],
    });
    expect(await plugin.authenticate!({ request })).toEqual({
      allow: {
        challenge:
          'Bearer realm="wardgate", resource_metadata="https://gw.example/.well-known/oauth-protected-resource"',
      },
    });
  });
});
