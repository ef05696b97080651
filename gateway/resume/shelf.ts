/** The kept streams of one route, within the bounds of the route's policy. */
import type { Cell } from '../telemetry/cells.ts';
import type { KeptStream } from './kept-stream.ts';
import type { ResumePolicy } from './policy.ts';

export class Shelf {
  /** What each takes, in bytes. */
  private readonly sizes = new Map<KeptStream, number>();
  /** Those that are complete, oldest first. */
  private readonly complete = new Set<KeptStream>();
  /** Those that may be asked for, of all routes. */
  private readonly findable: Map<string, KeptStream>;
  private readonly gauge: Cell;
  private bytes = 0;

  constructor(findable: Map<string, KeptStream>, gauge: Cell) {
    this.findable = findable;
    this.gauge = gauge;
  }

  /** Makes room for one more; false when all that are kept are still being written, or taken. */
  admits({ streams }: ResumePolicy): boolean {
    while (this.sizes.size >= streams) if (!this.dropOldest()) return false;
    return true;
  }

  add(stream: KeptStream): void {
    this.sizes.set(stream, 0);
    this.findable.set(stream.id, stream);
    this.gauge.value += 1;
  }

  ended(stream: KeptStream): void {
    this.complete.add(stream);
  }

  /** Nobody finds it any more. */
  hide({ id }: KeptStream): void {
    this.findable.delete(id);
  }

  remove(stream: KeptStream): void {
    // It has been emptied.
    this.resized(stream);
    this.hide(stream);
    this.complete.delete(stream);
    if (this.sizes.delete(stream)) this.gauge.value -= 1;
  }

  resized(stream: KeptStream): void {
    const before = this.sizes.get(stream);
    if (before === undefined) return;
    this.bytes += stream.log.size - before;
    this.sizes.set(stream, stream.log.size);
  }

  /** How much a stream may take, in bytes. Complete answers make room for those that are being written. */
  roomFor(stream: KeptStream, { size, total }: ResumePolicy): number {
    this.resized(stream);
    const wanted = Math.min(stream.log.size, size);
    while (this.bytes - stream.log.size + wanted > total) if (!this.dropOldest(stream)) break;
    return Math.max(0, Math.min(size, total - this.bytes + stream.log.size));
  }

  private dropOldest(but?: KeptStream): boolean {
    for (const stream of this.complete) {
      if (stream === but || stream.isAttached) continue;
      stream.giveUp();
      return true;
    }
    return false;
  }
}
