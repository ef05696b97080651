/** Gemini as the simulated model speaks it: `/v1beta/models/{model}:…` with Google's own keys, and Vertex' paths. */
import { z } from 'zod';
import { embed } from './embedding.ts';
import {
  type Access,
  bearer,
  type Call,
  header,
  newId,
  ok,
  type Reply,
  read,
  type StreamPiece,
  signatureOf,
  sse,
  type WholeReply,
  type WireFormat,
} from './format.ts';
import {
  type Answer,
  answer,
  checkCalls,
  countTokens,
  type Prompt,
  Refusal,
  type Tool,
  type Turn,
  words,
} from './model.ts';

const DIMENSIONS = 768;
const MODEL = {
  name: 'models/simulated',
  version: '001',
  displayName: 'Simulated',
  inputTokenLimit: 1_048_576,
  outputTokenLimit: 65_536,
  supportedGenerationMethods: ['generateContent', 'countTokens', 'embedContent'],
};
/** Google's own word for a call that another model made and that has no signature. */
const SKIPS_SIGNATURE = 'skip_thought_signature_validator';

const Part = z.looseObject({
  text: z.string().optional(),
  thought: z.boolean().optional(),
  thoughtSignature: z.string().optional(),
  functionCall: z.looseObject({ name: z.string(), args: z.record(z.string(), z.unknown()).optional() }).optional(),
  functionResponse: z.looseObject({ name: z.string(), response: z.record(z.string(), z.unknown()) }).optional(),
});
type Part = z.infer<typeof Part>;
const Parts = z.array(Part).min(1);
const Content = z.looseObject({ role: z.enum(['user', 'model', 'function']).optional(), parts: Parts });
const Declaration = z.looseObject({
  name: z.string(),
  parameters: z.record(z.string(), z.unknown()).optional(),
  parametersJsonSchema: z.record(z.string(), z.unknown()).optional(),
});
const GenerateRequest = z.strictObject({
  contents: z.array(Content).min(1),
  systemInstruction: z.looseObject({ parts: Parts }).optional(),
  tools: z.array(z.looseObject({ functionDeclarations: z.array(Declaration).optional() })).optional(),
  toolConfig: z
    .looseObject({
      functionCallingConfig: z
        .looseObject({
          mode: z.enum(['AUTO', 'ANY', 'NONE', 'VALIDATED', 'MODE_UNSPECIFIED']).optional(),
          allowedFunctionNames: z.array(z.string()).optional(),
        })
        .optional(),
    })
    .optional(),
  generationConfig: z
    .looseObject({
      maxOutputTokens: z.int().min(1).optional(),
      stopSequences: z.array(z.string()).max(5).optional(),
      candidateCount: z.int().min(1).max(8).optional(),
      responseMimeType: z.string().optional(),
      thinkingConfig: z
        .looseObject({ includeThoughts: z.boolean().optional(), thinkingBudget: z.int().optional() })
        .optional(),
    })
    .optional(),
  safetySettings: z.array(z.unknown()).optional(),
  cachedContent: z.string().optional(),
  store: z.boolean().optional(),
  model: z.string().optional(),
  labels: z.record(z.string(), z.string()).optional(),
});
type GenerateRequest = z.infer<typeof GenerateRequest>;
const CountRequest = z.looseObject({
  contents: z.array(Content).optional(),
  generateContentRequest: GenerateRequest.optional(),
  systemInstruction: z.looseObject({ parts: Parts }).optional(),
});
const EmbedRequest = z.looseObject({
  content: z.looseObject({ parts: Parts }),
  outputDimensionality: z.int().min(1).max(4096).optional(),
});
type EmbedRequest = z.infer<typeof EmbedRequest>;
const PredictRequest = z.looseObject({
  instances: z.array(z.looseObject({ content: z.string() })).min(1),
  parameters: z.looseObject({ outputDimensionality: z.int().min(1).max(4096).optional() }).optional(),
});

/** Gemini at Google's own door and at Vertex'. */
export const gemini: WireFormat = {
  requestIdHeader: 'x-goog-request-id',
  routes: [
    ...['v1beta', 'v1', 'v1alpha'].flatMap((version) => modelRoutes(`/${version}/models/(?<model>[^/:]+)`)),
    ...modelRoutes('/v1(?:beta1)?/projects/[^/]+/locations/[^/]+/publishers/google/models/(?<model>[^/:]+)'),
    { method: 'GET', path: /^\/v1beta\/models$/, answer: listModels },
    { method: 'GET', path: /^\/v1beta\/models\/(?<id>[^/:]+)$/, answer: oneModel },
    { method: 'GET', path: /^\/v1\/models$/, isMeant: hasGoogleKey, answer: listModels },
    { method: 'GET', path: /^\/v1\/models\/(?<id>[^/:]+)$/, isMeant: hasGoogleKey, answer: oneModel },
  ],
  authenticate,
  refuse,
};

