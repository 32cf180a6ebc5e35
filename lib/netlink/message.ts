/**
 * The netlink wire format: messages, and attributes within them. Source: linux/netlink.h. Numbers are in host
 * byte order, which on every machine that Node.js runs on is little-endian, unless a name says otherwise.
 */

import { struct, u16, u32 } from './struct.ts';

/** Flags of struct nlmsghdr. */
export const Flag = {
  Request: 0x1,
  Multi: 0x2,
  Ack: 0x4,
  /**
   * Asks to be told what the request brought about; GET requests of traffic control are answered only then.
   */
  Echo: 0x8,
  DumpInterrupted: 0x10,
  /** NEW requests. */
  Replace: 0x100,
  Exclusive: 0x200,
  Create: 0x400,
  Append: 0x800,
  /** GET requests: NLM_F_ROOT | NLM_F_MATCH. */
  Dump: 0x300,
  /** Acknowledgements: the kernel returns only the header of the request, and extended attributes. */
  Capped: 0x100,
  AckTlvs: 0x200,
} as const;

/** Message types below the protocols' own. */
export const Control = { Noop: 1, Error: 2, Done: 3, MinType: 16 } as const;

const nlmsghdr = struct({ length: u32, type: u16, flags: u16, sequence: u32, port: u32 });
export const headerSize = 16;
const nested = 0x8000;
const byteOrder = 0x4000;
const typeMask = ~(nested | byteOrder) & 0xffff;

/** An attribute to send: its type and its payload. */
export type Attribute = Uint8Array;

const align = (size: number) => (size + 3) & ~3;

/**
 * A request that is complete except for its sequence number. A plain value, so that requests can be gathered
 * and sent together.
 */
export interface Request {
  /** What it does, for error messages, as in "create link \"cni0\"". */
  readonly action: string;
  readonly type: number;
  readonly flags: number;
  /** The protocol's own header followed by attributes. */
  readonly payload: Uint8Array;
  /** What its attributes are called, for error messages. */
  readonly names?: AttributeNames;
  /**
   * What attributes are called whose meaning depends on others, such as the settings of a kind of interface.
   */
  readonly innerNames?: AttributeNames | undefined;
}

/** What the attributes of a message are called, for error messages. */
export interface AttributeNames {
  /** Size of what precedes the attributes. */
  readonly headerSize: number;
  find(type: number): NamedAttribute | undefined;
}

/** An attribute as error messages need it. */
export interface NamedAttribute {
  /** What the user knows it as; undefined when the user cannot have set it. */
  readonly label: string | undefined;
  /** Whether it holds attributes. */
  readonly nested: boolean;
  /** Names of these. */
  readonly names: AttributeNames | undefined;
  /** Lowest and highest value, if the kernel does not tell them. */
  readonly range: readonly [number, number] | undefined;
  decode(value: Uint8Array): unknown;
}

/** One message as received. */
export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** What follows the header. */
  readonly payload: Uint8Array;
}

/** An attribute with bytes as they are. */
export function bytesAttr(type: number, value: Uint8Array): Attribute {
  const out = new Uint8Array(align(4 + value.length));
  const view = new DataView(out.buffer);
  view.setUint16(0, 4 + value.length, true);
  view.setUint16(2, type, true);
  out.set(value, 4);
  return out;
}

/** A 32-bit number in network byte order. */
export function be32Attr(type: number, value: number): Attribute {
  return bytesAttr(
    type,
    numberBytes(4, (view) => view.setUint32(0, value)),
  );
}

/** A 64-bit number in network byte order. */
export function be64Attr(type: number, value: bigint): Attribute {
  return bytesAttr(
    type,
    numberBytes(8, (view) => view.setBigUint64(0, value)),
  );
}

/** Text with the final NUL that the kernel expects. */
export function stringAttr(type: number, value: string): Attribute {
  return bytesAttr(type, Buffer.from(`${value}\0`));
}

/** Attributes within an attribute, marked as such. */
export function nestedAttr(type: number, attributes: readonly Attribute[]): Attribute {
  return bytesAttr(type | nested, concat(attributes));
}

