/** Encrypts what a cookie carries, so that the browser that keeps it can neither read nor change it. */
import { hash, hkdfSync } from 'node:crypto';
import { EncryptJWT, errors, jwtDecrypt } from 'jose';

interface SealKey {
  id: string;
  bytes: Uint8Array;
}

export class Seal {
  /** The first seals, all of them open. */
  readonly #keys: readonly SealKey[];

  /** @param purpose what is sealed for one purpose does not open for another */
  constructor(secrets: readonly string[], purpose: string) {
    this.#keys = secrets.map((secret) => keyOf(secret, purpose));
  }

  /** @param until milliseconds since the epoch */
  seal(value: object, until: number): Promise<string> {
    const { id, bytes } = this.#keys[0]!;
    return new EncryptJWT({ value })
      .setProtectedHeader({ alg: 'dir', enc: 'A256GCM', kid: id })
      .setExpirationTime(Math.ceil(until / 1000))
      .encrypt(bytes);
  }

  /** What was sealed; undefined when it was not sealed here, was changed, or is too old. */
  async open<T>(sealed: string): Promise<T | undefined> {
    try {
      const key = ({ kid }: { kid?: string }) => this.#keyFor(kid);
      const options = {
        keyManagementAlgorithms: ['dir'],
        contentEncryptionAlgorithms: ['A256GCM'],
        requiredClaims: ['exp'],
      };
      const { payload } = await jwtDecrypt(sealed, key, options);
      return payload.value as T;
    } catch (error) {
      if (error instanceof errors.JOSEError || error instanceof TypeError) return undefined;
      throw error;
    }
  }

  #keyFor(id: string | undefined): Uint8Array {
    const key = this.#keys.find((one) => one.id === id);
    if (key === undefined) throw new errors.JWEInvalid('sealed with a key that is not known');
    return key.bytes;
  }
}

/** RFC 5869. The id tells keys apart and gives nothing of them away. */
function keyOf(secret: string, purpose: string): SealKey {
  const bytes = new Uint8Array(hkdfSync('sha256', secret, '', `wardgate oidc-auth ${purpose}`, 32));
  return { id: hash('sha256', bytes, 'base64url').slice(0, 8), bytes };
}