function modelRoutes(prefix: string): WireFormat['routes'] {
  const verbs = {
    generateContent: generate,
    streamGenerateContent: streamGenerate,
    countTokens: count,
    embedContent: embedOne,
    batchEmbedContents: embedBatch,
    predict,
  };
  return Object.entries(verbs).map(([verb, serve]) => {
    return { method: 'POST', path: new RegExp(`^${prefix}:${verb}$`), answer: serve };
  });
}

function authenticate({ path, headers, query }: Call, { wrongKeys }: Access): void {
  const isVertex = path.includes('/projects/');
  const key = isVertex ? bearer(headers) : (header(headers, 'x-goog-api-key') ?? query.get('key') ?? bearer(headers));
  if (key === undefined && isVertex) throw new Refusal(401, 'The request has no OAuth 2 access token.');
  if (key === undefined) throw new Refusal(403, 'The request has no API key, and callers without one are not served.');
  if (!wrongKeys.has(key)) return;
  throw isVertex
    ? new Refusal(401, 'The access token is not a valid one.')
    : new Refusal(400, 'The API key is not a valid one.', 'API_KEY_INVALID');
}

function refuse(refusal: Refusal): WholeReply {
  return { status: refusal.status, json: { error: errorOf(refusal) } };
}

function errorOf(refusal: Refusal): object {
  const { status, message, code } = refusal;
  const word = code && code === code.toUpperCase() && code !== 'API_KEY_INVALID' ? code : wordFor(status);
  const details = detailsOf(refusal);
  return { code: status, message, status: word, ...(details.length > 0 ? { details } : {}) };
}

const WORDS: Record<number, string> = {
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  429: 'RESOURCE_EXHAUSTED',
  499: 'CANCELLED',
  503: 'UNAVAILABLE',
  504: 'DEADLINE_EXCEEDED',
};

function wordFor(status: number): string {
  return WORDS[status] ?? (status >= 500 ? 'INTERNAL' : 'INVALID_ARGUMENT');
}

/** Google tells in the body when to try again. */
function detailsOf({ code, retryAfterS, resetS }: Refusal): object[] {
  const type = (name: string) => ({ '@type': `type.googleapis.com/google.rpc.${name}` });
  const wait = retryAfterS ?? resetS;
  return [
    ...(code === 'API_KEY_INVALID' ? [{ ...type('ErrorInfo'), reason: code, domain: 'googleapis.com' }] : []),
    ...(wait === undefined ? [] : [{ ...type('RetryInfo'), retryDelay: `${wait}s` }]),
  ];
}

/** Version 1 has the same paths as OpenAI's. */
function hasGoogleKey(headers: Call['headers']): boolean {
  return 'x-goog-api-key' in headers;
}

function listModels(): Reply {
  return ok({ models: [MODEL] });
}

function oneModel({ parameters: { id = '' } }: Call): Reply {
  return ok({ ...MODEL, name: `models/${id}`, displayName: id });
}

function generate(call: Call): Reply {
  const { request, said, model } = asked(call);
  if (said.finish === 'blocked') return ok(blocked(said, model));
  return ok(answerOf(said, model, candidates(request, { parts: partsOf(said, request), ...endOf(said) })));
}

/** With `alt=sse` the chunks are events; without it they are the elements of one JSON array. */
function streamGenerate(call: Call): Reply {
  const { request, said, model } = asked(call);
  const all = said.finish === 'blocked' ? [{ json: blocked(said, model), token: false }] : chunks(request, said, model);
  if (call.query.get('alt') === 'sse') {
    return { status: 200, stream: asEvents(all), failure: (refusal) => sse({ error: errorOf(refusal) }) };
  }
  const failure = (refusal: Refusal) => `,\r\n${JSON.stringify({ error: errorOf(refusal) })}]`;
  return { status: 200, contentType: 'application/json', stream: asArray(all), failure, keepAlive: '\n' };
}

interface Chunk {
  json: object;
  token: boolean;
}

function* asEvents(all: Iterable<Chunk>): Generator<StreamPiece> {
  for (const { json, token } of all) yield { bytes: sse(json), token };
}

function* asArray(all: Iterable<Chunk>): Generator<StreamPiece> {
  let before = '[';
  for (const { json, token } of all) {
    yield { bytes: before + JSON.stringify(json), token };
    before = ',\r\n';
  }
  yield { bytes: ']', token: false };
}

function asked({ body, parameters: { model = '' }, prefill }: Call) {
  const request = read(GenerateRequest, body);
  checkSignatures(request, model);
  return { request, model, said: answer({ ...promptOf(request, model), prefill }) };
}

