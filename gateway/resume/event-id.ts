/** The names of events: `<stream>-<number>`, where the stream is 128 random bits and its events count from 1. */
import { randomBytes } from 'node:crypto';

export interface EventId {
  stream: string;
  /** 0 stands for the moment before the first event. */
  number: number;
}

const EVENT_ID = /^([A-Za-z0-9_-]{22})-(0|[1-9]\d{0,14})$/;

/** A name that nobody can guess, in base64url. */
export function newStreamId(): string {
  return randomBytes(16).toString('base64url');
}

/** Reads the value of a `Last-Event-ID`; undefined when it is none of ours. */
export function readEventId(text: string): EventId | undefined {
  const [, stream, number] = EVENT_ID.exec(text) ?? [];
  return stream === undefined ? undefined : { stream, number: Number(number) };
}
