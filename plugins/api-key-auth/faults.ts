/** What keeps a key from being judged, in words that may be logged: none of them is made from what a request holds. */
import { PluginFault } from '../../proto/contract.ts';

/** A key could not be judged. */
export class KeyFault extends PluginFault {
  declare readonly code: 'key_store_unavailable' | 'key_store_bad_record' | 'key_claim_missing';
}
