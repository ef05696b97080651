/**
 * OpenAI's API, and everything that is compatible with it: Groq, vLLM, Triton's front end, Ollama, Gemini's compatible
 * endpoint … Source: https://platform.openai.com/docs/api-reference and each vendor's page on compatibility.
 */
import type { ProviderConfig } from '../config/schema.ts';
import type { Json } from '../dialects/dialect.ts';
import { PRESETS } from './presets.ts';
import type { Provider, ProviderError } from './provider.ts';

/** Makes a provider from its config. */
export function openaiCompatible(name: string, config: ProviderConfig): Provider {
  const preset = PRESETS[config.kind] ?? {};
  const base = new URL(config.baseUrl ?? preset.baseUrl ?? '');
  const path = `${base.pathname.replace(/\/$/, '')}/chat/completions${base.search}`;
  const fixed = ['content-type', 'application/json', 'accept-encoding', 'identity', 'user-agent', 'wardgate'];
  if (config.key) fixed.push('authorization', `Bearer ${config.key}`);
  for (const [header, value] of Object.entries(config.headers ?? {})) fixed.push(header.toLowerCase(), value);
  return {
    name,
    telemetryName: preset.telemetryName ?? config.kind,
    origin: base.origin,
    timeouts: config.timeouts,
    streamUsage: config.streamUsage,
    outputLimitField: preset.outputLimitField ?? 'max_tokens',
    forwardedHeaders: ['traceparent', 'tracestate', 'openai-beta'],
    chatCall: (forwarded) => ({ path, headers: forwarded.length === 0 ? fixed : [...fixed, ...forwarded] }),
    readError: (status, body, retryAfter) => readError(name, status, body, retryAfter),
  };
}

/**
 * The client's own mistakes are told as the provider told them. What concerns the gateway's key or account is not the
 * client's business: a 401 from upstream would send people looking for a key that they do not have.
 */
function readError(name: string, status: number, body: unknown, retryAfter: string | undefined): ProviderError {
  const error = errorOf(body);
  const headers: Record<string, string> = retryAfter === undefined ? {} : { 'retry-after': retryAfter };
  if (status === 401 || status === 403 || status === 407) {
    return {
      code: 'upstream_refused_key',
      message: `The provider “${name}” refused the gateway’s key. Ask the gateway’s operator to check it.`,
      details: {},
    };
  }
  if (status === 429) {
    const until =
      retryAfter !== undefined && /^\d+$/.test(retryAfter)
        ? ` Try again in ${retryAfter} seconds.`
        : ' Try again later.';
    const details = { headers, publicCode: error.code ?? 'rate_limit_exceeded' };
    return { code: 'upstream_rate_limited', message: `The provider “${name}” is at its rate limit.${until}`, details };
  }
  if (status === 503 || status === 529) {
    return {
      code: 'upstream_overloaded',
      message: `The provider “${name}” is overloaded. Try again in a moment.`,
      details: { headers },
    };
  }
  if (status === 408 || status === 504) {
    return {
      code: 'upstream_timeout',
      message: `The provider “${name}” did not answer in time. Try again.`,
      details: {},
    };
  }
  if (status >= 500)
    return {
      code: 'upstream_failed',
      message: `The provider “${name}” failed (status ${status}). Try again.`,
      details: {},
    };
  // A redirect is not followed: it would carry the key and the prompt to an address that the operator did not choose.
  if (status < 400)
    return {
      code: 'upstream_bad_answer',
      message: `The provider “${name}” sent the request elsewhere (status ${status}). Ask the gateway’s operator to check its address.`,
      details: {},
    };
  const message = error.message ?? `The provider “${name}” refused the request (status ${status}).`;
  const details = { status, publicCode: error.code ?? 'invalid_request', type: error.type, param: error.param };
  return { code: 'upstream_invalid_request', message, details };
}

/** The error object, which some compatible servers wrap into a list or flatten to a string. */
function errorOf(body: unknown): { message?: string; code?: string; type?: string; param?: string } {
  const outer = Array.isArray(body) ? body[0] : body;
  const error = (outer as Json | undefined)?.error ?? outer;
  if (typeof error === 'string') return { message: error };
  if (typeof error !== 'object' || error === null) return {};
  const { message, code, type, param } = error as Json;
  return { message: text(message), code: text(code), type: text(type), param: text(param) };
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}
