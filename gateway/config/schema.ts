/**
 * The one definition of the config: what is checked at the start, what editors complete (`wardgate.schema.json` is
 * generated from it), and the types that the gateway works with.
 */
import { z } from 'zod';
import { type Action, HOOKS, type Hook } from '../../proto/contract.ts';
import { MAX_REJECT_BODY } from '../../proto/verdict.ts';
import { IDENTITY_FIELD } from '../identity.ts';
import { VENDORS } from '../providers/registry.ts';
import type { Vendor } from '../providers/vendor.ts';
import { compileCondition } from '../routing/condition.ts';
import { llmForm } from './llm-form.ts';

/** `50ms`, `30s`, `1m`, `2h` → milliseconds. */
const duration = z
  .string()
  .regex(/^\d+(\.\d+)?(ms|s|m|h)$/, 'must be a duration such as 50ms, 30s or 1m')
  .transform((text) => Number.parseFloat(text) * UNITS[text.replace(/[\d.]/g, '') as keyof typeof UNITS])
  .refine((ms) => ms <= LONGEST, 'must be 24 days (576h) at most');
const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };
/** A timer that is set for longer than 2³¹ − 1 ms goes off at once. */
const LONGEST = 576 * UNITS.h;

/** `64KiB`, `32MiB` or a number of bytes → bytes. */
const size = z
  .union([
    z.number().int().positive(),
    z.string().regex(/^\d+(B|KiB|MiB|GiB)$/, 'must be a size such as 64KiB or 32MiB'),
  ])
  .transform((value) =>
    typeof value === 'number'
      ? value
      : Number.parseInt(value, 10) * SIZES[value.replace(/\d/g, '') as keyof typeof SIZES],
  );
const SIZES = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

/** `HOST:PORT`, as the config and the command line have it. */
export const address = z
  .string()
  .regex(/^(\[[0-9a-fA-F:.]+\]|[^\s:]+):\d{1,5}$/, 'must be HOST:PORT, such as 127.0.0.1:3000')
  .refine((text) => !(Number(text.slice(text.lastIndexOf(':') + 1)) > 65_535), 'has a port above 65535');
const name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.-]*$/, 'must be letters, digits, `.`, `_` and `-`');

/** What HTTP can carry (RFC 9110, 5.5): a key with a line break from its file would fail every request. */
const headerValue = z
  .string()
  .refine((text) => /^[\t\x20-\x7e\x80-\xff]*$/.test(text), 'must be a header’s value: no line breaks, no “”’…');
const headerName = z
  .string()
  .refine((text) => /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(text), 'is not the name of a header')
  .refine(
    (text) => !/^(?:connection|content-length|expect|keep-alive|transfer-encoding|upgrade)$/i.test(text),
    'is for the gateway to say',
  );
const headers = z.record(headerName, headerValue);
/** What the gateway itself tells a provider beside what frames the request. */
const NOT_FOR_IDENTITY =
  /^(?:accept-encoding|authorization|cookie|host|te|trailer|user-agent|x-request-id|content-.*|proxy-.*)$/i;
const identityField = z
  .string()
  .regex(
    IDENTITY_FIELD,
    'must be subject, issuer, username, email, groups, roles, tenant or claims.NAME: a field of the identity',
  );

/** What every provider has, whatever it speaks. */
const commonProvider = {
  baseUrl: z
    .url({ protocol: /^https?$/, error: 'must be an http or https URL' })
    .optional()
    .describe('Up to and including the version, such as `/v1`.'),
  key: headerValue.optional().describe('The provider’s key. The client’s own credential never goes upstream.'),
  headers: headers.optional().describe('Sent with every call.'),
  streamUsage: z.boolean().default(true).describe('Ask for the usage of streams (`stream_options.include_usage`).'),
  unmapped: z
    .enum(['refuse', 'leave-out'])
    .default('refuse')
    .describe('What becomes of a field that it has no word for: refused by name, or left out and told in a header.'),
  timeouts: z
    .strictObject({
      connect: duration.prefault('5s'),
      firstByte: duration.prefault('300s').describe('Until the answer begins.'),
      idle: duration.prefault('300s').describe('Between two pieces of an answer.'),
    })
    .prefault({}),
};

