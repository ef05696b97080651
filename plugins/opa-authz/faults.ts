/** What went wrong with OPA, in words that may be logged: none of them is made from what a request holds. */
import { PluginFault } from '../../proto/contract.ts';

/** There is no decision. */
export class OpaFault extends PluginFault {
  declare readonly code: 'opa_unavailable' | 'opa_no_decision';
}

/** OPA could not be asked, or answered as OPA does not. */
export function unavailable(what: string): OpaFault {
  return new OpaFault('opa_unavailable', `OPA could not be asked: ${what}.`);
}

/** OPA's answer decides nothing: a mistake in the policy, or in `path`. */
export function noDecision(what: string): OpaFault {
  return new OpaFault('opa_no_decision', `The policy's decision cannot be read: ${what}.`);
}
