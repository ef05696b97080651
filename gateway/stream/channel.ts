/**
 * One text channel of a guarded stream: the guards one after another, each with what it holds back, then the repair of
 * masked tool arguments and the restoring of masks.
 */
import { LOOKBEHIND, type StreamInput } from '../../proto/contract.ts';
import { GatewayError } from '../errors.ts';
import { ask, factsFor, type Judgement, refusal } from '../hooks.ts';
import { isWindowed, type Mount } from '../mount.ts';
import type { RequestRecord } from '../telemetry/record.ts';
import { JsonText } from './json-text.ts';
import type { Restorer } from './restore.ts';
import { askWindowed } from './windowed.ts';

/** What a channel needs to know of its stream. */
export interface ChannelContext {
  mounts: Mount[];
  restorer: Restorer | undefined;
  record: RequestRecord;
}

/** One guard's place on one channel. */
interface Stage {
  mount: Mount;
  /** Raw text that the guard wants to see again. */
  held: string;
  /** When the oldest of it was first held, `performance.now()`; 0 when nothing is held. */
  heldSince: number;
  /** What has been released, for look-behind. */
  before: string;
}

/** Text on its way through the stages of a channel. */
export class Channel {
  readonly name: string;
  private readonly context: ChannelContext;
  private readonly stages: Stage[];
  private readonly json: JsonText | undefined;
  private unrestored = '';
  /** Whether a guard has changed what is on its way out. */
  private isMasked = false;

  constructor(name: string, context: ChannelContext) {
    this.name = name;
    this.context = context;
    this.stages = context.mounts.map((mount) => ({ mount, held: '', heldSince: 0, before: '' }));
    const isArguments = name.includes('/tool-arguments/') && !name.endsWith('/custom');
    this.json = isArguments ? new JsonText() : undefined;
  }

  /** What will come out next if no guard changes it: text that has come in and not gone out. */
  get owed(): string {
    let owed = this.unrestored;
    for (let i = this.stages.length - 1; i >= 0; i -= 1) owed += this.stages[i]!.held;
    return owed;
  }

  /** True when some guard holds text back longer than its mount allows. */
  isOverdue(now: number): boolean {
    return this.stages.some((stage) => stage.held !== '' && now - stage.heldSince > stage.mount.policy.hold.time);
  }

  /**
   * Passes text through every guard and answers what may go out. Synchronous when all guards are.
   * Throws a GatewayError when a guard rejects.
   */
  push(text: string, last: boolean): string | Promise<string> {
    return this.through(0, text, last);
  }

  private through(from: number, text: string, last: boolean): string | Promise<string> {
    let current = text;
    for (let i = from; i < this.stages.length; i += 1) {
      const passed = this.stage(this.stages[i]!, current, last);
      if (passed instanceof Promise) return passed.then((released) => this.through(i + 1, released, last));
      current = passed;
    }
    return this.finish(current, last);
  }

  private stage(stage: Stage, text: string, last: boolean): string | Promise<string> {
    const window = stage.held + text;
    // An empty window is asked about only where it ends a text that was held.
    if (window === '') return '';
    const { gate } = stage.mount;
    if (gate !== undefined && !gate.test(window)) return this.released(stage, window, '', window);
    const { record } = this.context;
    const input: StreamInput = {
      request: factsFor(stage.mount, record),
      channel: this.name,
      before: stage.before,
      text: window,
      last,
    };
    const judged = isWindowed(stage.mount)
      ? askWindowed(stage.mount, input, record)
      : ask(stage.mount, 'stream', input, record);
    return judged instanceof Promise
      ? judged.then((verdict) => this.obey(stage, input, verdict))
      : this.obey(stage, input, judged);
  }

  private obey(stage: Stage, input: StreamInput, verdict: Judgement): string {
    if (verdict === undefined) return this.released(stage, input.text, '', input.text);
    if ('reject' in verdict) throw refusal(stage.mount, verdict.reject, 'content_rejected');
    if (!('release' in verdict)) throw new TypeError('a stream guard releases or rejects');
    const { release, hold } = verdict.release;
    if (hold.length > stage.mount.policy.hold.size) {
      if (stage.mount.policy.onFault === 'allow') return this.released(stage, input.text, '', input.text);
      throw new GatewayError(
        'guard_unavailable',
        `The answer was stopped because the guard “${stage.mount.name}” could not decide in time.`,
        { publicCode: 'guard_hold_exceeded' },
      );
    }
    return this.released(stage, release, hold, input.text);
  }

  private released(stage: Stage, release: string, hold: string, window: string): string {
    if (hold === '') stage.heldSince = 0;
    else if (stage.held === '' || window.length > hold.length) stage.heldSince = performance.now();
    stage.held = hold;
    const decided = hold === '' ? window : window.slice(0, -hold.length);
    if (release !== decided) this.isMasked = true;
    stage.before = (stage.before + decided).slice(-LOOKBEHIND);
    return release;
  }

  private finish(text: string, last: boolean): string {
    const { restorer } = this.context;
    const repaired = this.json ? this.json.push(text, last, this.isMasked) : text;
    this.isMasked = false;
    if (restorer === undefined) return repaired;
    const whole = this.unrestored + repaired;
    const open = last ? whole.length : restorer.openAt(whole);
    this.unrestored = whole.slice(open);
    return restorer.restore(whole.slice(0, open), this.json !== undefined);
  }
}
