/**
 * A response, read into the hub. What is not as documented is as if absent.
 * Source: https://platform.openai.com/docs/api-reference/responses/object
 */
import type { Json } from '../../../dialects/dialect.ts';
import { badAnswer, countOf, objectOf, objectsOf, textOf } from '../../../hub/fields.ts';
import type { Finish, HubReply, HubUsage, Logprob, ReplyPart } from '../../../hub/reply.ts';
import type { Citation, ReasoningPart } from '../../../hub/request.ts';
import { headOf as chatHead, readLogprob } from '../reply.ts';
import { failureOf } from './error.ts';

/** Reads a whole answer of the provider `name`. @throws GatewayError `upstream_bad_answer`, or what it reports in a 200 */
export function readResponse(body: Json, name: string): HubReply {
  if (body.error || body.status === 'failed') throw failureOf(objectOf(body.error), name);
  if (!Array.isArray(body.output) || !isOver(body)) throw badAnswer();
  const output = objectsOf(body.output);
  const parts = output.flatMap(readItem);
  const logprobs = output.flatMap((item) => objectsOf(item.content).flatMap((part) => logprobsOf(part.logprobs)));
  const usage = usageOf(body.usage);
  return {
    ...headOf(body),
    choices: [{ index: 0, parts, finish: finishOf(body, parts), ...(logprobs.length > 0 && { logprobs }) }],
    ...(usage !== undefined && { usage }),
  };
}

/** One that is still under way (`background`) was not asked for. */
function isOver({ status }: Json): boolean {
  return status === undefined || status === 'completed' || status === 'incomplete';
}

/** What an answer and its first event tell of themselves. */
export function headOf(body: Json): Pick<HubReply, 'id' | 'model' | 'created' | 'serviceTier'> {
  return chatHead({ ...body, created: body.created_at });
}

// --- Items --------------------------------------------------------------------------------------------------------

function readItem(item: Json): ReplyPart[] {
  switch (item.type) {
    case 'message':
      return objectsOf(item.content).flatMap(readContent);
    case 'reasoning':
      return thoughtOf(item);
    case 'function_call':
      return [
        {
          type: 'tool-call',
          id: textOf(item.call_id) ?? textOf(item.id) ?? '',
          name: textOf(item.name) ?? '',
          arguments: textOf(item.arguments) ?? '',
        },
      ];
    case 'image_generation_call':
      return pictureOf(item);
    default:
      // Tools of OpenAI's own, which no request from here offers.
      return [];
  }
}

function readContent(part: Json): ReplyPart[] {
  const [text, refusal] = [textOf(part.text), textOf(part.refusal)];
  if (part.type === 'refusal') return refusal ? [{ type: 'refusal', text: refusal }] : [];
  if (part.type !== 'output_text' || !text) return [];
  const citations = objectsOf(part.annotations).flatMap(citationOf);
  return [{ type: 'text', text, ...(citations.length > 0 && { citations }) }];
}

/** The summary, or all of the thoughts where a model shows them, with OpenAI's seal. */
function thoughtOf(item: Json): ReasoningPart[] {
  const text = [...objectsOf(item.summary), ...objectsOf(item.content)].flatMap((part) => textOf(part.text) || []);
  return sealed(text.join('\n\n'), textOf(item.encrypted_content));
}

/** Thoughts that are shown are signed by the seal; of those that are not it is all there is. */
export function sealed(text: string, seal: string | undefined): ReasoningPart[] {
  if (!seal) return text === '' ? [] : [{ type: 'reasoning', text }];
  return [text === '' ? { type: 'reasoning', text, redacted: seal } : { type: 'reasoning', text, signature: seal }];
}

/** A picture that the model made. */
export function pictureOf({
  result,
  output_format: format,
}: Json): { type: 'media'; mediaType: string; data: string }[] {
  const kind = format === 'jpeg' || format === 'webp' ? format : 'png';
  return typeof result === 'string' && result !== ''
    ? [{ type: 'media', mediaType: `image/${kind}`, data: result }]
    : [];
}

/** A page or a file that is cited. */
export function citationOf(cited: Json): Citation[] {
  const [url, title] = [textOf(cited.url), textOf(cited.title) || textOf(cited.filename)];
  const [start, end] = [countOf(cited.start_index), countOf(cited.end_index)];
  if (!url && !title) return [];
  return [
    {
      ...(url && { url }),
      ...(title && { title }),
      ...(start !== undefined && { start }),
      ...(end !== undefined && { end }),
    },
  ];
}

/** Log probabilities of a part, or of a delta. */
export function logprobsOf(told: unknown): Logprob[] {
  return objectsOf(told).flatMap(readLogprob);
}

// --- Ends and counts ----------------------------------------------------------------------------------------------

/** Why an answer ended; what it has said tells apart what is `completed` to OpenAI. */
export function finishOf(body: Json, said: { type: string }[]): Finish {
  const reason = objectOf(body.incomplete_details)?.reason;
  if (reason === 'content_filter') return 'content-filter';
  if (body.status === 'incomplete') return 'length';
  if (said.some(({ type }) => type === 'tool-call')) return 'tool-calls';
  return said.some(({ type }) => type === 'refusal') ? 'refusal' : 'stop';
}

/** The counts of an answer; undefined when there are none. */
export function usageOf(told: unknown): HubUsage | undefined {
  const usage = objectOf(told);
  const [inputTokens, outputTokens] = [countOf(usage?.input_tokens), countOf(usage?.output_tokens)];
  if (inputTokens === undefined && outputTokens === undefined) return undefined;
  const [input, output] = [objectOf(usage?.input_tokens_details), objectOf(usage?.output_tokens_details)];
  const [cached, written] = [countOf(input?.cached_tokens), countOf(input?.cache_write_tokens)];
  const reasoning = countOf(output?.reasoning_tokens);
  return {
    inputTokens: inputTokens ?? 0,
    outputTokens: outputTokens ?? 0,
    ...(cached !== undefined && { cachedInputTokens: cached }),
    ...(written !== undefined && { cacheWriteTokens: written }),
    ...(reasoning !== undefined && { reasoningTokens: reasoning }),
  };
}
