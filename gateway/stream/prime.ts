/**
 * Waits until a stream says something. Before its first content nothing has reached the client, so a provider that fails
 * until then is passed over unseen, also in the read that brought the content; keep-alives and empty events are none.
 */
import type { ChatDialect } from '../dialects/dialect.ts';
import { GatewayError } from '../errors.ts';
import type { HubEvent } from '../hub/reply.ts';
import type { StreamReader } from '../providers/provider.ts';
import type { BodyListener, UpstreamReply } from '../upstream.ts';
import { FrameReader, frameData, isErrorFrame } from './frames.ts';

/** Looks at the beginning of a stream. Both answer whether it has begun to say something; they throw when it failed. */
export interface Look {
  see(bytes: Buffer): boolean;
  end(): boolean;
}

/** How much may come before the first content, in bytes; more is content of a kind that is not known here. */
const MAX_PRELUDE = 65_536;

/** What ends the wait for a stream's beginning. */
interface Patience {
  /** In milliseconds; undefined: as long as the provider may. */
  firstTokenMs: number | undefined;
  /** Tells when nobody waits any more. */
  stop: { onStop(listener: (reason: Error) => void): void };
}

/**
 * Settles with the same answer once its stream has begun; what came until then is handed over first.
 * @throws GatewayError `upstream_timeout` when nothing is said in time, and what the look threw
 */
export function primed(reply: UpstreamReply, look: Look, { firstTokenMs, stop }: Patience): Promise<UpstreamReply> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    let state: 'waiting' | 'begun' | 'handed over' | 'lost' = 'waiting';
    const timer = firstTokenMs === undefined ? undefined : setTimeout(() => lost(late()), firstTokenMs);
    const handOver = () => {
      if (state !== 'begun') return;
      state = 'handed over';
      resolve(new Primed(reply, chunks));
    };
    const begun = () => {
      if (state !== 'waiting') return;
      state = 'begun';
      clearTimeout(timer);
      // What else is in the same read comes first.
      queueMicrotask(handOver);
    };
    const lost = (error: unknown) => {
      state = 'lost';
      clearTimeout(timer);
      reply.abort();
      reject(error);
    };
    const attempt = (has: () => boolean) => {
      try {
        if (has()) begun();
      } catch (error) {
        lost(error);
      }
    };
    stop.onStop((reason) => {
      if (state === 'waiting') lost(reason);
    });
    reply.listen({
      data(chunk) {
        if (state === 'lost') return;
        chunks.push(chunk);
        length += chunk.length;
        if (state !== 'handed over') attempt(() => look.see(chunk) || length > MAX_PRELUDE);
      },
      end() {
        if (state !== 'waiting') return;
        attempt(() => {
          if (look.end()) return true;
          throw silent();
        });
      },
      failed(cause) {
        if (state === 'waiting') lost(brokeOff(cause));
      },
    });
  });
}

function late(): GatewayError {
  return new GatewayError('upstream_timeout', 'The provider did not begin its answer in time. Try again.');
}

function brokeOff(cause: Error): GatewayError {
  return new GatewayError('upstream_failed', 'The provider broke off before its answer began. Try again.', { cause });
}

function silent(): GatewayError {
  return new GatewayError('upstream_bad_answer', 'The provider ended its answer before it began. Try again.');
}

/** An answer of which a part has been read. */
class Primed implements UpstreamReply {
  readonly status: number;
  readonly headers: UpstreamReply['headers'];
  private readonly reply: UpstreamReply;
  private readonly chunks: Buffer[];

  constructor(reply: UpstreamReply, chunks: Buffer[]) {
    this.reply = reply;
    this.status = reply.status;
    this.headers = reply.headers;
    this.chunks = chunks;
  }

  listen(listener: BodyListener): void {
    for (const chunk of this.chunks.splice(0)) listener.data(chunk);
    this.reply.listen(listener);
  }

  collect(): Promise<Buffer> {
    throw new Error('a stream is not collected');
  }

  pause(): void {
    this.reply.pause();
  }

  resume(): void {
    this.reply.resume();
  }

  abort(): void {
    this.reply.abort();
  }
}

/** Looks at a stream of the client's own dialect. `wantsContent`: an event that says nothing yet is no beginning. */
export function lookAtDialect(dialect: ChatDialect, wantsContent: boolean): Look {
  const frames = new FrameReader();
  let isFinished = false;
  const saysSomething = (frame: string): boolean => {
    const data = frameData(frame);
    if (data === undefined || data === '') return false;
    let event: ReturnType<ChatDialect['readEvent']>;
    try {
      event = dialect.readEvent(data);
    } catch {
      throw new GatewayError('upstream_bad_answer', 'The provider’s answer is not a stream of events. Try again.');
    }
    if (event.error !== undefined || isErrorFrame(frame)) throw reported();
    isFinished = event.done || event.finished.length > 0;
    return !wantsContent || isFinished || event.tools.length > 0 || event.parts.some(({ text }) => text !== '');
  };
  const look = (list: string[]) => anyOf(list, saysSomething, () => isFinished);
  return {
    see: (bytes) => look(frames.push(bytes)),
    end() {
      const last = frames.end();
      return last !== undefined && look([last]);
    },
  };
}

/** Looks at a stream of a vendor's own format. */
export function lookAtEvents(reader: StreamReader, wantsContent: boolean): Look {
  let isFinished = false;
  const begins = (event: HubEvent) => {
    isFinished = event.type === 'finish';
    return isContent(event) || !wantsContent;
  };
  const look = (events: HubEvent[]) => anyOf(events, begins, () => isFinished);
  return { see: (bytes) => look(reader.push(bytes)), end: () => look(reader.end()) };
}

/** Looks at all that came, for a failure behind the content; behind the finish none is of interest. */
function anyOf<T>(list: T[], isMeant: (one: T) => boolean, isOver: () => boolean): boolean {
  let found = false;
  for (const one of list) {
    if (isMeant(one)) found = true;
    if (isOver()) break;
  }
  return found;
}

/** @throws GatewayError the provider's own error */
function isContent(event: HubEvent): boolean {
  switch (event.type) {
    case 'error':
      throw event.error;
    case 'text':
    case 'reasoning':
    case 'refusal':
      return event.text !== '';
    case 'start':
    case 'usage':
    case 'part-end':
    case 'end':
      return false;
    default:
      return true;
  }
}

function reported(): GatewayError {
  return new GatewayError('upstream_failed', 'The provider reported an error instead of an answer. Try again.');
}
