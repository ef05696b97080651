/**
 * The table of what may go wrong with a provider: every fault × whole or streamed × before or after the first token × every
 * dialect, natively and translated. Each ends in the answer or in a typed error; never in half an answer that looks
 * whole, in the same words twice, or not at all.
 */
import { type Simulator, startSimulator } from '../../simulator/server.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { askAs, CLIENTS, type Seen } from './clients.ts';

/** Silence that counts as a fault, in milliseconds: long enough for a busy machine. */
const SILENCE = '1500ms';

/** A prompt whose answer is twelve words: long enough to break in the middle. */
const PROMPT = 'alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu';
const TOOL_PROMPT = 'Please call tool get_weather for alpha beta gamma delta epsilon zeta eta theta.';

export interface Scenario {
  dialect: string;
  /** The provider that fails, and the one that goes on. */
  first: string;
  second: string;
  mode: 'whole' | 'stream';
  /** Whether it fails before the client can have seen a token. */
  when: 'before' | 'after';
  fault: string;
  rescue: 'continue' | 'replay' | 'off';
  tool: boolean;
  /** `either` where it hangs on the network whether anything had reached the client. */
  wanted: 'answer' | 'error' | 'either';
}

export interface Result extends Scenario {
  got: string;
  isRight: boolean;
  ms: number;
}

/** Each dialect at a provider of its own, and at others that are translated. */
const PAIRS: [dialect: string, first: string, second: string][] = [
  ['openai-chat', 'openai', 'anthropic'],
  ['openai-chat', 'anthropic', 'bedrock'],
  ['openai-chat', 'gemini', 'anthropic'],
  ['openai-chat', 'bedrock', 'anthropic'],
  ['openai-chat', 'cohere', 'anthropic'],
  ['openai-responses', 'openai', 'anthropic'],
  ['openai-responses', 'anthropic', 'bedrock'],
  ['anthropic-messages', 'anthropic', 'bedrock'],
  ['anthropic-messages', 'openai', 'anthropic'],
  ['anthropic-messages', 'bedrock', 'anthropic'],
  ['gemini', 'gemini', 'anthropic'],
  ['gemini', 'openai', 'anthropic'],
];

/** What any provider may do before it has answered. */
const EARLY = ['refused', 'reset', 'hang', 'status=429', 'status=500', 'status=503', 'status=529'];
/** What becomes of an answer, by how many tokens have gone out. */
const STRIKES = ['reset-after', 'error-after', 'stall-after', 'truncate-after', 'end-after', 'garbage-after'];
/** After how many tokens a vendor has begun to say its call, where that is not two: whole in one, or after a plan. */
const CALL_BEGUN: Record<string, number> = { gemini: 1, cohere: 9 };
/** Where a whole answer can break: it has no events. */
const WHOLE = ['reset-after=3', 'stall-after=3', 'truncate-after=3', 'garbage-after=3'];

/** All of them. */
export function scenarios(): Scenario[] {
  return PAIRS.flatMap(([dialect, first, second]) => {
    const base = { dialect, first, second, rescue: 'continue', tool: false, wanted: 'answer' } as const;
    const early = EARLY.flatMap((fault) => [
      { ...base, mode: 'whole', when: 'before', fault } as const,
      { ...base, mode: 'stream', when: 'before', fault } as const,
    ]);
    const refused = [
      // The client's own mistake, and the gateway's key: another provider is not asked.
      { ...base, mode: 'whole', when: 'before', fault: 'status=400', wanted: 'error' } as const,
      { ...base, mode: 'stream', when: 'before', fault: 'status=400', wanted: 'error' } as const,
      { ...base, mode: 'stream', when: 'before', fault: 'status=401', wanted: 'error' } as const,
    ];
    const whole = WHOLE.map((fault) => ({ ...base, mode: 'whole', when: 'before', fault }) as const);
    const before = STRIKES.map((fault) => ({ ...base, mode: 'stream', when: 'before', fault: `${fault}=0` }) as const);
    const after = STRIKES.flatMap((strike) => {
      const broken = { ...base, mode: 'stream', when: 'after', fault: `${strike}=4` } as const;
      return [
        broken,
        { ...broken, rescue: 'replay' } as const,
        { ...broken, rescue: 'off', wanted: 'error' } as const,
        // Arguments that have begun to reach the client are never made again.
        {
          ...broken,
          tool: true,
          fault: `${strike}=${CALL_BEGUN[first] ?? 2}`,
          wanted: brokenCall(first, strike),
        } as const,
      ];
    });
    return [...early, ...refused, ...whole, ...before, ...after];
  });
}

