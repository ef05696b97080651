/** A client's own choice of where to go on when the first target fails: among the model's targets, and by their names. */
import { GatewayError } from '../errors.ts';
import type { RoutedTarget } from './router.ts';

const HEADER = 'x-wardgate-fallback-route';
/** The most targets that a client may name. */
const MOST = 16;

/**
 * The targets that a client names, in its order: `provider/model` or `provider`, separated by commas; undefined when it
 * names none.
 *
 * @throws GatewayError 400 when one is no target of the model
 */
export function namedTargets(
  headers: Readonly<Record<string, string | undefined>>,
  targets: readonly RoutedTarget[],
): RoutedTarget[] | undefined {
  const names = headers[HEADER]?.split(',').map((name) => name.trim()) ?? [];
  if (names.length === 0) return undefined;
  const found = names.slice(0, MOST).flatMap((name) => targets.filter((target) => isNamed(target, name)));
  if (names.length > MOST || names.some((name) => !targets.some((target) => isNamed(target, name)))) {
    const known = targets.map(({ provider, model }) => `${provider.name}${model === undefined ? '' : `/${model}`}`);
    throw new GatewayError(
      'invalid_request',
      `The header \`${HEADER}\` may name the targets of this model only: ${known.join(', ')}.`,
      { param: HEADER },
    );
  }
  return [...new Set(found)];
}

function isNamed({ provider, model }: RoutedTarget, name: string): boolean {
  return name === provider.name || name === `${provider.name}/${model}`;
}
