/** Azure's paths to OpenAI's formats: the deployment is in the path, and every answer tells what the filter found. */
import {
  type Access,
  bearer,
  type Call,
  header,
  ok,
  type Reply,
  type StreamPiece,
  sse,
  type WholeReply,
  type WireFormat,
} from './format.ts';
import { Refusal } from './model.ts';
import { errorOf, limitHeaders } from './openai.ts';
import { complete } from './openai-chat.ts';
import { embedAll } from './openai-embeddings.ts';
import { respond } from './openai-responses.ts';

const SAFE = { filtered: false, severity: 'safe' };
const NOTHING_FOUND = { hate: SAFE, self_harm: SAFE, sexual: SAFE, violence: SAFE };

/** Azure OpenAI: the paths with a deployment, which want an `api-version`, and those of `v1`. */
export const azure: WireFormat = {
  requestIdHeader: 'apim-request-id',
  routes: [
    {
      method: 'POST',
      path: /^\/openai\/deployments\/(?<model>[^/]+)\/chat\/completions$/,
      answer: onDeployment(filtered),
    },
    { method: 'POST', path: /^\/openai\/deployments\/(?<model>[^/]+)\/embeddings$/, answer: onDeployment(embedAll) },
    { method: 'POST', path: /^\/openai\/v1\/chat\/completions$/, answer: filtered },
    { method: 'POST', path: /^\/openai\/v1\/responses$/, answer: respond },
    { method: 'POST', path: /^\/openai\/v1\/embeddings$/, answer: embedAll },
  ],
  authenticate,
  refuse,
};

function authenticate({ headers }: Call, { wrongKeys }: Access): void {
  const key = header(headers, 'api-key') ?? bearer(headers);
  if (key !== undefined && !wrongKeys.has(key)) return;
  throw new Refusal(401, 'The request has no valid key: send api-key, or a token of Entra ID.', '401');
}

/** Azure's errors are OpenAI's, but for the filter's, and those of the door, which have a code and a message only. */
function refuse(refusal: Refusal): WholeReply {
  const { status, message, code } = refusal;
  const headers = limitHeaders(refusal);
  if (code === String(status)) return { status, headers, json: { error: { code, message } } };
  if (code !== 'content_policy_violation') return { status, headers, json: { error: errorOf(refusal) } };
  const innererror = {
    code: 'ResponsibleAIPolicyViolation',
    content_filter_result: { ...NOTHING_FOUND, violence: { filtered: true, severity: 'high' } },
  };
  return {
    status,
    json: { error: { message, type: null, param: 'prompt', code: 'content_filter', status, innererror } },
  };
}

/** The deployment's name stands for the model. */
function onDeployment(serve: (call: Call) => Reply): (call: Call) => Reply {
  return (call) => {
    if (!call.query.has('api-version')) throw new Refusal(404, 'Resource not found: api-version is missing.', '404');
    return serve({ ...call, body: { ...(call.body as object), model: call.parameters.model } });
  };
}

function filtered(call: Call): Reply {
  const reply = complete(call);
  const found = { prompt_filter_results: [{ prompt_index: 0, content_filter_results: NOTHING_FOUND }] };
  if ('stream' in reply) return { ...reply, stream: afterPromptFilter(reply.stream, found) };
  const completion = reply.json as { choices: object[] };
  const choices = completion.choices.map((choice) => ({ ...choice, content_filter_results: NOTHING_FOUND }));
  return ok({ ...completion, ...found, choices });
}

/** The first chunk has no choices, and neither an id nor a model. */
function* afterPromptFilter(stream: Iterable<StreamPiece>, found: object): Generator<StreamPiece> {
  yield { bytes: sse({ choices: [], created: 0, id: '', model: '', object: '', ...found }), token: false };
  yield* stream;
}
