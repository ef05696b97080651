/** What keeps a key from being judged, in words that may be logged: none of them is made from what a request holds. */

/** A key could not be judged. The gateway logs the code and the message of what is called a PluginFault. */
export class KeyFault extends Error {
  readonly code: 'key_store_unavailable' | 'key_store_bad_record' | 'key_claim_missing';

  constructor(code: KeyFault['code'], message: string) {
    super(message);
    this.name = 'PluginFault';
    this.code = code;
  }
}
