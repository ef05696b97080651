/** The second port: metrics and health, for the operator's network alone. */
import { createServer, type Server } from 'node:http';
import type { Gateway } from './gateway.ts';

/** Serves `/metrics`, `/healthz` and `/readyz`; the latter with the state of every plugin. */
export function makeMetricsServer(gateway: Gateway, isDraining: () => boolean): Server {
  return createServer(async (request, response) => {
    const path = request.url?.split('?')[0];
    const send = (status: number, type: string, body: string) =>
      response.writeHead(status, { 'content-type': type }).end(body);
    if (path === '/metrics') send(200, gateway.metrics.registry.contentType, await metrics(gateway));
    else if (path === '/healthz' || path === '/health') send(200, 'application/json', '{"status":"ok"}');
    else if (path === '/readyz')
      send(isDraining() ? 503 : 200, 'application/json', JSON.stringify(readiness(gateway, isDraining())));
    else send(404, 'text/plain; charset=utf-8', 'Metrics are at /metrics, health at /healthz and /readyz.\n');
  });
}

/** The gateway's figures, and those of plugins in its process: one text for all instances of a plugin. */
async function metrics({ metrics: { registry }, snapshot }: Gateway): Promise<string> {
  const byName = new Map(snapshot.mounts.map(({ connection }) => [connection.description?.name, connection]));
  const own = [...byName.values()].map((connection) => connection.metrics?.().catch(() => ''));
  return [await registry.metrics(), ...(await Promise.all(own))].filter(Boolean).join('\n');
}

function readiness(gateway: Gateway, isDraining: boolean): object {
  const plugins = gateway.snapshot.mounts.map(({ name, connection }) => [
    name,
    { state: connection.state, problem: connection.problem },
  ]);
  return { status: isDraining ? 'draining' : 'ready', plugins: Object.fromEntries(plugins) };
}
