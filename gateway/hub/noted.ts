/** What is noted while a dialect reads a request into the hub: which features it used, and what nobody read. */
import type { Feature } from './features.ts';
import type { Fields } from './fields.ts';
import type { HubRequest } from './request.ts';

/** Notes that a feature was used here, unless it was noted before: the first place is the one that is told. */
export function use(hub: HubRequest, feature: Feature, path: string): void {
  if (!hub.used.has(feature)) hub.used.set(feature, path);
}

/** Notes what nobody read of an object. */
export function leave(hub: HubRequest, ...objects: (Fields | undefined)[]): void {
  for (const object of objects) if (object !== undefined) hub.unknown.push(...object.unread());
}
