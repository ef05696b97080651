/** What docker-compose.yml promises, read from the file: `docker compose config` checks that it is valid, CI runs that. */
import { globSync, readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';

interface Service {
  image?: string;
  command?: string[];
  profiles?: string[];
  ports?: string[];
  networks?: string[];
  volumes?: string[];
  healthcheck?: { disable?: boolean; test?: string[] };
  depends_on?: Record<string, { condition: string; required?: boolean }>;
  [setting: string]: unknown;
}

const compose: { services: Record<string, Service>; networks: Record<string, { internal?: boolean }> } = parse(
  readFileSync('docker-compose.yml', 'utf8'),
  { merge: true },
);
const services = Object.entries(compose.services);
const plugins = globSync('plugins/*/plugin.ts').map((path) => basename(dirname(path)));
/** Reached from outside by people; everything else stands where nobody comes in. */
const OPEN = ['gateway', 'keycloak', 'ratelimit', 'host-ports', 'open-webui'];
/** In profile all nothing needs its ports on the host, and in infra there is no gateway. */
const PARTIAL: Record<string, string[]> = {
  gateway: ['all', 'minimal'],
  'host-ports': ['infra'],
  'open-webui': ['all', 'ui'],
};

describe.each(services)('%s', (name, service) => {
  const ours = service.image === 'wardgate';

  test('runs with nothing that it does not need', () => {
    expect(service).toMatchObject({ cap_drop: ['ALL'], security_opt: ['no-new-privileges:true'] });
    if (name !== 'open-webui') expect(service).toMatchObject({ read_only: true, tmpfs: ['/tmp'] });
    expect(service.mem_limit).toBeDefined();
    if (ours) expect(service).not.toHaveProperty('user');
    expect(service.user ?? '').not.toMatch(/^(?:0|root)\b/);
    expect(service).not.toHaveProperty('privileged');
  });

  test('tells its health, or runs once', () => {
    if (service.restart === 'no') return expect(service.healthcheck?.disable).toBe(true);
    expect(service.restart).toBe('unless-stopped');
    const [first, command, script] = service.healthcheck?.test ?? [];
    expect(first).toBe('CMD');
    if (ours) expect([command, script]).toEqual(['node', 'deploy/healthcheck.ts']);
    return undefined;
  });

  test('starts in its profiles, with all that it cannot do without', () => {
    expect(service.profiles?.filter((profile) => profile !== 'minimal')).toEqual(
      PARTIAL[name]?.filter((profile) => profile !== 'minimal') ?? ['all', 'infra'],
    );
    for (const [other, { required = true }] of Object.entries(service.depends_on ?? {})) {
      const missing = service.profiles?.filter((profile) => !compose.services[other]?.profiles?.includes(profile));
      if (required) expect(missing, `${name} needs ${other}`).toEqual([]);
    }
  });

  test('is reached from this machine only', () => {
    for (const port of service.ports ?? []) expect(port).toMatch(/^127\.0\.0\.1:\$\{\w+:-\d+\}:\d+$/);
    const inner = service.networks?.every((network) => compose.networks[network]?.internal);
    expect(inner).toBe(!OPEN.includes(name));
  });

  test('is named by a version, when it is somebody else’s', () => {
    if (service.image?.startsWith('wardgate') === false) expect(service.image).toMatch(/:v?\d/);
  });
});

test('no two services want one port of this machine', () => {
  const ports = services.flatMap(([, { ports = [] }]) => ports.map((port) => /:-(\d+)\}/.exec(port)?.[1]));
  expect(ports).toContain('8080');
  expect(new Set(ports).size).toBe(ports.length);
});

test('what runs once is waited for, so that `up --wait` takes its end for a success', () => {
  for (const [name] of services.filter(([, { restart }]) => restart === 'no')) {
    const conditions = services.map(([, { depends_on }]) => depends_on?.[name]?.condition).filter(Boolean);
    expect(conditions, name).toEqual(['service_completed_successfully']);
  }
});

test.each(plugins)('%s has a container of its own, and a port of this machine in profile infra', (plugin) => {
  expect(compose.services[plugin]?.command?.slice(0, 3)).toEqual(['node', 'plugins/serve.ts', plugin]);
  const forward = compose.services['host-ports']?.command?.find((rule) => rule.endsWith(`=${plugin}:9000`));
  const variable = `${plugin.toUpperCase().replaceAll('-', '_')}_PORT:-${forward?.split('=')[0]}}`;
  expect(compose.services['host-ports']?.ports?.filter((port) => port.includes(variable))).toHaveLength(1);
  expect(readFileSync('run-proxy-local.sh', 'utf8')).toContain(variable);
});

test('every address of the config that names a container is another one in run-proxy-local.sh', () => {
  const config = readFileSync('deploy/compose/wardgate.yaml', 'utf8');
  const script = readFileSync('run-proxy-local.sh', 'utf8');
  const variables = [...config.matchAll(/(?:at|baseUrl): "\$\{(\w+):-\w[\w-]*:\/\//g)].map(([, name]) => name);
  expect(variables.length).toBeGreaterThan(plugins.length);
  for (const name of variables) expect(script).toMatch(new RegExp(`^export .*\\b${name}=`, 'm'));
  expect(config).not.toMatch(/at: (?!local:)[\w-]+:\/\//);
});

test('the image is not run by root', () => {
  expect(readFileSync('deploy/Dockerfile', 'utf8')).toMatch(/^USER (?!0|root)/m);
});