function vendorSchema({ kinds, settings }: Vendor) {
  return z
    .strictObject({
      kind: z
        .enum(Object.keys(kinds) as [string, ...string[]])
        .describe('What it speaks; presets bring their base URL along.'),
      ...commonProvider,
      ...settings,
    })
    .superRefine((value, context) => {
      const preset = kinds[value.kind as string];
      if (value.baseUrl === undefined && preset?.baseUrl === undefined && !preset?.computesUrl) {
        context.addIssue({
          code: 'custom',
          path: ['baseUrl'],
          message: `is needed: \`${value.kind}\` has no base URL of its own`,
        });
      }
    });
}

const [firstVendor, ...otherVendors] = VENDORS.map(vendorSchema);
const KINDS = VENDORS.flatMap(({ kinds }) => Object.keys(kinds));
const provider = z.discriminatedUnion('kind', [firstVendor!, ...otherVendors], {
  error: `must be one of ${KINDS.map((kind) => `"${kind}"`).join('|')}`,
});

const targetTimeouts = {
  attempt: duration
    .optional()
    .describe('One try, until its answer begins, or is whole if it is not streamed; default: what the provider has.'),
  firstToken: duration.optional().describe('One try, until a stream’s first content; keep-alives do not count.'),
  stall: duration.optional().describe('Between two pieces of a stream’s content.'),
};

/** A CEL expression that compiles. */
const condition = z.string().superRefine((source, context) => {
  try {
    compileCondition(source);
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message });
  }
});

/** The only target of a model. */
const onlyTarget = z.strictObject({
  provider: name,
  model: z.string().optional().describe('Its name upstream; default: the name that the client asked for.'),
  timeouts: z.strictObject(targetTimeouts).optional().describe('In place of the model’s.'),
});

const target = onlyTarget.extend({
  weight: z.number().nonnegative().max(1e9).default(1).describe('weighted: its share; 0: only when all others fail.'),
  priority: z.number().int().default(0).describe('priority: the lowest first; of several the first in the list.'),
  when: condition
    .optional()
    .describe('CEL: for which requests it is there (identity, headers, model, route, promptTokens, stream).'),
});

const RETRY_ON = ['4xx', '5xx', 'connection', 'timeout', 'bad-answer'] as const;

/** How a model’s targets are used, all of it with defaults. */
const routing = {
  strategy: z
    .enum(['priority', 'weighted', 'round-robin', 'least-latency'])
    .default('priority')
    .describe('Which target is asked first, and which next when it fails.'),
  retry: z
    .strictObject({
      attempts: z
        .number()
        .int()
        .min(1)
        .max(100)
        .optional()
        .describe(
          'Tries in total, the first included; default: each target `perTarget` times, and a lost connection once more.',
        ),
      perTarget: z.number().int().min(1).max(10).default(1).describe('Tries at a target before the next one is asked.'),
      on: z
        .array(z.union([z.number().int().min(400).max(599), z.enum(RETRY_ON)]))
        .default([408, 409, 429, '5xx', 'connection', 'timeout', 'bad-answer'])
        .describe('What is tried again: statuses of the provider, 4xx, 5xx, connection, timeout, bad-answer.'),
      backoff: z
        .strictObject({ base: duration.prefault('50ms'), max: duration.prefault('1s') })
        .prefault({})
        .describe('The wait before a target is asked again; it doubles each time. Another target is asked at once.'),
      maxWait: duration.prefault('10s').describe('The longest wait for a target that sent `Retry-After`.'),
      budget: z
        .strictObject({
          ratio: z.number().min(0).max(10).default(0.2).describe('Repeats for each request.'),
          perSecond: z.number().min(0).max(100_000).default(10).describe('Repeats a second that are free.'),
        })
        .prefault({})
        .describe('Bounds second tries at the same target, and hedges.'),
    })
    .prefault({}),
  breaker: z
    .union([
      z.literal(false),
      z.strictObject({
        failures: z.number().int().min(1).max(1_000).default(5).describe('In a row, after which it is not asked.'),
        cooldown: duration.prefault('10s').describe('Until one request tries it.'),
      }),
    ])
    .prefault({}),
  cooldown: z
    .strictObject({
      default: duration.prefault('10s').describe('When it does not say how long.'),
      max: duration.prefault('5m').describe('At most, whatever it says.'),
    })
    .prefault({})
    .describe('How long a target that is over its limit (429) is left alone.'),
  timeouts: z
    .strictObject({
      ...targetTimeouts,
      total: duration.optional().describe('All tries and the waits between them.'),
    })
    .prefault({}),
  hedge: z
    .strictObject({
      after: z.union([z.literal('p95'), duration]).describe('A time, or p95: when it takes longer than 19 in 20 do.'),
    })
    .optional()
    .describe('Ask a second target when the first has not begun to answer by then; the first answer counts.'),
  rescue: z
    .enum(['continue', 'replay', 'off'])
    .default('continue')
    .describe('What becomes of a stream that breaks after the client has seen some of it.'),
  fallbacks: z
    .strictObject({
      contextWindow: z.array(target).min(1).optional().describe('For prompts that are too long for the others.'),
      contentPolicy: z.array(target).min(1).optional().describe('For what the others’ content policy refuses.'),
    })
    .prefault({}),
};

