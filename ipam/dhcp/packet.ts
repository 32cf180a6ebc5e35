/**
 * DHCP messages on the wire. Sources: RFC 2131, RFC 2132, RFC 3442 (classless routes), RFC 3396 (long
 * options).
 */

import { Address, Prefix } from '../../lib/ip.ts';

/** Kinds of messages, option 53. */
export const MessageType = {
  Discover: 1,
  Offer: 2,
  Request: 3,
  Decline: 4,
  Ack: 5,
  Nak: 6,
  Release: 7,
} as const;

/** Options by number. */
export const Option = {
  SubnetMask: 1,
  Router: 3,
  HostName: 12,
  StaticRoutes: 33,
  RequestedAddress: 50,
  LeaseTime: 51,
  Overload: 52,
  MessageType: 53,
  ServerIdentifier: 54,
  ParameterList: 55,
  RenewalTime: 58,
  RebindingTime: 59,
  VendorClass: 60,
  ClientIdentifier: 61,
  UserClass: 77,
  ClasslessRoutes: 121,
} as const;

/** A message as client and server exchange it. */
export interface DhcpMessage {
  /** 1 from a client, 2 from a server. */
  op: 1 | 2;
  transaction: number;
  /** Ask the server to answer by broadcast. */
  broadcast?: boolean;
  /** The client's address, once it may use it. */
  clientAddress?: Address;
  /** The address that the server gives. */
  yourAddress?: Address;
  /** The client's MAC address. */
  hardwareAddress: Uint8Array;
  options: Map<number, Uint8Array>;
}

const cookie = Uint8Array.of(99, 130, 83, 99);
const optionsOffset = 240;
const [serverNameOffset, fileOffset, cookieOffset] = [44, 108, 236];
const minimumSize = 300;
/** The longest option that is put together from several, in bytes. */
const maximumSize = 1500;

/** Writes a message. @throws RangeError when an option is longer than its 255 bytes. */
export function encodeMessage(message: DhcpMessage): Uint8Array {
  const parts: number[] = [];
  for (const [number, value] of message.options) {
    if (value.length > 255)
      throw new RangeError(`DHCP option ${number} has ${value.length} bytes where 255 fit`);
    parts.push(number, value.length, ...value);
  }
  const out = new Uint8Array(Math.max(minimumSize, optionsOffset + parts.length + 1));
  const view = new DataView(out.buffer);
  out[0] = message.op;
  out[1] = 1; // Ethernet
  out[2] = message.hardwareAddress.length;
  view.setUint32(4, message.transaction);
  if (message.broadcast) view.setUint16(10, 0x8000);
  if (message.clientAddress) out.set(message.clientAddress.toBytes(), 12);
  if (message.yourAddress) out.set(message.yourAddress.toBytes(), 16);
  out.set(message.hardwareAddress.subarray(0, 16), 28);
  out.set(cookie, cookieOffset);
  out.set(parts, optionsOffset);
  out[optionsOffset + parts.length] = 255;
  return out;
}

/** Reads a message. @returns undefined for anything else. */
export function decodeMessage(data: Uint8Array): DhcpMessage | undefined {
  if (data.length < optionsOffset || data.length > 65_535) return undefined;
  if (data[0] !== 1 && data[0] !== 2) return undefined;
  if (!cookie.every((byte, i) => data[cookieOffset + i] === byte)) return undefined;
  const hardwareLength = data[2]!;
  if (hardwareLength > 16) return undefined;
  const options = new Map<number, Uint8Array>();
  if (!readOptions(data.subarray(optionsOffset), options)) return undefined;
  const overload = options.get(Option.Overload)?.[0] ?? 0;
  if (overload & 1 && !readOptions(data.subarray(fileOffset, cookieOffset), options)) return undefined;
  if (overload & 2 && !readOptions(data.subarray(serverNameOffset, fileOffset), options)) return undefined;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return {
    op: data[0],
    transaction: view.getUint32(4),
    broadcast: (view.getUint16(10) & 0x8000) !== 0,
    clientAddress: Address.fromBytes(data.subarray(12, 16)),
    yourAddress: Address.fromBytes(data.subarray(16, 20)),
    hardwareAddress: data.slice(28, 28 + hardwareLength),
    options,
  };
}

