/**
 * What the kernel says when it refuses a request, in terms of the request. Sources: linux/netlink.h, the
 * kernel's netlink/intro.rst.
 */

import { attributes, text } from './attributes.ts';
import { isKernelError, KernelError } from './libc.ts';
import {
  type AttributeNames,
  Control,
  Flag,
  headerSize,
  listAttributes,
  type Message,
  type Request,
} from './message.ts';
import { i32, struct, u32, u64 } from './struct.ts';

/** struct nlmsgerr: the header of the request follows. */
const nlmsgerr = struct({ errno: i32, requestLength: u32 });
/** The range of values that an attribute may have. */
const policy = attributes({ min: [4, u64], max: [5, u64] });
/**
 * What acknowledgements say besides the number of the error; the offset is that of the attribute in the
 * request.
 */
const extendedAck = attributes({ message: [1, text], offset: [2, u32], policy: [4, policy] });

/** An attribute of a request that the kernel does not accept. */
export interface RefusedAttribute {
  /** What a user knows it as, such as "MTU". */
  readonly label: string;
  /** Its value in the request, as text; undefined when it cannot be shown. */
  readonly value: string | undefined;
}

/** The kernel refused a request. */
export class NetlinkError extends KernelError {
  /** Index of the request among those that were sent together; negative for the batch itself. */
  readonly index: number;
  /** The attribute at fault, where the kernel says so. */
  readonly attribute: RefusedAttribute | undefined;

  constructor(action: string, errno: number, index: number, reason: Reason = {}) {
    super(action, errno, reason.hint);
    this.name = 'NetlinkError';
    this.index = index;
    this.attribute = reason.attribute;
  }
}

/** What the kernel says when something does not exist: an interface, a rule, a route, an address. */
const gone = ['ENODEV', 'ENOENT', 'ESRCH', 'EADDRNOTAVAIL'];

/**
 * For requests that remove what may be gone already: a refusal for that reason counts as success.
 * @param outcomes what NetlinkSocket.attempt returned.
 * @throws NetlinkError the first other refusal.
 */
export function requireGone(outcomes: readonly unknown[]): void {
  throwRefusal(outcomes, ...gone);
}

/**
 * For requests that add what may be there already: a refusal for that reason counts as success.
 * @param outcomes what NetlinkSocket.attempt returned.
 * @throws NetlinkError the first other refusal.
 */
export function requirePresent(outcomes: readonly unknown[]): void {
  throwRefusal(outcomes, 'EEXIST');
}

/**
 * @param outcomes what NetlinkSocket.attempt returned.
 * @param overlooked names of errors that count as success.
 * @throws NetlinkError the first other refusal.
 */
export function throwRefusal(outcomes: readonly unknown[], ...overlooked: string[]): void {
  const refused = outcomes.find(
    (outcome) => outcome instanceof Error && !isKernelError(outcome, ...overlooked),
  );
  if (refused) throw refused;
}

interface Reason {
  hint?: string | undefined;
  attribute?: RefusedAttribute;
}

/** Reads an acknowledgement or the end of a dump. @returns undefined when it reports success. */
export function readError(message: Message, request: Request, index: number): NetlinkError | undefined {
  const { payload } = message;
  if (payload.length < i32.size) return undefined;
  const errno = -i32.decode(payload);
  return errno === 0
    ? undefined
    : new NetlinkError(request.action, errno, index, reasonOf(message, request, errno));
}

function reasonOf(message: Message, request: Request, errno: number): Reason {
  const { message: hint, offset, policy: limits } = extendedAck.decode(extensions(message));
  const found = find(request, errno, hint, offset);
  if (!found) return { hint };
  const { attribute } = found;
  const [min, max] = limits ? [limits.min, limits.max] : hint ? [] : (found.range ?? []);
  const { label, value } = attribute;
  const refused = `the kernel does not accept ${value === undefined ? `the ${label}` : `${label} ${value}`}`;
  if (min !== undefined && max !== undefined)
    return { attribute, hint: `${refused}, which must be between ${min} and ${max}` };
  return { attribute, hint: hint ? `${refused}: ${hint}` : refused };
}

/** The attributes of an acknowledgement, which say more than the number. */
function extensions({ type, payload, flags }: Message): Uint8Array {
  const none = new Uint8Array();
  if (!(flags & Flag.AckTlvs)) return none;
  // The end of a dump has them after the number; an error has them after the request, which it repeats, in
  // full or only its header.
  if (type !== Control.Error) return payload.subarray(i32.size);
  if (payload.length < i32.size + headerSize) return none;
  const { requestLength } = nlmsgerr.decode(payload);
  return payload.subarray(i32.size + (flags & Flag.Capped ? headerSize : (requestLength + 3) & ~3));
}

/** Error numbers that are about a value in the request. */
const aboutValues: readonly number[] = [22, 34]; // EINVAL and ERANGE

/**
 * The attribute at fault: the one at the offset that the kernel gives, else the one that its text mentions,
 * as in "mtu less than device minimum", else one whose value is known to be out of range.
 */
function find({ names, payload, innerNames }: Request, errno: number, hint = '', offset?: number) {
  if (!names) return undefined;
  const all = [...labelled(names, payload, innerNames)];
  const at = offset === undefined ? -1 : payload.byteOffset + offset - headerSize;
  // Nested attributes come after the one they are in, so that the last one that covers the offset is the
  // innermost.
  if (offset !== undefined) return all.findLast(({ start, end }) => start <= at && at < end);
  if (!aboutValues.includes(errno)) return undefined;
  const said = ` ${hint.toLowerCase().replaceAll(/[^a-z0-9]+/g, ' ')} `;
  return all.find(({ attribute: { label, value }, range: [min, max] = [0, Infinity] }) =>
    hint ? said.includes(` ${label.toLowerCase()} `) : Number(value) < min || Number(value) > max,
  );
}

interface Located {
  attribute: RefusedAttribute;
  range: readonly [number, number] | undefined;
  start: number;
  end: number;
}

/** The attributes that a user can have set, with their place in the buffer. */
function* labelled(
  names: AttributeNames,
  data: Uint8Array,
  innerNames: AttributeNames | undefined,
): Generator<Located> {
  for (const [type, value] of listAttributes(data.subarray(names.headerSize))) {
    const known = names.find(type);
    if (!known) continue;
    if (known.label !== undefined) {
      const [start, end] = [value.byteOffset - 4, value.byteOffset + value.length];
      const attribute = { label: known.label, value: shown(known.decode(value)) };
      yield { attribute, range: known.range, start, end };
    }
    const within = known.names ?? innerNames;
    if (known.nested && within) yield* labelled(within, value, innerNames);
  }
}

function shown(value: unknown): string | undefined {
  return value instanceof Uint8Array ? undefined : String(value);
}
