/**
 * Amazon Bedrock: `Converse` and `ConverseStream`, signed with AWS credentials or with a key of Bedrock's own.
 * Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html
 */
import { z } from 'zod';
import type { CommonProviderConfig } from '../../config/schema.ts';
import type { CallFacts, Provider, UnsignedCall, UpstreamCall } from '../provider.ts';
import { defineVendor } from '../vendor.ts';
import { type CredentialSource, fixedCredentials, foundCredentials } from './credentials.ts';
import { readEmbeddings, writeEmbeddings } from './embeddings.ts';
import { isExpired, readError } from './error.ts';
import { readConverse, readCount } from './reply.ts';
import { writeConverse, writeCount } from './request.ts';
import { signer, withoutSignature } from './sign.ts';
import { ConverseReader } from './stream.ts';
import { CHAT, COUNT, EMBEDDINGS } from './supports.ts';

const settings = {
  region: z
    .string()
    .regex(/^[a-z0-9-]+$/, 'must be a region such as us-west-2')
    .optional()
    .describe('AWS region; default: AWS_REGION or AWS_DEFAULT_REGION.'),
  profile: z.string().optional().describe('Profile of the AWS configuration files; default: AWS_PROFILE.'),
  accessKeyId: z.string().optional().describe('In place of what AWS tools find by themselves.'),
  secretAccessKey: z.string().optional(),
  sessionToken: z.string().optional().describe('Of temporary credentials.'),
  guardrail: z
    .strictObject({ id: z.string(), version: z.string() })
    .optional()
    .describe('A guardrail of the AWS account that Bedrock applies to every chat.'),
};

type Config = CommonProviderConfig & z.output<z.ZodObject<typeof settings>>;

export const bedrock = defineVendor({
  kinds: { bedrock: { computesUrl: true, telemetryName: 'aws.bedrock', prefill: 'try' } },
  settings,
  make,
});

/** What `InvokeModel` takes there, and Converse in its body, for requests that pass through. */
const FORWARDED = [
  'traceparent',
  'tracestate',
  'x-amzn-bedrock-guardrailidentifier',
  'x-amzn-bedrock-guardrailversion',
  'x-amzn-bedrock-trace',
  'x-amzn-bedrock-performanceconfig-latency',
  'x-amzn-bedrock-service-tier',
];

function make(name: string, config: Config): Provider {
  const region = regionOf(name, config);
  const base = new URL(config.baseUrl ?? `https://bedrock-runtime.${region}.${domainOf(region)}`);
  const root = base.pathname.replace(/\/$/, '');
  const at = (call: string) => (facts: CallFacts) => `${root}/model/${pathPart(facts.model)}/${callOf(call, facts)}`;
  const credentials = credentialsOf(name, config);
  return {
    name,
    telemetryName: 'aws.bedrock',
    origin: base.origin,
    passthroughBase: root,
    timeouts: config.timeouts,
    streamUsage: config.streamUsage,
    unmapped: config.unmapped,
    outputLimitField: 'max_tokens',
    forwardedHeaders: FORWARDED,
    endpoints: {
      chat: [
        {
          supports: CHAT,
          prefill: 'try',
          path: at('converse'),
          write: (request, facts) => writeConverse(request, facts, config.guardrail),
          read: readConverse,
          openReader: () => new ConverseReader(name),
        },
      ],
      embeddings: [{ supports: EMBEDDINGS, path: at('invoke'), write: writeEmbeddings, read: readEmbeddings }],
      count: [{ supports: COUNT, path: at('count-tokens'), write: writeCount, read: readCount }],
    },
    sign: signOf(config, { region, host: base.host }, credentials),
    readError(status, body, headers) {
      if (isExpired(status, body, headers)) credentials.forget();
      return readError(name, status, body, headers);
    },
  };
}

/** @throws Error where nothing tells it */
function regionOf(name: string, { region, baseUrl = '' }: Config): string {
  const found =
    region ??
    /bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\./.exec(baseUrl)?.[1] ??
    process.env.AWS_REGION ??
    process.env.AWS_DEFAULT_REGION;
  if (found) return found;
  throw new Error(`The provider “${name}” has no \`region\`: set it, or AWS_REGION in the environment.`);
}

function domainOf(region: string): string {
  return region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com';
}

/** The ids hold `:`, ARNs `/` as well; `encodeURIComponent` leaves five signs that AWS's own clients encode. */
function pathPart(model: string): string {
  return encodeURIComponent(model).replaceAll(
    /[!'()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function callOf(call: string, { stream }: CallFacts): string {
  return call === 'converse' && stream ? 'converse-stream' : call;
}

function credentialsOf(
  name: string,
  { accessKeyId, secretAccessKey, sessionToken, profile }: Config,
): CredentialSource {
  if (accessKeyId && secretAccessKey) return fixedCredentials({ accessKeyId, secretAccessKey, sessionToken });
  if (accessKeyId || secretAccessKey)
    throw new Error(`The provider “${name}” needs \`accessKeyId\` and \`secretAccessKey\`, both or none.`);
  return foundCredentials(name, profile);
}

/** The config's own come first, then a key of Bedrock's from the environment, as with AWS's own clients. */
function signOf(config: Config, place: { region: string; host: string }, source: CredentialSource): Provider['sign'] {
  const isSaid = config.accessKeyId !== undefined || config.profile !== undefined;
  const key = config.key ?? (isSaid ? undefined : process.env.AWS_BEARER_TOKEN_BEDROCK);
  const sign = key ? (call: UnsignedCall) => bearer(call, key) : signer(place, source);
  const fixed = ['accept-encoding', 'identity', 'user-agent', 'wardgate'];
  for (const [header, value] of Object.entries(config.headers ?? {})) fixed.push(header.toLowerCase(), value);
  return (call) => sign({ ...call, headers: [...typeOf(call), ...call.headers, ...fixed] });
}

function typeOf({ headers, body }: UnsignedCall): string[] {
  return body === undefined || headers.includes('content-type') ? [] : ['content-type', 'application/json'];
}

function bearer({ method, path, headers }: UnsignedCall, key: string): UpstreamCall {
  return { method, path, headers: [...withoutSignature(headers), 'authorization', `Bearer ${key}`] };
}
