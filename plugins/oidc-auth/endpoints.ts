/** The paths that this plugin serves itself. */
import type { EndpointInput, Respond } from '../../proto/contract.ts';

export type Handler = (input: EndpointInput) => Respond | Promise<Respond>;

/** One path and who answers there. */
export interface Endpoint {
  methods: readonly ('GET' | 'POST')[];
  handle: Handler;
}

export class Endpoints {
  readonly #byPath = new Map<string, Endpoint>();

  get paths(): string[] {
    return [...this.#byPath.keys()];
  }

  add(path: string, methods: Endpoint['methods'], handle: Handler): void {
    this.#byPath.set(path, { methods, handle });
  }

  answer(input: EndpointInput): Respond | Promise<Respond> {
    const endpoint = this.#byPath.get(input.request.path);
    if (endpoint === undefined) return { status: 404 };
    const { methods, handle } = endpoint;
    if (methods.some((one) => one === input.request.method)) return handle(input);
    return { status: 405, headers: { allow: methods.join(', ') }, body: `Use ${methods.join(' or ')} here.` };
  }
}
