/**
 * What Envoy's `CheckResponse` decides. Only what is plainly a yes allows: in protobuf an answer with nothing in it looks
 * like a status of 0, which is OK, and Envoy takes it for one.
 */
import type { AllowOrReject, Reject } from '../../proto/contract.ts';
import { PluginFault } from '../../proto/contract.ts';
import { MAX_REJECT_BODY } from '../../proto/verdict.ts';
import { contentTypeOf } from '../json.ts';
import { type HeaderValue, headerIn } from './envoy-header.ts';

/** `google.rpc.Code.OK`. */
const OK = 0;
/** The status of a denial that names none, or none that a rejection can have. */
const DENIED = 403;
/** The status of a denial whose headers cannot be sent, as of Envoy's `validate_mutations`. */
const INVALID = 500;
/** The most of a denial's headers, names and values, in UTF-16 units. */
const MAX_HEADERS = 32_768;
const MAX_COOKIES = 16;

/** `HeaderValueOption.HeaderAppendAction` by its numbers. */
const ADD = 0;
const ADD_IF_ABSENT = 1;
const OVERWRITE_IF_EXISTS_OR_ADD = 2;
const OVERWRITE_IF_EXISTS = 3;

interface HeaderValueOption {
  header?: HeaderValue;
  append?: { value?: boolean };
  appendAction?: number;
  keepEmptyValue?: boolean;
}

interface DeniedHttpResponse {
  status?: { code?: number };
  headers?: HeaderValueOption[];
  body?: string;
}

/** The message as proto-loader reads it: what is not there is absent. */
export interface CheckResponse {
  status?: { code?: number };
  deniedResponse?: DeniedHttpResponse;
  errorResponse?: DeniedHttpResponse;
}

/**
 * @param count how many resources were asked about: the one answer counts for all
 * @throws {@link PluginFault} when it decides nothing, or two things
 */
export function verdictIn(reply: CheckResponse, count: number): AllowOrReject {
  const { status, deniedResponse, errorResponse } = reply;
  if (errorResponse !== undefined) throw new PluginFault('authz_error', 'the service says that it could not decide');
  if (status === undefined) throw malformed('it has no status');
  if ((status.code ?? OK) !== OK) return { reject: rejection(deniedResponse ?? {}) };
  if (deniedResponse !== undefined) throw malformed('its status is OK, yet it denies');
  return { allow: { decisions: Array<boolean>(count).fill(true) } };
}

function malformed(what: string): PluginFault {
  return new PluginFault('bad_answer', `the service's reply decides nothing: ${what}`);
}

function rejection({ status, headers = [], body = '' }: DeniedHttpResponse): Reject {
  const told = { code: 'policy_denied', message: 'The policy of this gateway does not allow this request.' };
  const out = new DenialHeaders(headers);
  // It is a denial all the same: were it a fault, `onFault: allow` would let it through.
  if (!out.isSound) return { ...told, status: INVALID, body: '' };
  const sent = body.slice(0, MAX_REJECT_BODY);
  return {
    ...told,
    status: rejectStatus(status?.code ?? 0),
    headers: out.headers,
    cookies: out.cookies,
    body: sent,
    contentType: out.contentType ?? contentTypeOf(sent),
  };
}

function rejectStatus(code: number): number {
  return code >= 400 && code <= 599 ? code : DENIED;
}

/** The headers that a denial brings along. */
class DenialHeaders {
  /** False when one of them must not be sent: then none is. */
  readonly isSound: boolean;
  private readonly values = new Map<string, string[]>();

  constructor(options: HeaderValueOption[]) {
    this.isSound = options.every((option) => this.add(option)) && this.size <= MAX_HEADERS;
  }

  get headers(): Record<string, string> {
    const plain = [...this.values].filter(([name]) => name !== 'set-cookie' && name !== 'content-type');
    return Object.fromEntries(plain.map(([name, values]) => [name, values.join(', ')]));
  }

  get cookies(): string[] {
    return (this.values.get('set-cookie') ?? []).slice(0, MAX_COOKIES);
  }

  get contentType(): string | undefined {
    return this.values.get('content-type')?.at(-1);
  }

  private get size(): number {
    let size = 0;
    for (const [name, values] of this.values) for (const value of values) size += name.length + value.length;
    return size;
  }

  private add(option: HeaderValueOption): boolean {
    const header = headerIn(option.header);
    if (header === undefined) return false;
    const [name, text] = header;
    if (text !== '' || option.keepEmptyValue === true) this.put(name, text, option);
    return true;
  }

  /**
   * `append`, where it is set, counts before `append_action`. With neither, the header replaces what the gateway itself
   * would have said, and one that stands in the list twice is sent twice (Envoy's ext_authz filter).
   */
  private put(name: string, text: string, { append, appendAction = 0 }: HeaderValueOption): void {
    const known = this.values.get(name) ?? [];
    const action = append === undefined ? appendAction : append.value ? ADD : OVERWRITE_IF_EXISTS_OR_ADD;
    if (action === ADD_IF_ABSENT && known.length > 0) return;
    if (action === OVERWRITE_IF_EXISTS && known.length === 0) return;
    const isReplaced = action === OVERWRITE_IF_EXISTS_OR_ADD || action === OVERWRITE_IF_EXISTS;
    this.values.set(name, isReplaced ? [text] : [...known, text]);
  }
}
