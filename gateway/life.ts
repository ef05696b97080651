/** What a request carries along once its route is known. */
import type { Dialect } from './dialects/dialect.ts';
import type { Exchange } from './exchange.ts';
import type { Gateway } from './gateway.ts';
import type { Route, Snapshot } from './snapshot.ts';
import type { RequestRecord } from './telemetry/record.ts';

export interface Life {
  gateway: Gateway;
  snapshot: Snapshot;
  route: Route;
  /** The path without the route's prefix. */
  path: string;
  exchange: Exchange;
  record: RequestRecord;
  dialect: Dialect;
}
