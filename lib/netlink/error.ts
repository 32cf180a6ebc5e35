/** What the kernel says when it refuses a request, in terms of the request. Sources: linux/netlink.h, the kernel's netlink/intro.rst. */

import { attributes, text } from './attributes.ts';
import { KernelError } from './libc.ts';
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
/** Values that an attribute may have. */
const policy = attributes({ min: [4, u64], max: [5, u64] });
/** What acknowledgements say besides the number of the error; the offset is that of the attribute in the request. */
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
  /** Which of the requests that were sent together. */
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

interface Reason {
  hint?: string | undefined;
  attribute?: RefusedAttribute;
}

/** Reads an acknowledgement or the end of a dump. @returns undefined when it says success. */
export function readError(message: Message, request: Request, index: number): NetlinkError | undefined {
  const { payload } = message;
  if (payload.length < i32.size) return undefined;
  const errno = -i32.decode(payload);
  return errno === 0
    ? undefined
    : new NetlinkError(request.action, errno, index, reasonOf(message, request, errno));
}

function reasonOf({ type, payload, flags }: Message, request: Request, errno: number): Reason {
  if (!(flags & Flag.AckTlvs)) return {};
  let start = i32.size;
  // An error carries the request's header, and unless capped its payload too; the end of a dump carries neither.
  if (type === Control.Error) {
    if (payload.length < i32.size + headerSize) return {};
    start += flags & Flag.Capped ? headerSize : (nlmsgerr.decode(payload).requestLength + 3) & ~3;
  }
  if (start > payload.length) return {};
  const { message: hint, offset, policy: range } = extendedAck.decode(payload.subarray(start));
  const attribute =
    offset !== undefined ? attributeAt(request, offset) : hint && attributeNamed(request, hint, errno);
  if (!attribute) return { hint };
  const { label, value } = attribute;
  const refused = `the kernel does not accept ${value === undefined ? `the ${label}` : `${label} ${value}`}`;
  if (range?.min !== undefined && range.max !== undefined)
    return { attribute, hint: `${refused}, which must be between ${range.min} and ${range.max}` };
  return { attribute, hint: hint ? `${refused}: ${hint}` : refused };
}

/** Error numbers that are about a value in the request. */
const aboutValues: readonly number[] = [22, 34]; // EINVAL and ERANGE

/** The attribute that the kernel's text mentions: often it does not give the offset, as in "mtu less than device minimum". */
function attributeNamed(request: Request, hint: string, errno: number): RefusedAttribute | undefined {
  if (!request.names || !aboutValues.includes(errno)) return undefined;
  const said = ` ${hint.toLowerCase().replaceAll(/[^a-z0-9]+/g, ' ')} `;
  for (const { attribute } of labelled(request.names, request.payload, request.innerNames))
    if (said.includes(` ${attribute.label.toLowerCase()} `)) return attribute;
  return undefined;
}

/** @param offset from the start of the request's header. */
function attributeAt(request: Request, offset: number): RefusedAttribute | undefined {
  if (!request.names) return undefined;
  const at = request.payload.byteOffset + offset - headerSize;
  let found: RefusedAttribute | undefined;
  // Those within others come after them, so that the last one that covers the offset is the innermost.
  for (const { attribute, start, end } of labelled(request.names, request.payload, request.innerNames))
    if (start <= at && at < end) found = attribute;
  return found;
}

interface Located {
  attribute: RefusedAttribute;
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
      yield { attribute: { label: known.label, value: shown(known.decode(value)) }, start, end };
    }
    const within = known.names ?? innerNames;
    if (known.nested && within) yield* labelled(within, value, innerNames);
  }
}

function shown(value: unknown): string | undefined {
  return value instanceof Uint8Array ? undefined : String(value);
}
