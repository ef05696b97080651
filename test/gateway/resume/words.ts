/** The events of an upstream's stream, and what a client of the gateway reads of them. */
import { choice, chunk } from '../../support/chunks.ts';

export const says = (content: string) => chunk([choice(0, { content })]);
export const END = chunk([choice(0, {}, 'stop')]);
export const DONE = 'data: [DONE]\n\n';
export const dataOf = (event: object) => `data: ${JSON.stringify(event)}\n\n`;
