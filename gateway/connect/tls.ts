/** The certificates that a mount names: PEM texts, or files beside the config. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Endpoint, EndpointProblem } from './connection.ts';

export interface TlsMaterial {
  ca?: Buffer;
  cert?: Buffer;
  key?: Buffer;
  serverName?: string;
}

/** Reads them once, at the start. @throws {@link EndpointProblem} when a file cannot be read */
export function readTls({ options: { tls = {} }, baseDir }: Endpoint): TlsMaterial {
  const pem = (value: string | undefined, what: string) => value && readPem(value, what, baseDir);
  return {
    ca: pem(tls.ca, 'ca') || undefined,
    cert: pem(tls.cert, 'cert') || undefined,
    key: pem(tls.key, 'key') || undefined,
    serverName: tls.serverName,
  };
}

function readPem(value: string, what: string, baseDir: string): Buffer {
  if (value.startsWith('-----BEGIN')) return Buffer.from(value);
  try {
    return readFileSync(resolve(baseDir, value));
  } catch (cause) {
    throw new EndpointProblem(`tls.${what} cannot be read: ${(cause as NodeJS.ErrnoException).code}`);
  }
}
