/** What an operator should know and no request can tell: on stderr, the same thing once a minute at most. */

const PAUSE_MS = 60_000;
const MAX_KINDS = 1_000;
const toldAt = new Map<string, number>();

/** @param message nothing of any token, cookie or code */
export function warn(message: string): void {
  const now = performance.now();
  if (now - (toldAt.get(message) ?? Number.NEGATIVE_INFINITY) < PAUSE_MS) return;
  if (toldAt.size >= MAX_KINDS) toldAt.clear();
  toldAt.set(message, now);
  process.emitWarning(`oidc-auth: ${message}`, 'OidcAuthWarning');
}
