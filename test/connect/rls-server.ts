/** A service that limits for Envoy, as a test wants it to answer. */
import { type Answer, type Refused, type UnaryServer, unaryServer } from './unary-server.ts';

/** A RateLimitRequest. */
export interface Asked {
  domain: string;
  descriptors: {
    entries: { key: string; value: string }[];
    limit?: { requestsPerUnit: number; unit: number };
    hitsAddend?: { value?: number };
  }[];
  hitsAddend?: number;
}

export type RlsServer = UnaryServer<Asked>;

/** @param answer gives the reply to each call; `undefined` answers never, `{ code }` with that gRPC status */
export function rlsServer(answer: (asked: Asked) => Answer | Refused, port = 0): Promise<RlsServer> {
  const service = 'envoy.service.ratelimit.v3.RateLimitService';
  const served = { scheme: 'rls', file: 'envoy/service/ratelimit/v3/rls.proto', service, method: 'ShouldRateLimit' };
  return unaryServer(served, answer, port);
}

/** The hits of each descriptor that was asked, by its values: `openai: 1`. */
export function hitsIn({ descriptors }: Asked): Record<string, number | undefined> {
  return Object.fromEntries(
    descriptors.map(({ entries, hitsAddend }) => [
      entries.map(({ value }) => value).join(),
      hitsAddend && (hitsAddend.value ?? 0),
    ]),
  );
}
