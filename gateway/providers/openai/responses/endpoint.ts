/** OpenAI's Responses as an endpoint: `POST /v1/responses`. */
import { z } from 'zod';
import type { Json } from '../../../dialects/dialect.ts';
import { isForeign } from '../../../dialects/openai-responses/seals.ts';
import { invalid, objectsOf } from '../../../hub/fields.ts';
import type { ChatEndpoint } from '../../provider.ts';
import { readResponse } from './reply.ts';
import { writeResponse } from './request.ts';
import { openReader } from './stream.ts';
import { RESPONSES_SUPPORTS } from './supports.ts';

/** What the config of a provider says of its Responses. */
export const responsesSettings = {
  api: z
    .enum(['chat', 'responses'])
    .default('chat')
    .describe('What other dialects are translated to: chat completions, or Responses.'),
  storedResponses: z
    .enum(['refuse', 'allow'])
    .default('refuse')
    .describe(
      'Whether clients may refer to what is stored in the account (`previous_response_id`, `conversation`, items by id, `background`). Whoever knows an id can read what it stands for, whoever asked for it.',
    ),
};

type Settings = z.output<z.ZodObject<typeof responsesSettings>>;

/** Responses at the provider `name`. */
export function responsesEndpoint(
  name: string,
  path: string | ChatEndpoint['path'],
  { storedResponses }: Pick<Settings, 'storedResponses'>,
): ChatEndpoint {
  return {
    dialect: 'openai-responses',
    supports: RESPONSES_SUPPORTS,
    path: typeof path === 'string' ? () => path : path,
    write: writeResponse,
    read: (body) => readResponse(body, name),
    openReader: () => openReader(name),
    prefill: 'no',
    ...(storedResponses === 'refuse' && { check: refuseStored }),
    adapt: dropForeign,
    fits: ({ input }) => !objectsOf(input).some(isForeign),
  };
}

/** In the order in which they are to be asked: the first is what other dialects are translated to. */
export function preferred(api: Settings['api'], chat: ChatEndpoint, responses: ChatEndpoint): ChatEndpoint[] {
  return api === 'responses' ? [responses, chat] : [chat, responses];
}

/** Thoughts of another vendor, which answered in this conversation before: OpenAI refuses their seals, and misses their ids. */
function dropForeign(body: Json): void {
  if (Array.isArray(body.input)) body.input = body.input.filter((item) => !objectsOf([item]).some(isForeign));
}

/** The account is the gateway's, so what is stored in it may be any client's. */
function refuseStored(body: Json): void {
  for (const field of ['previous_response_id', 'conversation']) {
    if ((body[field] ?? undefined) !== undefined) throw stored(field);
  }
  if (body.background === true) {
    throw invalid('background', 'asks the provider to keep its answer until it is fetched, which nobody may do here');
  }
  if (!Array.isArray(body.input)) return;
  const referring = body.input.findIndex((item) => objectsOf([item]).some(isReference));
  if (referring >= 0) throw stored(`input[${referring}]`);
}

/** Only references and messages may leave out their type. */
function isReference({ type, role, content }: Json): boolean {
  return (
    type === 'item_reference' || ((type ?? undefined) === undefined && role === undefined && content === undefined)
  );
}

function stored(field: string) {
  return invalid(
    field,
    'refers to what the provider has stored, which may be another user’s. Send the earlier items themselves (`store: false` makes most clients do so)',
  );
}