const model = z.union([
  name.describe('Short form: a provider that knows the model by the same name.'),
  onlyTarget,
  z.strictObject({ ...routing, targets: z.array(target).min(1).max(100) }),
]);

/** How a model in a short form is routed. */
export const DEFAULT_ROUTING = z.strictObject(routing).parse({});

const price = z.strictObject({
  input: z.number().nonnegative().describe('USD per million prompt tokens.'),
  output: z.number().nonnegative().describe('USD per million answer tokens.'),
  cachedInput: z.number().nonnegative().optional(),
});

const HOOK_NAMES = Object.keys(HOOKS) as [Hook, ...Hook[]];
const ACTIONS = ['model.use', 'model.list', 'tool.call'] as const satisfies Action[];

const plugin = z.strictObject({
  at: z
    .string()
    .regex(
      /^(local:|grpc:\/\/|grpcs:\/\/|http:\/\/|https:\/\/|webhook:\/\/|webhooks:\/\/|ext-authz:\/\/|rls:\/\/).+/,
      'must begin with local:, grpc://, grpcs://, http://, https://, webhook://, ext-authz:// or rls://',
    )
    .describe('Where it runs.'),
  config: z.unknown().optional().describe('The plugin’s own config; checked by the plugin.'),
  hooks: z.array(z.enum(HOOK_NAMES)).optional().describe('Ask it at these hooks only.'),
  onFault: z.enum(['reject', 'allow']).default('reject').describe('What a fault (late, broken, malformed) means.'),
  deadline: duration.prefault('2s').describe('For one call.'),
  shadow: z.boolean().default(false).describe('Asked, timed and recorded, never obeyed.'),
  history: z
    .enum(['reject', 'mask', 'skip'])
    .default('reject')
    .describe('What becomes of an old turn that would be rejected.'),
  headers: z.array(z.string().toLowerCase()).default([]).describe('Request headers that it is shown.'),
  actions: z
    .array(z.enum(ACTIONS))
    .optional()
    .describe('authorize: what it is asked about; default: what the plugin says.'),
  body: size
    .refine((bytes) => bytes <= 1024 ** 2, 'must be 1MiB at most')
    .optional()
    .describe('authorize: how much of the request’s body it is shown; default: what the plugin says.'),
  forwardHeaders: z
    .array(z.strictObject({ name: z.string().toLowerCase(), value: z.string().optional() }))
    .default([])
    .describe('webhook: request headers that are sent along; `value` is a pattern for the whole value.'),
  rejection: z
    .strictObject({
      status: z.number().int().min(400).max(599).optional(),
      body: z.string().max(MAX_REJECT_BODY).optional(),
      contentType: headerValue.optional(),
    })
    .optional()
    .describe('Answer its rejections with this status and body.'),
  hold: z
    .strictObject({
      size: size.prefault('16KiB').describe('Most text that it may hold back on one channel of a stream.'),
      time: duration.prefault('30s').describe('Longest time that it may hold it.'),
    })
    .prefault({}),
  window: z
    .strictObject({
      size: z.number().int().min(1).default(1024).describe('Characters gathered before it is asked.'),
      overlap: z.number().int().min(0).default(256).describe('Characters that it sees again.'),
    })
    .prefault({})
    .describe('How a guard without a `stream` hook, such as a webhook, is asked about streams.'),
  connections: z.number().int().min(1).max(64).default(1).describe('gRPC: how many are kept open.'),
  credentials: headers.optional().describe('Headers sent with every call, such as the plugin’s own key.'),
  tls: z
    .strictObject({
      ca: z.string().optional().describe('Who may have signed its certificate: a PEM text or a file.'),
      cert: z.string().optional().describe('The gateway’s own certificate, and its key.'),
      key: z.string().optional(),
      serverName: z.string().optional().describe('The name in its certificate, when that is not the host of `at`.'),
    })
    .optional()
    .describe('grpcs, https, webhook, ext-authz, rls: certificates.'),
});

