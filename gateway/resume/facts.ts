/** What a stream is remembered by. */
import { createHash } from 'node:crypto';
import type { StreamFacts } from '../../proto/store.ts';
import type { Life } from '../life.ts';

/** The facts of an answer with this head, to the request with this body. */
export function factsOf(life: Life, head: string[], body: Buffer): StreamFacts {
  const { route, record } = life;
  return {
    owner: ownerOf(life),
    head: keptHead(head),
    requestId: record.facts.id,
    route: route.prefix,
    model: record.facts.model,
    // It costs milliseconds for a long prompt, and only another replica asks for it.
    fingerprint: route.resume?.store === 'redis' ? fingerprintOf(body) : '',
  };
}

/** What of a head holds for its rest as well; the rest is told of each request anew, or once only. */
function keptHead(head: string[]): string[] {
  return pairs(head)
    .filter(([name]) => !/^(?:x-wardgate-trace|set-cookie|vary|access-control-.*)$/.test(name))
    .flat();
}

/** Who asks, on which route. Strangers are one; what keeps their answers apart is that a stream's name cannot be guessed. */
export function ownerOf({ route, record }: Life): string {
  const { identity } = record.facts;
  const named = identity === undefined ? [] : [identity.issuer ?? null, identity.subject];
  return createHash('sha256')
    .update(JSON.stringify([route.prefix, ...named]))
    .digest('base64url');
}

/** Of the body of a request, to know it again. */
export function fingerprintOf(body: Buffer): string {
  return createHash('sha256').update(body).digest('hex');
}

/** The names, in lower case, and values of a head. */
export function pairs(head: string[]): [string, string][] {
  return head.flatMap((name, i): [string, string][] => (i % 2 === 0 ? [[name.toLowerCase(), head[i + 1]!]] : []));
}