function promptOf(request: GenerateRequest, model: string): Omit<Prompt, 'prefill'> {
  const { generationConfig: config = {}, toolConfig } = request;
  const { mode = 'AUTO', allowedFunctionNames: allowed } = toolConfig?.functionCallingConfig ?? {};
  const turns = turnsOf(request);
  checkCalls(turns);
  return {
    model,
    turns,
    tools: toolsOf(request).filter(({ name }) => allowed?.includes(name) ?? true),
    toolChoice: mode === 'ANY' ? 'required' : mode === 'NONE' ? 'none' : 'auto',
    json: config.responseMimeType === 'application/json',
    thinks: config.thinkingConfig !== undefined && config.thinkingConfig.thinkingBudget !== 0,
    maxTokens: config.maxOutputTokens ?? Number.POSITIVE_INFINITY,
    stop: config.stopSequences ?? [],
  };
}

function toolsOf({ tools = [] }: GenerateRequest): Tool[] {
  const declared = tools.flatMap(({ functionDeclarations = [] }) => functionDeclarations);
  return declared.map(({ name, parameters, parametersJsonSchema }) => {
    return { name, parameters: parameters ?? parametersJsonSchema };
  });
}

function turnsOf({ systemInstruction, contents }: Pick<GenerateRequest, 'systemInstruction' | 'contents'>): Turn[] {
  const system: Turn[] = systemInstruction ? [{ role: 'system', text: textOf(systemInstruction.parts) }] : [];
  return [...system, ...contents.flatMap(({ role = 'user', parts }) => turnsOfContent(role, parts))];
}

/** Calls have no ids in most versions of Gemini: the first result belongs to the first call, and so on. */
function turnsOfContent(role: string, parts: Part[]): Turn[] {
  if (role === 'model') {
    const calls = parts.filter(({ functionCall }) => functionCall).map((_, at) => String(at));
    return [
      {
        role: 'assistant',
        text: textOf(parts.filter(({ functionCall, thought }) => !functionCall && !thought)),
        calls,
      },
    ];
  }
  const results = parts.flatMap(({ functionResponse }) => functionResponse ?? []);
  const rest = parts.filter(({ functionResponse }) => !functionResponse);
  const tools = results.map(
    ({ response }, at): Turn => ({ role: 'tool', text: resultOf(response), calls: [String(at)] }),
  );
  return rest.length === 0 ? tools : [...tools, { role: 'user', text: textOf(rest) }];
}

function resultOf(response: Record<string, unknown>): string {
  const { output, result = output } = response;
  return typeof result === 'string' ? result : JSON.stringify(response);
}

/** An image or a file is said back as its field's name in brackets. */
function textOf(parts: Part[]): string {
  return parts.map((part) => part.text ?? `[${Object.keys(part)[0]}]`).join('\n');
}

/** A signature that is sent back must be the model's own; Gemini 3 wants one with the first call of each turn. */
function checkSignatures({ contents }: GenerateRequest, model: string): void {
  for (const { parts } of contents) {
    const calls = parts.filter(({ functionCall }) => functionCall);
    for (const [at, { functionCall, thoughtSignature }] of calls.entries()) {
      if (thoughtSignature === SKIPS_SIGNATURE) continue;
      const isMissing = thoughtSignature === undefined && at === 0 && model.startsWith('gemini-3');
      if (isMissing) throw new Refusal(400, `The functionCall '${functionCall?.name}' has no thought_signature.`);
      if (thoughtSignature === undefined || thoughtSignature === signatureOf(functionCall?.name ?? '')) continue;
      throw new Refusal(400, `The thought signature of the functionCall '${functionCall?.name}' is not valid.`);
    }
  }
}

function partsOf(said: Answer, request: GenerateRequest): object[] {
  const thoughts = said.thoughts !== '' && showsThoughts(request) ? [{ text: said.thoughts, thought: true }] : [];
  if (said.finish === 'refusal') return thoughts;
  return [...thoughts, ...(said.text === '' ? [] : [{ text: said.text }]), ...callParts(said)];
}

function showsThoughts({ generationConfig }: GenerateRequest): boolean {
  return generationConfig?.thinkingConfig?.includeThoughts === true;
}

/** Only the first of parallel calls is signed. Arguments that were cut by the length are no call. */
function callParts({ calls }: Answer): object[] {
  return calls.flatMap(({ name, arguments: args }, at) => {
    const parsed = parsedArgs(args);
    const signed = at === 0 ? { thoughtSignature: signatureOf(name) } : {};
    return parsed === undefined ? [] : [{ functionCall: { name, args: parsed }, ...signed }];
  });
}

function parsedArgs(args: string): unknown {
  try {
    return JSON.parse(args);
  } catch {
    return undefined;
  }
}

interface Candidate {
  parts: object[];
  [field: string]: unknown;
}