const cors = z.union([
  z.boolean(),
  z.strictObject({
    origins: z.array(z.string()).default(['*']),
    headers: z.array(z.string()).default(['*']),
    maxAge: duration.prefault('10m'),
  }),
]);

export const resumeSettings = z.strictObject({
  window: duration.prefault('60s').describe('How long a complete answer is kept.'),
  grace: duration.prefault('30s').describe('How long the provider goes on without a client.'),
  size: size.prefault('4MiB').describe('Most that is kept of one answer: its newest events.'),
  total: size.prefault('256MiB').describe('Most that is kept of all answers of the route.'),
  streams: z.number().int().min(1).default(10_000).describe('Most answers that are kept for the route.'),
  when: z
    .enum(['always', 'asked'])
    .default('always')
    .describe('Keep every streamed answer, or those whose client sends `x-wardgate-stream-resume: true`.'),
  store: z
    .enum(['memory', 'redis'])
    .default('memory')
    .describe('Where: in this process alone, or in Redis as well, so that other replicas can go on.'),
});

const route = z.strictObject({
  models: z.array(z.string()).optional().describe('Models that may be asked for here; default: all.'),
  model: z.string().optional().describe('The model of this route, whatever the client asks for.'),
  defaultModel: z.string().optional().describe('The model for requests that name none.'),
  plugins: z.array(z.string()).default([]).describe('What guards it, in order.'),
  identity: z
    .enum(['required', 'optional'])
    .default('required')
    .describe('With an authenticator mounted: may a stranger pass?'),
  cors: cors.default(false),
  resume: z
    .union([z.boolean(), resumeSettings])
    .default(false)
    .describe('A client that lost its connection gets the rest by `Last-Event-ID`.'),
  context: z.record(z.string(), z.string()).optional().describe('Constants for its plugins.'),
  upstreamHeaders: headers.optional().describe('Added to what goes upstream.'),
  passthrough: z
    .union([
      name,
      z.strictObject({
        provider: name,
        unguarded: z.boolean().default(false).describe('Also where guards are mounted, which cannot read it.'),
      }),
    ])
    .optional()
    .describe('The provider that gets what no dialect knows, as it is, with its own key in place of the client’s.'),
  identityHeaders: z
    .record(
      headerName.refine((text) => !NOT_FOR_IDENTITY.test(text), 'is not for this'),
      identityField,
    )
    .optional()
    .describe('Headers that tell the provider who asks, by a field of the identity. A client’s own are dropped.'),
});

const redisUrl = z.string().regex(/^rediss?:\/\/[^\s/]+/, 'must be an address such as redis://redis:6379');

/** Labels that the metrics have already, and names that Prometheus keeps for itself. */
const TAKEN_LABELS =
  /^(?:__.*|gen_ai_.*|wardgate_.*|route|method|status|reason|protocol|le|operation|provider|requestModel|responseModel|tokenType)$/;

