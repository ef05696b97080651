/** Sends what the AWS clients make over HTTP/1.1, as they do for most services; with Bedrock they begin with HTTP/2. */
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';

/** The parts of the clients' requests that are used here. */
interface AwsRequest {
  hostname: string;
  port?: number;
  method: string;
  path: string;
  query?: Record<string, unknown>;
  headers: Record<string, string>;
  body?: unknown;
}

/** For the setting `requestHandler` of an AWS client. Requests have no query. */
export const overHttp1 = { metadata: { handlerProtocol: 'http/1.1' }, handle, destroy: () => {} };

async function handle({ hostname, port, method, path, headers, body }: AwsRequest) {
  const request = httpRequest({ hostname, port, method, path, headers });
  request.end(body);
  const [answer] = (await once(request, 'response')) as [IncomingMessage];
  return { response: { statusCode: answer.statusCode, headers: answer.headers, body: answer } };
}