function candidates({ generationConfig }: GenerateRequest, { parts, ...rest }: Candidate): object[] {
  return Array.from({ length: generationConfig?.candidateCount ?? 1 }, (_, index) => {
    return { content: { ...(parts.length > 0 ? { parts } : {}), role: 'model' }, ...rest, index };
  });
}

function endOf({ finish, source, text }: Answer): object {
  const finishReason = finish === 'length' ? 'MAX_TOKENS' : finish === 'refusal' ? 'SAFETY' : 'STOP';
  if (finish === 'refusal') return { finishReason, safetyRatings: RATINGS };
  return { finishReason, ...(source ? { groundingMetadata: groundingOf(source, text) } : {}) };
}

const RATINGS = [{ category: 'HARM_CATEGORY_DANGEROUS_CONTENT', probability: 'HIGH', blocked: true }];

/** Google counts the places in bytes. */
function groundingOf({ url, title }: { url: string; title: string }, text: string): object {
  return {
    groundingChunks: [{ web: { uri: url, title } }],
    groundingSupports: [
      { segment: { startIndex: 0, endIndex: Buffer.byteLength(text), text }, groundingChunkIndices: [0] },
    ],
  };
}

function blocked(said: Answer, model: string): object {
  const { candidates: _, ...rest } = answerOf(said, model, []);
  return { promptFeedback: { blockReason: 'SAFETY', safetyRatings: RATINGS }, ...rest };
}

function answerOf(said: Answer, model: string, all: object[]): { candidates: object[] } {
  const usageMetadata = usage(said, said.answerTokens - said.thoughtTokens);
  return { candidates: all, ...{ usageMetadata, modelVersion: model, responseId: newId('') } };
}

/** Thoughts are not among the candidates' tokens. */
function usage({ promptTokens, thoughtTokens }: Answer, candidateTokens: number): object {
  return {
    promptTokenCount: promptTokens,
    ...(candidateTokens > 0 ? { candidatesTokenCount: candidateTokens } : {}),
    ...(thoughtTokens > 0 ? { thoughtsTokenCount: thoughtTokens } : {}),
    totalTokenCount: promptTokens + candidateTokens + thoughtTokens,
    promptTokensDetails: [{ modality: 'TEXT', tokenCount: promptTokens }],
  };
}

/** Each chunk has what was used so far; the last has no words, but the end. A call of a tool comes in one chunk. */
function* chunks(request: GenerateRequest, said: Answer, model: string): Generator<Chunk> {
  const common = { modelVersion: model, responseId: newId('') };
  let length = 0;
  for (const part of streamedParts(request, said)) {
    length += part.thought ? 0 : (part.text?.length ?? 0);
    const usageMetadata = usage(said, Math.ceil(length / 4));
    yield { json: { candidates: candidates(request, { parts: [part] }), usageMetadata, ...common }, token: true };
  }
  const usageMetadata = usage(said, said.answerTokens - said.thoughtTokens);
  const last = said.finish === 'refusal' ? [] : [{ text: '' }];
  yield {
    json: { candidates: candidates(request, { parts: last, ...endOf(said) }), usageMetadata, ...common },
    token: false,
  };
}

function* streamedParts(request: GenerateRequest, said: Answer): Generator<{ text?: string; thought?: boolean }> {
  if (showsThoughts(request)) for (const text of words(said.thoughts)) yield { text, thought: true };
  if (said.finish === 'refusal') return;
  for (const text of words(said.text)) yield { text };
  yield* callParts(said);
}

function count({ body }: Call): Reply {
  const { generateContentRequest: whole, contents = [], systemInstruction } = read(CountRequest, body);
  const totalTokens = countTokens(turnsOf(whole ?? { contents, systemInstruction }));
  return ok({ totalTokens, promptTokensDetails: [{ modality: 'TEXT', tokenCount: totalTokens }] });
}

function embedOne({ body }: Call): Reply {
  return ok({ embedding: embedding(read(EmbedRequest, body)) });
}

function embedBatch({ body }: Call): Reply {
  const { requests } = read(z.looseObject({ requests: z.array(EmbedRequest).min(1).max(100) }), body);
  return ok({ embeddings: requests.map(embedding) });
}

function embedding({ content, outputDimensionality = DIMENSIONS }: EmbedRequest): object {
  return { values: embed(textOf(content.parts), outputDimensionality) };
}

/** Vertex' embeddings. */
function predict({ body }: Call): Reply {
  const { instances, parameters } = read(PredictRequest, body);
  const predictions = instances.map(({ content }) => {
    const statistics = { token_count: countTokens([{ role: 'user', text: content }]), truncated: false };
    return { embeddings: { values: embed(content, parameters?.outputDimensionality ?? DIMENSIONS), statistics } };
  });
  return ok({ predictions });
}
