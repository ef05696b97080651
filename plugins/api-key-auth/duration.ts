/** Times as people write them in the config and on the command line. */

/** A whole number and its unit: `500ms`, `30s`, `15m`, `24h`, `90d`. */
export const DURATION = /^(\d{1,9})(ms|s|m|h|d)$/;
