/**
 * Keys as this plugin makes them: a readable prefix, 256 random bits, and a checksum.
 *
 * The checksum (CRC-32, as in GitHub's tokens) tells a typo from an unknown key without a look into the store, and lets a
 * scanner tell a leaked key from other random text. It protects nothing.
 */
import { hash, randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
/** 62^43 is more than 2^256. */
const SECRET_LENGTH = 43;
/** 62^6 is more than 2^32. */
const CHECKSUM_LENGTH = 6;

/** Begins every key that is made without another prefix. */
export const DEFAULT_PREFIX = 'wg_';
/** How many characters of a key are shown, so that its holder can tell which one it is. */
const SHOWN = 4;

/** A new key; `prefix` is what it begins with. */
export function newKey(prefix: string): string {
  const secret = base62(BigInt(`0x${randomBytes(32).toString('hex')}`), SECRET_LENGTH);
  return `${prefix}${secret}${checksum(prefix + secret)}`;
}

/** Whether a key that begins as ours do is none: it was cut, or mistyped. Of other keys it knows nothing. */
export function isMistyped(key: string): boolean {
  return key.startsWith(DEFAULT_PREFIX) && checksum(key.slice(0, -CHECKSUM_LENGTH)) !== key.slice(-CHECKSUM_LENGTH);
}

/** The first characters of a key, prefix included. */
export function startOf(key: string, prefix: string): string {
  return key.slice(0, prefix.length + SHOWN);
}

/** What a key is known by: its SHA-256. */
export function digestOf(key: string): Buffer {
  return hash('sha256', key, 'buffer');
}

/** What a key is called where people and other plugins speak of it: the first 16 hexadecimal digits of its digest. */
export function idOf(digest: Buffer): string {
  return digest.toString('hex', 0, 8);
}

function checksum(body: string): string {
  return base62(BigInt(crc32(body)), CHECKSUM_LENGTH);
}

function base62(number: bigint, length: number): string {
  let out = '';
  for (let rest = number; out.length < length; rest /= 62n) out = DIGITS[Number(rest % 62n)] + out;
  return out;
}