/** @returns false when an option reaches past the end. */
function readOptions(data: Uint8Array, options: Map<number, Uint8Array>): boolean {
  for (let offset = 0; offset < data.length; ) {
    const number = data[offset]!;
    if (number === 255) return true;
    if (number === 0) {
      offset++;
      continue;
    }
    const length = data[offset + 1];
    if (length === undefined || offset + 2 + length > data.length) return false;
    const value = data.slice(offset + 2, offset + 2 + length);
    const before = options.get(number);
    // An option that comes twice is one long option.
    options.set(
      number,
      before && before.length + value.length <= maximumSize ? Uint8Array.from([...before, ...value]) : value,
    );
    offset += 2 + length;
  }
  return true;
}

/** The kind of a message, 0 when it says none. */
export function typeOf(message: DhcpMessage): number {
  return message.options.get(Option.MessageType)?.[0] ?? 0;
}

/** An option that holds a number of 32 bits. */
export function numberOption(message: DhcpMessage, number: number): number | undefined {
  const value = message.options.get(number);
  return value?.length === 4 ? new DataView(value.buffer, value.byteOffset).getUint32(0) : undefined;
}

/** An option that holds addresses; incomplete ones are left out. */
export function addressesOption(message: DhcpMessage, number: number): Address[] {
  const value = message.options.get(number) ?? new Uint8Array();
  const list: Address[] = [];
  for (let offset = 0; offset + 4 <= value.length; offset += 4)
    list.push(Address.fromBytes(value.subarray(offset, offset + 4)));
  return list;
}

/** A route that a server gives. */
export interface DhcpRoute {
  dst: Prefix;
  /** 0.0.0.0 when the destination is on the link itself. */
  router: Address;
}

/** Classless routes, option 121. @returns undefined when there are none or they are malformed. */
export function classlessRoutes(message: DhcpMessage): DhcpRoute[] | undefined {
  const value = message.options.get(Option.ClasslessRoutes);
  // Shorter than the option may be.
  if (!value?.length) return undefined;
  const routes: DhcpRoute[] = [];
  for (let offset = 0; offset < value.length; ) {
    const length = value[offset]!;
    const significant = Math.ceil(length / 8);
    if (length > 32 || offset + 1 + significant + 4 > value.length) return undefined;
    const destination = new Uint8Array(4);
    destination.set(value.subarray(offset + 1, offset + 1 + significant));
    routes.push({
      dst: new Prefix(Address.fromBytes(destination), length).network,
      router: Address.fromBytes(value.subarray(offset + 1 + significant, offset + 5 + significant)),
    });
    offset += 5 + significant;
  }
  return routes;
}

/** Routes with the prefix length of their class, option 33. */
export function classfulRoutes(message: DhcpMessage): DhcpRoute[] {
  const addresses = addressesOption(message, Option.StaticRoutes);
  const routes: DhcpRoute[] = [];
  for (let i = 0; i + 1 < addresses.length; i += 2) {
    const first = addresses[i]!.toBytes()[0]!;
    const length = first < 128 ? 8 : first < 192 ? 16 : 24;
    routes.push({ dst: new Prefix(addresses[i]!, length).network, router: addresses[i + 1]! });
  }
  return routes;
}

/** Prefix length of a netmask, undefined when its ones are not contiguous. */
export function maskLength(mask: Address | undefined): number | undefined {
  if (!mask) return undefined;
  const bits = mask.value.toString(2).padStart(32, '0');
  return /^1*0*$/.test(bits) ? (bits.indexOf('0') === -1 ? 32 : bits.indexOf('0')) : undefined;
}
