/**
 * `http://host:port/base` and `https://`: the contract as JSON.
 *
 * `POST {base}/describe` with `{contract, config}` answers the description; `POST {base}/{hook}` with the hook's input
 * answers the verdict. A plugin of ten lines may leave `/describe` out, when the mount names its hooks.
 */
import {
  type CallOptions,
  CONTRACT_VERSION,
  type Description,
  type Hook,
  type StreamInput,
} from '../../proto/contract.ts';
import { DESCRIBE_MS } from './backoff.ts';
import { type Connection, type Endpoint, type HookInput, PluginUnavailable } from './connection.ts';
import { descriptionProblem } from './description.ts';
import { HttpLine } from './line.ts';
import { type HttpAnswer, httpTarget, jsonOf } from './post.ts';
import { Refusal } from './standing.ts';
import { askWellFormed, wellFormedJson } from './wellformed.ts';

/** How much of a plugin's reason for refusing its config is told to the operator, in characters. */
const MAX_REASON = 2_000;

/**
 * Connects, and goes on trying in the background when the plugin is down.
 *
 * @throws {@link EndpointProblem} when the address or the certificates make no sense
 */
export async function connectHttp(endpoint: Endpoint): Promise<Connection> {
  const connection = new HttpConnection(endpoint);
  await connection.start();
  return connection;
}

class HttpConnection extends HttpLine {
  private instance: string | undefined;
  private describing: Promise<void> | undefined;

  constructor(endpoint: Endpoint) {
    super(endpoint, httpTarget(endpoint, endpoint.at.startsWith('https:')));
  }

  protected override reach(): Promise<void> {
    return this.describe();
  }

  private describe(): Promise<void> {
    this.describing ??= this.describeNow().finally(() => {
      this.describing = undefined;
    });
    return this.describing;
  }

  private async describeNow(): Promise<void> {
    const body = JSON.stringify({ contract: CONTRACT_VERSION, config: this.endpoint.config });
    const answer = await this.poster.post('/describe', body, {}, AbortSignal.timeout(DESCRIBE_MS));
    const { instance, ...description } = hasNoDescribe(answer) ? this.undescribed() : descriptionIn(answer);
    this.instance = instance;
    this.reached(description);
  }

  /** What the mount says of a plugin that cannot say it. @throws Refusal when that is not enough */
  private undescribed(): Described {
    const { name, config, options } = this.endpoint;
    const { hooks, rewrites = true } = options;
    if (hooks === undefined) {
      throw new Refusal(
        'it has no POST /describe: add one, or name its hooks in the config (hooks: [request, response])',
      );
    }
    if (config !== undefined) throw new Refusal('it has no POST /describe, so it cannot be given its config');
    return { contract: CONTRACT_VERSION, name, version: 'undescribed', hooks, rewrites, instance: undefined };
  }

  override ask<H extends Hook>(hook: H, input: HookInput[H], options?: CallOptions): Promise<unknown> {
    if (hook !== 'stream') return this.send(hook, input, options?.signal);
    return askWellFormed(input as StreamInput, (window) => this.send(hook, window, options?.signal));
  }

  private send(hook: Hook, input: object, signal: AbortSignal | undefined): Promise<unknown> {
    if (this.description === undefined) {
      return Promise.reject(new PluginUnavailable(`the plugin cannot be asked: ${this.problem}`));
    }
    return this.guarded(() => this.call(hook, wellFormedJson(input), signal), signal);
  }

  private async call(hook: Hook, json: string, signal: AbortSignal | undefined): Promise<unknown> {
    const answer = await this.post(hook, json, signal);
    if (answer.status !== 409 || this.instance === undefined) return jsonOf(answer);
    // It has forgotten its config: it gets it once more, and then the call.
    await this.describe().catch(() => {
      throw new PluginUnavailable('the plugin has forgotten its config, and did not take it again');
    });
    return jsonOf(await this.post(hook, json, signal));
  }

  private post(hook: Hook, json: string, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    const headers: Record<string, string> = this.instance === undefined ? {} : { 'x-wardgate-instance': this.instance };
    return this.poster.post(`/${hook}`, json, headers, signal);
  }
}

type Described = Description & { instance: string | undefined };

function hasNoDescribe({ status }: HttpAnswer): boolean {
  return status === 404 || status === 405 || status === 501;
}

/** @throws Refusal when the plugin will not do as it is configured, or does not say what it answers */
function descriptionIn(answer: HttpAnswer): Described {
  if (answer.status === 400 || answer.status === 422) throw new Refusal(reasonIn(answer));
  const value = jsonOf(answer) as Partial<Description> & { instance?: unknown };
  const problem = descriptionProblem(value);
  if (problem) throw new Refusal(`it ${problem}`);
  const { instance, ...description } = value as Description & { instance?: unknown };
  const known = typeof instance === 'string' && /^[\x21-\x7e]{1,200}$/.test(instance) ? instance : undefined;
  return { ...description, rewrites: description.rewrites ?? true, instance: known };
}

/** What a config is refused with is for the operator, and holds nothing of any request. */
function reasonIn({ status, body }: HttpAnswer): string {
  try {
    const { error } = JSON.parse(body.toString()) as { error?: unknown };
    if (typeof error === 'string') return error.slice(0, MAX_REASON);
  } catch {
    // It gave no reason that can be read.
  }
  return `it answered /describe with ${status}`;
}
