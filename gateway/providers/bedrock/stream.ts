/** ConverseStream. Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html */
import type { Json } from '../../dialects/dialect.ts';
import { asGatewayError } from '../../errors.ts';
import { badAnswer, countOf, objectOf, textOf } from '../../hub/fields.ts';
import type { HubEvent } from '../../hub/reply.ts';
import type { StreamReader } from '../provider.ts';
import { streamError } from './error.ts';
import { type Message, MessageReader } from './frames.ts';
import { citationOf, finishOf, imageType, isServerTool, newId, stopSequenceOf, usageOf } from './reply.ts';

/** A block that is open. */
type Block =
  | { kind: 'tool'; call: number }
  | { kind: 'image'; mediaType: string; pieces: Buffer[] }
  /** What a tool of Bedrock's own side was asked, or answered: not the client's. */
  | { kind: 'other' }
  /** Text and thoughts, which may come without a start. */
  | { kind: 'text' };

/** The longest image that is put together, in bytes. */
const MAX_IMAGE = 16 * 1024 * 1024;

export class ConverseReader implements StreamReader {
  private readonly provider: string;
  private readonly messages = new MessageReader();
  private readonly blocks = new Map<number, Block>();
  private imageBytes = 0;
  private calls = 0;
  private state: 'new' | 'begun' | 'stopped' | 'ended' = 'new';

  /** `provider` is its name in the config. */
  constructor(provider: string) {
    this.provider = provider;
  }

  push(bytes: Buffer): HubEvent[] {
    const events: HubEvent[] = [];
    if (this.state === 'ended') return events;
    try {
      this.messages.push(bytes, (message) => this.read(message, events));
    } catch (thrown) {
      // What came before it in the same piece is passed on first.
      this.state = 'ended';
      events.push({ type: 'error', error: asGatewayError(thrown) });
    }
    return events;
  }

  /** The usage comes after the stop; a stream that was closed between them is complete all the same. */
  end(): HubEvent[] {
    if (this.state !== 'stopped' || this.messages.isCut) return [];
    this.state = 'ended';
    return [{ type: 'end' }];
  }

  private read({ kind, type, body }: Message, events: HubEvent[]): void {
    if (this.state === 'ended') return;
    if (kind !== 'event') {
      this.state = 'ended';
      events.push({ type: 'error', error: streamError(this.provider, type, body) });
      return;
    }
    if (this.state === 'new') {
      this.state = 'begun';
      events.push({ type: 'start', ...newId() });
    }
    if (type === 'contentBlockStart') this.blockStart(body, events);
    else if (type === 'contentBlockDelta') this.blockDelta(body, events);
    else if (type === 'contentBlockStop') this.blockStop(body, events);
    else if (type === 'messageStop') this.stop(body, events);
    else if (type === 'metadata') this.metadata(body, events);
  }

  private blockStart({ contentBlockIndex, start }: Json, events: HubEvent[]): void {
    const { toolUse, image, toolResult } = objectOf(start) ?? {};
    const tool = objectOf(toolUse);
    const picture = objectOf(image);
    let block: Block = { kind: 'text' };
    if (tool !== undefined && !isServerTool(tool)) block = this.toolStart(tool, events);
    else if (picture !== undefined) block = { kind: 'image', mediaType: imageType(picture.format), pieces: [] };
    else if (tool !== undefined || toolResult !== undefined) block = { kind: 'other' };
    this.blocks.set(countOf(contentBlockIndex) ?? 0, block);
  }

  private toolStart({ name, toolUseId }: Json, events: HubEvent[]): Block {
    const called = textOf(name);
    if (called === undefined) throw badAnswer();
    const call = this.calls++;
    events.push({ type: 'tool-call', choice: 0, call, id: textOf(toolUseId) ?? '', name: called });
    return { kind: 'tool', call };
  }

  private blockDelta({ contentBlockIndex, delta }: Json, events: HubEvent[]): void {
    const index = countOf(contentBlockIndex) ?? 0;
    const { text, toolUse, reasoningContent, citation, image } = objectOf(delta) ?? {};
    const block = this.blocks.get(index);
    if (block === undefined) {
      // Arguments of a call that nobody named.
      if (objectOf(toolUse) !== undefined) throw badAnswer();
      this.blocks.set(index, { kind: 'text' });
    }
    const input = textOf(objectOf(toolUse)?.input);
    if (block?.kind === 'tool' && input !== undefined)
      events.push({ type: 'tool-arguments', choice: 0, call: block.call, text: input });
    if (block?.kind === 'image') this.imagePiece(block.pieces, image);
    const words = textOf(text);
    if (words !== undefined) events.push({ type: 'text', choice: 0, text: words });
    const cited = objectOf(citation);
    if (cited !== undefined) events.push({ type: 'citation', choice: 0, citation: citationOf(cited) });
    const thought = objectOf(reasoningContent);
    if (thought !== undefined) thoughtDelta(thought, events);
  }

  private imagePiece(pieces: Buffer[], image: unknown): void {
    const bytes = Buffer.from(textOf(objectOf(objectOf(image)?.source)?.bytes) ?? '', 'base64');
    this.imageBytes += bytes.length;
    if (this.imageBytes > MAX_IMAGE) throw badAnswer();
    pieces.push(bytes);
  }

  private blockStop({ contentBlockIndex }: Json, events: HubEvent[]): void {
    const index = countOf(contentBlockIndex) ?? 0;
    const block = this.blocks.get(index);
    this.blocks.delete(index);
    if (block === undefined || block.kind === 'other') return;
    if (block.kind === 'image') {
      const data = Buffer.concat(block.pieces).toString('base64');
      events.push({ type: 'media', choice: 0, mediaType: block.mediaType, data });
    }
    events.push({ type: 'part-end', choice: 0 });
  }

  private stop(body: Json, events: HubEvent[]): void {
    if (this.state === 'stopped') return;
    this.state = 'stopped';
    const stopSequence = stopSequenceOf(body);
    events.push({ type: 'finish', choice: 0, finish: finishOf(body.stopReason), stopSequence });
  }

  private metadata(body: Json, events: HubEvent[]): void {
    const usage = usageOf(body.usage);
    if (usage !== undefined) events.push({ type: 'usage', usage });
    if (this.state !== 'stopped') return;
    this.state = 'ended';
    events.push({ type: 'end' });
  }
}

function thoughtDelta({ text, signature, redactedContent }: Json, events: HubEvent[]): void {
  const words = textOf(text);
  if (words !== undefined) events.push({ type: 'reasoning', choice: 0, text: words });
  const seal = textOf(signature);
  if (seal !== undefined) events.push({ type: 'signature', choice: 0, signature: seal });
  const data = textOf(redactedContent);
  if (data !== undefined) events.push({ type: 'redacted', choice: 0, data });
}
