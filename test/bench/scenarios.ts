/** What is measured, and what is sent. */
import type { Job } from './load.ts';

export interface Scenario {
  id: string;
  title: string;
  /** What its table shows; see `report.ts`. */
  kind: 'latency' | 'whole' | 'first-byte' | 'stream' | 'paced' | 'burst' | 'memory';
  body: string;
  load: Omit<Job, 'port' | 'path' | 'headers' | 'body'>;
}

const PROSE =
  'The quarterly review meeting covered supply planning, hiring, and the new support desk. Please write a short ' +
  'summary of the main points, list the open questions, and suggest next steps for each team in plain words. ';
const PERSONAL =
  'Contact Jane Roe at jane.roe@example.com or 415-555-0132, SSN 078-05-1120, card 4111 1111 1111 1111. ';

/** A prompt of about so many KB, each with the same four personal data in it, so that guards have work to do. */
function prompt(kilobytes: number, stream?: { events: number; paceMs: number }): string {
  const filler = PROSE.repeat(6).slice(0, 1024 - PERSONAL.length);
  const content = (filler.slice(0, 300) + PERSONAL + filler.slice(300)).repeat(kilobytes);
  const messages = [
    { role: 'system', content: 'You are a helpful assistant.' },
    { role: 'user', content },
  ];
  const wish = stream && { stream: true, user: `bench n=${stream.events} m=${stream.paceMs}` };
  return JSON.stringify({ model: 'gpt-4o-mini', messages, max_tokens: 256, ...wish });
}

/** The scenarios with so many seconds each for what is measured, and so many streams where there are many. */
export function scenarios(seconds: number, scale: number): Scenario[] {
  const base = { connections: 1, seconds, warmSeconds: seconds / 5, rampSeconds: 0, stream: false, once: false };
  const many = Math.round(500 * scale);
  const open = Math.round(1_000 * scale);
  const poured = { stream: true, warmSeconds: seconds / 5 };
  return [
    {
      id: 'whole-1k-1',
      title: '1 KB prompt, whole answer, 1 connection',
      kind: 'latency',
      body: prompt(1),
      load: base,
    },
    {
      id: 'whole-1k',
      title: '1 KB prompt, whole answer, 32 connections',
      kind: 'whole',
      body: prompt(1),
      load: { ...base, connections: 32 },
    },
    {
      id: 'whole-20k',
      title: '20 KB prompt, whole answer, 32 connections',
      kind: 'whole',
      body: prompt(20),
      load: { ...base, connections: 32 },
    },
    {
      id: 'stream-1',
      title: 'Stream of 20 events, 1 connection: time to the first byte',
      kind: 'first-byte',
      body: prompt(1, { events: 20, paceMs: 0 }),
      load: { ...base, ...poured },
    },
    {
      id: 'stream',
      title: 'Streams of 100 events as fast as they are taken, 16 connections',
      kind: 'stream',
      body: prompt(1, { events: 100, paceMs: 0 }),
      load: { ...base, ...poured, connections: 16 },
    },
    {
      id: 'streams-paced',
      title: `${many} open streams, an event each 20 ms`,
      kind: 'paced',
      body: prompt(1, { events: 100, paceMs: 20 }),
      load: { ...base, stream: true, connections: many, rampSeconds: Math.max(2 * scale, 0.2), warmSeconds: 0 },
    },
    {
      id: 'streams-burst',
      title: `${many} streams that start all at once`,
      kind: 'burst',
      body: prompt(1, { events: 20, paceMs: 20 }),
      load: { ...base, stream: true, connections: many, once: true, warmSeconds: 0 },
    },
    {
      id: 'streams-open',
      title: `${open} open streams, an event each 0.5 s: memory`,
      kind: 'memory',
      body: prompt(1, { events: 1_000, paceMs: 500 }),
      load: { ...base, stream: true, connections: open, rampSeconds: Math.max(1.5 * scale, 0.2), warmSeconds: 0 },
    },
  ];
}
