/** The second port: metrics and health, for the operator's network alone. */
import { createServer, type Server } from 'node:http';
import type { Gateway } from './gateway.ts';

/** Serves `/metrics`, `/healthz` and `/readyz`; the latter with the state of every plugin. */
export function makeMetricsServer(gateway: Gateway, isDraining: () => boolean): Server {
  return createServer(async (request, response) => {
    const path = request.url?.split('?')[0];
    const send = (status: number, type: string, body: string) =>
      response.writeHead(status, { 'content-type': type }).end(body);
    if (path === '/metrics') send(200, gateway.metrics.registry.contentType, await gateway.metrics.registry.metrics());
    else if (path === '/healthz' || path === '/health') send(200, 'application/json', '{"status":"ok"}');
    else if (path === '/readyz')
      send(isDraining() ? 503 : 200, 'application/json', JSON.stringify(readiness(gateway, isDraining())));
    else send(404, 'text/plain; charset=utf-8', 'Metrics are at /metrics, health at /healthz and /readyz.\n');
  });
}

function readiness(gateway: Gateway, isDraining: boolean): object {
  const plugins = gateway.snapshot.mounts.map(({ name, connection }) => [
    name,
    { state: connection.state, problem: connection.problem },
  ]);
  return { status: isDraining ? 'draining' : 'ready', plugins: Object.fromEntries(plugins) };
}
