/**
 * How a simulated model behaves: its pace, its faults, and what it does with a prefill. Everything is said with the same
 * directives, `name=value` or just `name`, joined by semicolons, and may be said in three places; the later ones win:
 *
 * 1. the process, by the model's name, `*` for all: `SIMULATOR_FAULTS='{"gpt-5":"status=429;retry-after=60"}'`, or
 *    `startSimulator({ models: { 'gpt-5': 'status=429;retry-after=60' } })`
 * 2. the model's name, behind a tilde: `"model": "gpt-5~error-after=3"`, which a gateway sends on as it is
 * 3. the request's header: `x-simulate: error-after=3`
 *
 * Faults with `after` count tokens of a stream: 0 strikes before the first token, but after the framing that goes before
 * it. Answers in one piece are broken in the middle. `fail-every` and `fail-first` say which requests the faults strike.
 */
import { z } from 'zod';
import type { Prefill } from './model.ts';

const MAX_DELAY_MS = 600_000;
const Ms = z.int().min(0).max(MAX_DELAY_MS);
const Count = z.int().min(0).max(1_000_000);

const Pace = {
  /** Before anything is answered, in milliseconds. */
  latency: Ms,
  /** Between the head of a stream and its first token, in milliseconds. */
  'first-token-delay': Ms,
  /** Between two tokens of a stream, in milliseconds. */
  'token-delay': Ms,
  /** While the model is silent in a stream, the vendor's keep-alive goes out every so many milliseconds. */
  keepalives: Ms.min(1),
};

const Faults = {
  /** The vendor's error with this status, 400 to 599. */
  status: z.int().min(400).max(599),
  /** The error's code or type, in place of the usual one of its status. */
  code: z.string().regex(/^[\w.-]+$/),
  /** In seconds, as the vendor tells it. */
  'retry-after': Count,
  /** In seconds, in the vendor's header for when a limit is full again. */
  'limit-reset': Count,
  /** The request is read and never answered. */
  hang: z.literal(true),
  /** The connection is reset before anything is answered. */
  reset: z.literal(true),
  /** The connection is reset after so many tokens. */
  'reset-after': Count,
  /** The vendor's error event after so many tokens, and the end. */
  'error-after': Count,
  /** Nothing more after so many tokens, on an open connection. */
  'stall-after': Count,
  /** Half an event after so many tokens, and the clean end of the body. */
  'truncate-after': Count,
  /** The clean end of the body after so many tokens, without a finish. */
  'end-after': Count,
  /** Bytes that are no event after so many tokens, and the clean end of the body. */
  'garbage-after': Count,
};

const Directives = z
  .strictObject({
    ...Pace,
    ...Faults,
    /** The faults strike each so-manieth request for the model; status 503 unless another fault is named. */
    'fail-every': Count.min(1),
    /** The faults strike the first so many requests for the model; status 503 unless another fault is named. */
    'fail-first': Count,
    prefill: z.enum(['continue', 'reject', 'ignore']),
  })
  .partial();

/** What was said of a model, as it was said. */
export type Directives = z.infer<typeof Directives>;

/** What is true of one request; faults that do not strike it are left out. */
export type Behaviour = Omit<Directives, 'fail-every' | 'fail-first'>;

/** Directives in one text, such as `status=429;retry-after=7`, or as an object with the same names. */
export type DirectivesSource = string | Record<string, unknown>;

const FAULT_NAMES = Object.keys(Faults) as (keyof typeof Faults)[];
/** How tokens are counted for a fault that strikes in the middle of a stream. */
const STRIKES_AFTER = [
  'reset-after',
  'error-after',
  'stall-after',
  'truncate-after',
  'end-after',
  'garbage-after',
] as const;
/** A fault that strikes in the middle of an answer. */
export type Strike = (typeof STRIKES_AFTER)[number];

/** What is known of the models of one process, and how often each was asked. */
export class Behaviours {
  readonly #models: Map<string, Directives>;
  readonly #asked = new Map<string, number>();

  /** @throws Error that names the directive at fault */
  constructor(models: Record<string, DirectivesSource> = {}) {
    this.#models = new Map(Object.entries(models).map(([name, source]) => [name, readDirectives(source)]));
  }

  /**
   * What one request for a model meets. Asking counts as a request.
   *
   * @throws Error that names the directive at fault
   */
  of(model: string, header = ''): Behaviour {
    const [name, ...inName] = model.split('~');
    const all = {
      ...this.#models.get('*'),
      ...this.#models.get(name ?? ''),
      ...faultOfName(name ?? ''),
      ...readDirectives(inName.join(';')),
      ...readDirectives(header),
    };
    const { 'fail-every': every, 'fail-first': first, ...behaviour } = all;
    if (every === undefined && first === undefined) return behaviour;
    const asked = (this.#asked.get(model) ?? 0) + 1;
    this.#asked.set(model, asked);
    const struck = (every !== undefined && asked % every === 0) || (first !== undefined && asked <= first);
    if (!struck) return Object.fromEntries(Object.entries(behaviour).filter(([key]) => !isFault(key)));
    return FAULT_NAMES.some((fault) => fault in behaviour) ? behaviour : { ...behaviour, status: 503 };
  }
}

/** The fault that strikes once so many tokens have gone out, if one does. */
export function strikeAt(behaviour: Behaviour, tokens: number): Strike | undefined {
  return STRIKES_AFTER.find((fault) => behaviour[fault] !== undefined && tokens >= behaviour[fault]);
}

/** What a model does with a prefill: it goes on, unless it was told otherwise. */
export function prefillOf({ prefill = 'continue' }: Behaviour): Prefill {
  return prefill;
}

/** @throws Error that names the directive at fault */
export function readDirectives(source: DirectivesSource): Directives {
  const parsed = Directives.safeParse(typeof source === 'string' ? fieldsOf(source) : source);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  throw new Error(`The directives of the simulated model are wrong: ${path.join('.') || 'they'}: ${message}.`);
}

function fieldsOf(text: string): Record<string, unknown> {
  const said = text.split(';').filter((part) => part.trim() !== '');
  return Object.fromEntries(said.map((part) => fieldOf(part.trim())));
}

function fieldOf(directive: string): [string, unknown] {
  const [name = '', value] = directive.split('=');
  if (value === undefined) return [name, true];
  return [name, /^\d+$/.test(value) ? Number(value) : value];
}

/** `error-429` is a name that means its status. */
function faultOfName(name: string): Directives {
  const status = /^error-([45]\d\d)$/.exec(name)?.[1];
  return status === undefined ? {} : { status: Number(status) };
}

function isFault(name: string): boolean {
  return (FAULT_NAMES as string[]).includes(name);
}