export const configSchema = z.strictObject({
  listen: address.default('127.0.0.1:3000'),
  metrics: z.union([address, z.literal(false)]).default('127.0.0.1:15020'),
  drain: duration.prefault('30s').describe('How long open answers may go on after SIGTERM.'),
  limits: z
    .strictObject({
      body: size.prefault('32MiB'),
      bodyTime: duration.prefault('60s'),
      headers: size.prefault('32KiB'),
      depth: z.number().int().min(4).max(10_000).default(128),
      reply: size.prefault('32MiB').describe('Longest whole answer that is taken from a provider.'),
    })
    .prefault({}),
  log: z
    .strictObject({
      level: z.enum(['silent', 'error', 'warn', 'info', 'debug']).default('info'),
      access: z.boolean().default(true).describe('One line per request.'),
    })
    .prefault({}),
  trace: z
    .strictObject({ header: z.boolean().default(false).describe('Put the decision trace into `x-wardgate-trace`.') })
    .prefault({}),
  metricNames: z
    .array(z.enum(['otel', 'agentgateway']))
    .default(['otel', 'agentgateway'])
    .describe('Which names the model metrics have.'),
  metricLabels: z
    .record(
      z
        .string()
        .regex(/^[a-zA-Z_][a-zA-Z0-9_]*$/, 'must be a label’s name: letters, digits and `_`')
        .refine((text) => !TAKEN_LABELS.test(text), 'is a label that the metrics have already'),
      identityField,
    )
    .default({})
    .describe('Labels that tell people apart, by a field of the identity.'),
  metricPeople: z
    .number()
    .int()
    .min(0)
    .max(1_000)
    .default(50)
    .describe('How many people the labels tell apart; later ones are `other`.'),
  heartbeat: duration.prefault('15s').describe('Comment sent on a silent stream.'),
  redis: z
    .union([redisUrl, z.array(redisUrl).min(1).max(16)])
    .optional()
    .describe('What replicas share: a Redis by its URL, or several of which one is the primary.'),
  providers: z.record(name, provider),
  models: z.record(z.string().min(1), model),
  prices: z.record(z.string(), price).default({}).describe('By upstream model.'),
  plugins: z.record(name, plugin).default({}),
  routes: z.record(z.string().regex(/^\/([^\s?#]*[^\s?#/])?$/, 'must be a path such as /team'), route),
});

export type Config = z.output<typeof configSchema>;
/** A provider's settings without those that its vendor alone has. */
export type CommonProviderConfig = { kind: string } & z.output<z.ZodObject<typeof commonProvider>>;
export type PluginConfig = Config['plugins'][string];
export type RouteConfig = Config['routes'][string];
export type CorsConfig = Exclude<RouteConfig['cors'], boolean>;
export type ModelConfig = Config['models'][string];
export type TargetConfig = z.output<typeof target>;

/** The config as JSON Schema (2020-12), for editors: in its own form, or in the short `llm:` form. */
export function configJsonSchema(): Record<string, unknown> {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Wardgate config',
    $comment: 'Generated by `npm run schema` from gateway/config/schema.ts.',
    if: { required: ['llm'] },
    // biome-ignore lint/suspicious/noThenProperty: JSON Schema's own word
    then: editorSchema(llmForm),
    else: editorSchema(configSchema),
  };
}

function editorSchema(schema: z.ZodType): Record<string, unknown> {
  const { $schema: _, ...made } = z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
    override: ({ jsonSchema, path }) => {
      if (path.at(-1) !== 'propertyNames') allowReference(jsonSchema);
    },
  });
  return made;
}

/** Where only some texts are allowed, a reference to the environment stands for one of them. */
function allowReference(schema: Record<string, unknown>): void {
  const { type, pattern, format, enum: values } = schema;
  if (type !== 'string' || (pattern ?? format ?? values) === undefined) return;
  delete schema.type;
  delete schema.pattern;
  delete schema.format;
  delete schema.enum;
  const wanted = {
    type,
    ...(pattern !== undefined && { pattern }),
    ...(format !== undefined && { format }),
    ...(values !== undefined && { enum: values }),
  };
  schema.anyOf = [wanted, { type, pattern: '^\\$[A-Za-z_]|\\$\\{' }];
}
