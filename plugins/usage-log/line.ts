/** One request as one line of JSON. Every field is picked by name, so that no text can slip in. */
import type { Finding, Identity, ObserveInput, TraceEntry, Usage } from '../../proto/contract.ts';

/** Names that a client or a plugin made up are cut at this length, in UTF-16 units. */
const MAX_NAME = 256;

export interface LineOptions {
  identity: boolean;
  trace: boolean;
  /** How many lines were lost just before this one. */
  dropped: number;
}

/** The line of a request, with its line break. */
export function lineOf(input: ObserveInput, { identity, trace, dropped }: LineOptions): string {
  const { request } = input;
  const line = {
    time: new Date().toISOString(),
    requestId: short(request.id),
    route: short(request.route),
    model: short(request.model),
    upstreamModel: short(input.upstreamModel),
    provider: short(input.provider),
    ...(identity && identityFields(request.identity)),
    status: input.status,
    outcome: input.outcome,
    code: short(input.code),
    streamed: input.streamed,
    usage: input.usage && usageFields(input.usage),
    costUsd: input.costUsd,
    durationMs: rounded(input.durationMs),
    firstTokenMs: rounded(input.firstTokenMs),
    trace: trace ? input.trace.map(traceFields) : undefined,
    droppedBefore: dropped > 0 ? dropped : undefined,
  };
  return `${JSON.stringify(line)}\n`;
}

function identityFields(identity: Identity | undefined): object | undefined {
  return (
    identity && { subject: short(identity.subject), issuer: short(identity.issuer), tenant: short(identity.tenant) }
  );
}

function usageFields(usage: Usage): object {
  const { inputTokens, outputTokens, cachedInputTokens, reasoningTokens, estimated } = usage;
  return { inputTokens, outputTokens, cachedInputTokens, reasoningTokens, estimated };
}

function traceFields({ plugin, hook, verdict, code, findings, ms, calls, shadow }: TraceEntry): object {
  const found = findings?.map(findingFields);
  return { plugin: short(plugin), hook, verdict, code: short(code), findings: found, ms: rounded(ms), calls, shadow };
}

function findingFields({ label, count }: Finding): object {
  return { label: short(label), count };
}

function short(name: string | undefined): string | undefined {
  return name === undefined || name.length <= MAX_NAME ? name : `${name.slice(0, MAX_NAME)}…`;
}

/** Milliseconds to the microsecond. */
function rounded(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.round(ms * 1000) / 1000;
}
