/** What went wrong with OpenFGA, in words that may be logged: none of them is made from what a request holds. */
import { FgaApiError, FgaApiNotFoundError, FgaApiRateLimitExceededError, FgaApiValidationError } from '@openfga/sdk';
import { PluginFault } from '../../proto/contract.ts';

/** OpenFGA gave no decision. */
export class OpenfgaFault extends PluginFault {}

/** The store, or the model that was pinned, is no longer there: the two error codes of OpenFGA that say so. */
export function isGone(error: unknown): boolean {
  if (error instanceof FgaApiNotFoundError) return error.apiErrorCode === 'store_id_not_found';
  if (!(error instanceof FgaApiValidationError)) return false;
  return /^(latest_)?authorization_model_not_found$/.test(String(error.apiErrorCode));
}

/** The fault that an error of the SDK is. What the SDK or OpenFGA wrote is left out: it quotes users and objects. */
export function faultOf(error: unknown): OpenfgaFault {
  if (error instanceof OpenfgaFault) return error;
  if (isGone(error)) return new OpenfgaFault('openfga_gone', 'The store of OpenFGA, or its model, is no longer there.');
  if (!(error instanceof FgaApiError) || error.statusCode === undefined) {
    return new OpenfgaFault('openfga_unreachable', 'OpenFGA cannot be reached. Is it running, and is `apiUrl` right?');
  }
  return new OpenfgaFault(
    codeOf(error),
    `OpenFGA answered ${error.statusCode}${named(error)}. ${ADVICE[codeOf(error)]}`,
  );
}

type Code = 'openfga_refused' | 'openfga_busy' | 'openfga_failed' | 'openfga_odd_question';

const ADVICE: Record<Code, string> = {
  openfga_refused: 'Check `credentials`.',
  openfga_busy: 'It asks for fewer questions.',
  openfga_failed: 'Its own log says more.',
  openfga_odd_question: 'Check that the model has the types and relations of this config.',
};

function codeOf(error: FgaApiError): Code {
  if (error.statusCode === 401 || error.statusCode === 403) return 'openfga_refused';
  if (error instanceof FgaApiRateLimitExceededError) return 'openfga_busy';
  return error instanceof FgaApiValidationError ? 'openfga_odd_question' : 'openfga_failed';
}

/** OpenFGA's own code, such as ` validation_error`, where there is one that looks like it. */
function named(error: FgaApiError): string {
  const { apiErrorCode } = error as { apiErrorCode?: unknown };
  return typeof apiErrorCode === 'string' && /^\w{1,60}$/.test(apiErrorCode) ? ` ${apiErrorCode}` : '';
}
