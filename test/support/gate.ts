/** A door that a test opens once: whoever waits at it goes on, with no clock involved. */
export class Gate {
  readonly opened: Promise<void>;
  /** Lets everyone through, now and later. */
  readonly open: () => void;

  constructor() {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.opened = promise;
    this.open = resolve;
  }
}
