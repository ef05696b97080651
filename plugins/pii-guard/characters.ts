/**
 * Classes of UTF-16 code units, by table for ASCII. Neighbours of a match are judged by these and never by `\b`, which
 * knows ASCII only.
 */

const DIGIT = 1;
const LETTER = 2;
const HEX = 4;
const LOCAL_PUNCTUATION = 8;
const TOKEN_PUNCTUATION = 16;

const ASCII = new Uint8Array(128);
for (let code = 48; code <= 57; code++) ASCII[code] = DIGIT | HEX;
for (let code = 65; code <= 90; code++) ASCII[code] = ASCII[code + 32] = LETTER | (code <= 70 ? HEX : 0);
for (const char of "._+-'") ASCII[char.charCodeAt(0)]! |= LOCAL_PUNCTUATION;
for (const char of '_-+/') ASCII[char.charCodeAt(0)]! |= TOKEN_PUNCTUATION;

const UNICODE_LETTER = /^[\p{L}\p{N}\p{M}]$/u;
const KNOWN = 1;
/** Answers of {@link UNICODE_LETTER} by code unit, filled when first asked; they depend on no text. */
const unicodeLetters = new Uint8Array(65_536);

function isUnicodeLetter(code: number): boolean {
  const known = unicodeLetters[code]!;
  if (known !== 0) return known !== KNOWN;
  const answer = UNICODE_LETTER.test(String.fromCharCode(code));
  unicodeLetters[code] = answer ? KNOWN + 1 : KNOWN;
  return answer;
}

export function isDigit(code: number): boolean {
  return code >= 48 && code <= 57;
}

export function isAsciiLetter(code: number): boolean {
  return code < 128 && (ASCII[code]! & LETTER) !== 0;
}

export function isHex(code: number): boolean {
  return code < 128 && (ASCII[code]! & HEX) !== 0;
}

export function isAlphanumeric(code: number): boolean {
  return code < 128 && (ASCII[code]! & (DIGIT | LETTER)) !== 0;
}

/** A letter, digit or combining mark of any script. A lone half of a surrogate pair is none. */
export function isLetterOrDigit(code: number): boolean {
  return code < 128 ? (ASCII[code]! & (DIGIT | LETTER)) !== 0 : isUnicodeLetter(code);
}

/**
 * Whether a number that touches this character is part of a word. Scripts that write without spaces (Chinese, Japanese,
 * Thai …) put numbers directly beside letters, so only letters below the Hebrew block and the extended Latin and
 * Greek ones (U+1E00–U+1FFF) count.
 */
export function isWord(code: number): boolean {
  if (code < 128) return (ASCII[code]! & (DIGIT | LETTER)) !== 0 || code === 95;
  return (code < 0x590 || (code >= 0x1e00 && code < 0x2000)) && isUnicodeLetter(code);
}

/** What the local part of an e-mail address is made of: letters and digits of any script, and `. _ + - '`. */
export function isLocalPart(code: number): boolean {
  return code < 128 ? (ASCII[code]! & (DIGIT | LETTER | LOCAL_PUNCTUATION)) !== 0 : isUnicodeLetter(code);
}

/** What keys and tokens are made of: base64 in both alphabets. */
export function isToken(code: number): boolean {
  return code < 128 && (ASCII[code]! & (DIGIT | LETTER | TOKEN_PUNCTUATION)) !== 0;
}
