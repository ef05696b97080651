/** What docker-compose.yml promises, read from the file: `docker compose config` checks that it is valid, CI runs that. */
import { globSync, readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';

interface Service {
  command?: string[];
  profiles?: string[];
  ports?: string[];
  networks?: string[];
  depends_on?: Record<string, { required?: boolean }>;
  [setting: string]: unknown;
}

const compose: { services: Record<string, Service>; networks: Record<string, { internal?: boolean }> } = parse(
  readFileSync('docker-compose.yml', 'utf8'),
  { merge: true },
);
const services = Object.entries(compose.services);
const plugins = globSync('plugins/*/plugin.ts').map((path) => basename(dirname(path)));

describe.each(services)('%s', (name, service) => {
  test('runs with nothing that it does not need', () => {
    expect(service).toMatchObject({
      read_only: true,
      cap_drop: ['ALL'],
      security_opt: ['no-new-privileges:true'],
      restart: 'unless-stopped',
      tmpfs: ['/tmp'],
    });
    expect(service).not.toHaveProperty('user');
    expect(service).not.toHaveProperty('privileged');
  });

  test('tells its health', () => {
    expect(service.healthcheck).toMatchObject({ test: ['CMD', 'node', 'deploy/healthcheck.ts', expect.any(String)] });
  });

  test('starts in a profile, with all that it cannot do without', () => {
    expect(service.profiles).toContain('all');
    for (const [other, { required = true }] of Object.entries(service.depends_on ?? {})) {
      const missing = service.profiles?.filter((profile) => !compose.services[other]?.profiles?.includes(profile));
      if (required) expect(missing, `${name} needs ${other}`).toEqual([]);
    }
  });

  test('is reached from this machine only', () => {
    for (const port of service.ports ?? []) expect(port).toMatch(/^127\.0\.0\.1:/);
    const inner = service.networks?.every((network) => compose.networks[network]?.internal);
    if (name !== 'gateway') expect(inner).toBe(true);
  });
});

test.each(plugins)('%s has a container of its own', (plugin) => {
  expect(compose.services[plugin]?.command?.slice(0, 3)).toEqual(['node', 'plugins/serve.ts', plugin]);
});

test('the image is not run by root', () => {
  expect(readFileSync('deploy/Dockerfile', 'utf8')).toMatch(/^USER (?!0|root)/m);
});
