/**
 * Passes connections on, one port of its own for each place: `node deploy/forward.ts 9001=pii-guard:9000 6379=redis:6379`.
 * It is how profile `infra` lets a gateway on the host reach what stands in a network without a way in.
 */
import { connect, createServer } from 'node:net';

for (const rule of process.argv.slice(2)) {
  const [, port, host, remote] = /^(\d+)=([\w.-]+):(\d+)$/.exec(rule) ?? [];
  if (port === undefined) throw new Error(`${rule}: write PORT=HOST:PORT`);
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ host, port: Number(remote), allowHalfOpen: true });
    near.pipe(far).pipe(near);
    near.on('error', () => far.destroy()).on('close', () => far.destroy());
    far.on('error', () => near.destroy()).on('close', () => near.destroy());
  });
  server.listen(Number(port), '0.0.0.0');
}
process.on('SIGTERM', () => process.exit(0));
