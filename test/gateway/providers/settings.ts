/** What the gateway gives every provider, with its defaults filled in. */
export const SETTINGS = {
  timeouts: { connect: 1, firstByte: 1, idle: 1 },
  streamUsage: true,
  unmapped: 'refuse' as const,
};
