/** What a provider's format has no word for is refused by the client's own name for it, never lost on the way. */
import { GatewayError } from '../errors.ts';
import type { Provider } from '../providers/provider.ts';
import { FEATURES, type Feature, HINTS, type Support, type Supports } from './features.ts';

/** What of a request has to be checked. */
interface Used {
  used: ReadonlyMap<Feature, string>;
  unknown: readonly string[];
}

/**
 * Answers the client's paths of what is left out on the way to a provider.
 * @throws GatewayError `unsupported_field` that names the first one that cannot be
 */
export function leftOut({ used, unknown }: Used, supports: Supports, provider: Provider): string[] {
  const out: string[] = [];
  for (const [feature, path] of used) {
    const support: Support = supports[feature];
    if (support === 'left out') out.push(path);
    else if (support !== 'refused') continue;
    else if (provider.unmapped === 'leave-out' || HINTS.has(feature)) out.push(path);
    else throw unsupported(path, provider.name, ` (${FEATURES[feature]})`);
  }
  for (const path of unknown) {
    if (provider.unmapped === 'leave-out') out.push(path);
    else throw unsupported(path, provider.name, '');
  }
  return out;
}

function unsupported(path: string, provider: string, what: string): GatewayError {
  return new GatewayError(
    'unsupported_field',
    `The field \`${path}\`${what} cannot be sent to the provider “${provider}”: its API has nothing like it. Leave it out, or ask for another model.`,
    { param: path },
  );
}
