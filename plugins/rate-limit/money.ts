/** Amounts of money are whole billionths of a dollar: a token of the cheapest model costs some hundreds of them. */
export const NANO_USD = 1e9;

/** Below this many dollars an amount in billionths is exact. */
export const MAX_USD = 9_000_000;
