/** A certificate that nobody else trusts. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';

export interface Certificate {
  /** Where `cert.pem` and `key.pem` lie. */
  folder: string;
  cert: string;
  key: string;
}

/** Makes one for a name, signed by itself, for the tests of the block that calls this. */
export function certificateFor(name: string): Certificate {
  const made: Certificate = { folder: '', cert: '', key: '' };
  beforeAll(() => {
    made.folder = mkdtempSync(join(tmpdir(), 'tls-'));
    const subject = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`];
    const files = ['-keyout', join(made.folder, 'key.pem'), '-out', join(made.folder, 'cert.pem')];
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-days', '2'];
    execFileSync('openssl', ['req', '-x509', '-nodes', ...kind, ...subject, ...files], { stdio: 'ignore' });
    made.cert = readFileSync(join(made.folder, 'cert.pem'), 'utf8');
    made.key = readFileSync(join(made.folder, 'key.pem'), 'utf8');
  });
  afterAll(() => rmSync(made.folder, { recursive: true }));
  return made;
}
