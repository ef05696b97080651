/** Servers that are not ours, and do as they like. */
import { once } from 'node:events';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';

export interface Foreign {
  /** `host:port`. */
  address: string;
  port: number;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A TCP server that hands each connection to `meet`. */
export async function tcpServer(meet: (socket: net.Socket) => void, port = 0): Promise<Foreign> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    meet(socket);
  });
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return listening(server, cut, port);
}

/** Stands at a port, and passes on what comes to `host:port` of `address`: what can be taken away from before a server. */
export function forwarder(address: string, port: number): Promise<Foreign> {
  const { hostname, port: there } = new URL(`tcp://${address}`);
  return tcpServer((socket) => {
    const onward = net.connect(Number(there), hostname).on('error', () => socket.destroy());
    socket.pipe(onward).pipe(socket);
    socket.on('close', () => onward.destroy());
  }, port);
}

/** What an HTTP server of these tests is asked, and answers. */
export interface Asked {
  method: string;
  path: string;
  headers: http.IncomingHttpHeaders;
  body: string;
}
export interface Answered {
  status?: number;
  type?: string;
  body?: string;
  /** Breaks the connection in place of answering, after the head when there is one. */
  broken?: boolean;
}

/** An HTTP server; `asked` gathers what came. */
export async function httpServer(answer: (asked: Asked) => Answered, port = 0): Promise<Foreign & { asked: Asked[] }> {
  const asked: Asked[] = [];
  const server = http.createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += String(chunk);
    const one = { method: request.method!, path: request.url!, headers: request.headers, body };
    if (one.method === 'POST') asked.push(one);
    const { status = 200, type = 'application/json', body: reply = '', broken } = answer(one);
    response.writeHead(status, { 'content-type': type });
    if (broken) {
      response.write('{"allow":');
      response.socket?.end();
    } else response.end(reply);
  });
  const foreign = await listening(server, () => server.closeAllConnections(), port);
  return { ...foreign, asked };
}

async function listening(server: net.Server, cut: () => void, wanted = 0): Promise<Foreign> {
  server.listen(wanted, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const close = async () => {
    const closed = once(server, 'close');
    server.close();
    cut();
    await closed;
  };
  return { address: `127.0.0.1:${port}`, port, [Symbol.asyncDispose]: close };
}

/** A port on which nobody listens. */
export async function freePort(): Promise<number> {
  await using server = await tcpServer(() => {});
  return server.port;
}