/** A call that is whole at once may come in the same read as the fault, and is then made by another provider unseen. */
function brokenCall(first: string, strike: string): 'error' | 'either' {
  return first === 'gemini' && /^(?:error|garbage)/.test(strike) ? 'either' : 'error';
}

export interface Rig extends AsyncDisposable {
  run(scenario: Scenario): Promise<Result>;
}

/** A gateway with a model for each scenario, in front of simulated vendors. */
export async function startRig(all: readonly Scenario[]): Promise<Rig> {
  const simulator = await startSimulator({ tokenDelayMs: 1 });
  const gateway = await startGateway(configOf(all, simulator));
  const nameOf = new Map(all.map((scenario, i) => [scenario, `m${i}`]));
  return {
    run: (scenario) => run(gateway, scenario, nameOf.get(scenario)!),
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      await simulator.close();
    },
  };
}

function configOf(all: readonly Scenario[], { url }: Simulator): Record<string, unknown> {
  const aws = { region: 'us-east-1', accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' };
  const timeouts = { connect: '5s', firstByte: '20s', idle: '20s' };
  const providers: Record<string, object> = {
    openai: { kind: 'openai', baseUrl: `${url}/v1`, key: 'k', timeouts },
    anthropic: { kind: 'anthropic', baseUrl: `${url}/v1`, key: 'k', timeouts },
    gemini: { kind: 'gemini', baseUrl: `${url}/v1beta`, key: 'k', timeouts },
    bedrock: { kind: 'bedrock', baseUrl: url, ...aws, timeouts },
    cohere: { kind: 'cohere', baseUrl: `${url}/v2`, key: 'k', timeouts },
  };
  // Nobody listens there.
  const dead = Object.entries(providers).map(([name, provider]) => [
    `dead-${name}`,
    { ...provider, baseUrl: 'http://127.0.0.1:9/v1' },
  ]);
  const models = all.map((scenario, i) => [`m${i}`, modelOf(scenario)]);
  return {
    providers: { ...providers, ...Object.fromEntries(dead) },
    models: Object.fromEntries(models),
    routes: { '/': {} },
  };
}

function modelOf({ first, second, fault, rescue }: Scenario): object {
  const failing =
    fault === 'refused' ? { provider: `dead-${first}`, model: 'sim' } : { provider: first, model: `sim~${fault}` };
  return {
    rescue,
    timeouts: { attempt: SILENCE, firstToken: SILENCE, stall: SILENCE },
    breaker: false,
    targets: [failing, { provider: rescue === 'replay' ? 'openai' : second, model: 'sim' }],
  };
}

async function run({ url }: TestGateway, scenario: Scenario, model: string): Promise<Result> {
  const { dialect, mode, tool } = scenario;
  const startedAt = performance.now();
  let got: string;
  try {
    const text = tool ? TOOL_PROMPT : PROMPT;
    got = verdict(await askAs(CLIENTS[dialect]!, url, model, { text, stream: mode === 'stream', tool }), tool);
  } catch (error) {
    got = `hang or cut: ${(error as Error).name}`;
  }
  const { wanted } = scenario;
  const isRight = wanted === 'either' ? got === 'answer' || got === 'error' : got === wanted;
  return { ...scenario, got, isRight, ms: performance.now() - startedAt };
}

/** The answer of every simulated vendor to {@link PROMPT}. */
const ANSWER = `You said: ${PROMPT}`;

/** What a client has: `answer`, `error`, or what is wrong with it. */
function verdict(
  { text, tools, begins, finishes, ended, error, broken, ids, status, usage }: Seen & { status: number },
  tool: boolean,
): string {
  if (broken.length > 0) return `unreadable: ${broken[0]}`;
  if (error !== undefined) {
    if (finishes.length > 0 || ended) return 'an error after a finish';
    if (!tool && !ANSWER.startsWith(text)) return `an error after other text: ${text}`;
    return error.message && error.type && !error.type.includes('undefined') ? 'error' : 'an untyped error';
  }
  if (status !== 200) return `status ${status} without an error`;
  if (finishes.length !== 1) return `${finishes.length} finishes`;
  if (!ended) return 'a finish without an end';
  if (begins !== 1) return `${begins} beginnings`;
  if (ids.size > 1) return `${ids.size} ids`;
  if (!usage || usage.input < 1 || usage.output < 1) return 'no usage';
  if (tool) return tools.length === 1 ? 'answer' : `${tools.length} tools`;
  if (text === ANSWER) return 'answer';
  return `other text: ${text}`;
}
