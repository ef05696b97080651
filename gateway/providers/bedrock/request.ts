/** A request for Converse. Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html */
import type { Json } from '../../dialects/dialect.ts';
import { invalid } from '../../hub/fields.ts';
import type { HubRequest, HubTool, OutputFormat } from '../../hub/request.ts';
import type { CallFacts } from '../provider.ts';
import { cachePoint, systemOf, turnsOf } from './content.ts';
import { extrasOf, familyOf } from './models.ts';

/** A guardrail of the operator's account that Bedrock applies itself. */
export interface Guardrail {
  id: string;
  version: string;
}

/** @throws GatewayError `invalid_request` that names the client's field */
export function writeConverse(request: HubRequest, facts: CallFacts, guardrail: Guardrail | undefined): Json {
  const { fields, effort } = extrasOf(request, facts.model);
  return told({
    ...prompt(request, facts.model),
    inferenceConfig: told({
      maxTokens: request.maxOutputTokens,
      temperature: temperatureOf(request),
      topP: request.topP,
      stopSequences: request.stop?.length ? request.stop : undefined,
    }),
    additionalModelRequestFields: told(fields),
    // Claude tells there which of the stop sequences it was.
    additionalModelResponseFieldPaths:
      request.stop?.length && familyOf(facts.model) === 'claude' ? ['/stop_sequence'] : undefined,
    outputConfig: told({ textFormat: textFormat(request), effort }),
    requestMetadata: metadataOf(request),
    serviceTier: serviceTier(request),
    guardrailConfig: guardrail && { guardrailIdentifier: guardrail.id, guardrailVersion: guardrail.version },
  }) as Json;
}

/** @throws GatewayError `invalid_request` that names the client's field */
export function writeCount(request: HubRequest, { model }: CallFacts): Json {
  const { fields } = extrasOf(request, model);
  return { input: { converse: { ...prompt(request, model), additionalModelRequestFields: told(fields) } } };
}

function prompt(request: HubRequest, model: string): Json {
  const system = systemOf(request.messages);
  return {
    messages: turnsOf(request, model),
    system: system.length > 0 ? system : undefined,
    toolConfig: toolConfig(request, model),
  };
}

/** An object without what is undefined; undefined when nothing is left. */
function told(fields: Json): Json | undefined {
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined);
  return entries.length > 0 ? Object.fromEntries(entries) : undefined;
}

function temperatureOf({ temperature, used }: HubRequest): number | undefined {
  if (temperature === undefined || (temperature >= 0 && temperature <= 1)) return temperature;
  throw invalid(used.get('temperature') ?? 'temperature', 'must be from 0 to 1 for Bedrock');
}

/** What stands in the invocation log may have some signs only. */
const NOTE = /^[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}$/;

function metadataOf({ metadata = {}, used }: HubRequest): Json | undefined {
  const isFit = Object.entries(metadata).every(([key, value]) => key !== '' && NOTE.test(key) && NOTE.test(value));
  if (isFit) return told(metadata);
  throw invalid(
    used.get('metadata') ?? 'metadata',
    'must be of letters, digits and :_@$#=/+,.- for Bedrock, 256 at most each',
  );
}

const TIERS: ReadonlySet<string> = new Set(['default', 'flex', 'priority', 'reserved']);

function serviceTier({ serviceTier: tier, used }: HubRequest): Json | undefined {
  if (tier === undefined || tier === 'auto') return undefined;
  if (TIERS.has(tier)) return { type: tier };
  throw invalid(used.get('service-tier') ?? 'service_tier', 'must be auto, default, flex, priority or reserved');
}

function textFormat({ format, used }: HubRequest): Json | undefined {
  if (format === undefined) return undefined;
  if (format.type !== 'json-schema')
    throw invalid(used.get('format.json') ?? 'response_format', 'must have a schema for Bedrock');
  return { type: 'json_schema', structure: { jsonSchema: schemaOf(format) } };
}

function schemaOf({ schema, name, description }: OutputFormat & { type: 'json-schema' }): Json {
  return { schema: JSON.stringify(schema), ...(name && { name }), ...(description && { description }) };
}

// --- Tools --------------------------------------------------------------------------------------------------------

function toolConfig(request: HubRequest, model: string): Json | undefined {
  const called = calledTools(request);
  if (request.toolChoice === 'none') {
    if (called.length > 0)
      throw invalid(
        request.used.get('tool-choice.none') ?? request.used.get('tool-choice') ?? 'tool_choice',
        'cannot forbid tools on Bedrock in a conversation that has called some',
      );
    return undefined;
  }
  const tools = request.tools.length > 0 ? request.tools.flatMap(toolSpecs) : called.map(formerTool);
  return tools.length === 0 ? undefined : { tools, ...toolChoice(request, model) };
}

function calledTools({ messages }: HubRequest): string[] {
  const names = messages.flatMap(({ parts }) =>
    parts.flatMap((part) => (part.type === 'tool-call' ? [part.name] : [])),
  );
  return [...new Set(names)];
}

function toolSpecs({ name, description, parameters, strict, cache }: HubTool): Json[] {
  const spec = {
    name,
    ...(description && { description }),
    inputSchema: { json: parameters ?? NO_ARGUMENTS },
    ...(strict !== undefined && { strict }),
  };
  return [{ toolSpec: spec }, ...cachePoint(cache)];
}

const NO_ARGUMENTS: Json = { type: 'object', properties: {} };

/** A conversation that called tools is refused unless some are declared, though the client offers none any more. */
function formerTool(name: string): Json {
  return { toolSpec: { name, description: 'No longer available.', inputSchema: { json: { type: 'object' } } } };
}

function toolChoice({ tools, toolChoice: choice, parallelToolCalls }: HubRequest, model: string): Json {
  // Claude's own words say it all then (see models.ts).
  if (parallelToolCalls === false && familyOf(model) === 'claude') return {};
  if (choice === undefined || choice === 'none' || tools.length === 0) return {};
  if (typeof choice === 'object') return { toolChoice: { tool: { name: choice.name } } };
  return { toolChoice: choice === 'required' ? { any: {} } : { auto: {} } };
}