/** Joins pieces one after another. */
export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

/** The bytes of a whole message. */
export function encodeMessage(request: Request, sequence: number, extraFlags = 0): Uint8Array {
  const out = new Uint8Array(align(headerSize + request.payload.length));
  const { type, payload } = request;
  const flags = request.flags | Flag.Request | extraFlags;
  nlmsghdr.write(viewOf(out), 0, { length: headerSize + payload.length, type, flags, sequence });
  out.set(request.payload, headerSize);
  return out;
}

/**
 * Splits what one recv(2) returned into messages.
 * @throws RangeError when a message claims more bytes than there are.
 */
export function decodeMessages(data: Uint8Array): Message[] {
  const messages: Message[] = [];
  const view = viewOf(data);
  for (let offset = 0; offset + headerSize <= data.length; ) {
    const { length, type, flags, sequence } = nlmsghdr.read(view, offset);
    if (length < headerSize || offset + length > data.length)
      throw new RangeError(
        `A netlink message of ${length} bytes does not fit the ${data.length - offset} received`,
      );
    messages.push({ type, flags, sequence, payload: data.subarray(offset + headerSize, offset + length) });
    offset += align(length);
  }
  return messages;
}

/** Attributes as received, looked up by type. Of several with the same type the last counts. */
export class Attributes {
  private readonly byType = new Map<number, Uint8Array>();

  /** @throws RangeError when an attribute claims more bytes than there are. */
  constructor(data: Uint8Array) {
    for (const [type, value] of listAttributes(data)) this.byType.set(type, value);
  }

  bytes(type: number): Uint8Array | undefined {
    return this.byType.get(type);
  }

  u8(type: number): number | undefined {
    return this.read(type, 1)?.getUint8(0);
  }

  be16(type: number): number | undefined {
    return this.read(type, 2)?.getUint16(0);
  }

  be32(type: number): number | undefined {
    return this.read(type, 4)?.getUint32(0);
  }

  be64(type: number): bigint | undefined {
    return this.read(type, 8)?.getBigUint64(0);
  }

  /** Text up to its NUL. */
  string(type: number): string | undefined {
    const value = this.byType.get(type);
    if (!value) return undefined;
    const end = value.indexOf(0);
    return Buffer.from(end < 0 ? value : value.subarray(0, end)).toString('utf8');
  }

  nested(type: number): Attributes | undefined {
    const value = this.byType.get(type);
    return value && new Attributes(value);
  }

  private read(type: number, size: number): DataView | undefined {
    const value = this.byType.get(type);
    if (!value) return undefined;
    if (value.length < size)
      throw new RangeError(`Netlink attribute ${type} has ${value.length} bytes where ${size} are needed`);
    return viewOf(value);
  }
}

/**
 * Every attribute in order, for lists in which a type comes more than once.
 * @param isWanted tells which types to list; all of them when left out.
 * @throws RangeError when an attribute claims more bytes than there are.
 */
export function listAttributes(
  data: Uint8Array,
  isWanted: (type: number) => boolean = () => true,
): [type: number, value: Uint8Array][] {
  const list: [number, Uint8Array][] = [];
  const view = viewOf(data);
  for (let offset = 0; offset + 4 <= data.length; ) {
    const length = view.getUint16(offset, true);
    if (length < 4 || offset + length > data.length)
      throw new RangeError(
        `A netlink attribute of ${length} bytes does not fit the ${data.length - offset} that are left`,
      );
    const type = view.getUint16(offset + 2, true) & typeMask;
    if (isWanted(type)) list.push([type, data.subarray(offset + 4, offset + length)]);
    offset += align(length);
  }
  return list;
}

/** A view on exactly these bytes. */
function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

/** Bytes for a fixed structure: `fill` writes its fields. */
export function numberBytes(size: number, fill: (view: DataView) => void): Uint8Array {
  const out = new Uint8Array(size);
  fill(new DataView(out.buffer));
  return out;
}
