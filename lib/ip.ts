/**
 * IP addresses and prefixes as the plugins use them.
 *
 * The plugins carry their own small type because it sits in every plugin's start-up path; the tests compare
 * it with ip-num, which the `cni` command uses as well.
 */

export type Family = 4 | 6;

/** Both families, for loops over them. */
export const families: readonly Family[] = [4, 6];

const bits = { 4: 32n, 6: 128n } as const;

/**
 * One IPv4 or IPv6 address. Immutable. IPv4-mapped IPv6 text (`::ffff:10.0.0.1`) is read as IPv4, as Go does.
 */
export class Address {
  readonly family: Family;
  /** The address as an unsigned number of 32 or 128 bits. */
  readonly value: bigint;

  constructor(family: Family, value: bigint) {
    if (value < 0n || value >> bits[family] !== 0n)
      throw new RangeError(`Address value ${value} does not fit IPv${family}`);
    this.family = family;
    this.value = value;
  }

  /** Reads `10.0.0.1` or `fd00::1`. @throws RangeError when the text is no address. */
  static parse(text: string): Address {
    const address = text.includes(':') ? parse6(text) : parse4(text);
    if (!address) throw new RangeError(`"${text}" is not an IP address`);
    return address;
  }

  /** Like {@link Address.parse}, but returns undefined instead of throwing. */
  static tryParse(text: string): Address | undefined {
    return text.includes(':') ? parse6(text) : parse4(text);
  }

  /** Reads 4 or 16 bytes in network order. @throws RangeError for any other length. */
  static fromBytes(bytes: Uint8Array): Address {
    if (bytes.length !== 4 && bytes.length !== 16)
      throw new RangeError(`An address has 4 or 16 bytes, not ${bytes.length}`);
    let value = 0n;
    for (const byte of bytes) value = (value << 8n) | BigInt(byte);
    return new Address(bytes.length === 4 ? 4 : 6, value);
  }

  /** The address as 4 or 16 bytes in network order. */
  toBytes(): Uint8Array {
    const bytes = new Uint8Array(this.family === 4 ? 4 : 16);
    let value = this.value;
    for (let i = bytes.length - 1; i >= 0; i--) {
      bytes[i] = Number(value & 0xffn);
      value >>= 8n;
    }
    return bytes;
  }

  /** The address `count` places further on. @throws RangeError past either end of the family's space. */
  plus(count: bigint | number): Address {
    return new Address(this.family, this.value + BigInt(count));
  }

  equals(other: Address | undefined): boolean {
    return other !== undefined && this.family === other.family && this.value === other.value;
  }

  /** Negative, zero or positive, IPv4 before IPv6: for sorting. */
  compare(other: Address): number {
    if (this.family !== other.family) return this.family - other.family;
    return this.value < other.value ? -1 : this.value > other.value ? 1 : 0;
  }

  get isUnspecified(): boolean {
    return this.value === 0n;
  }

  get isLoopback(): boolean {
    return this.family === 4 ? this.value >> 24n === 127n : this.value === 1n;
  }

  get isMulticast(): boolean {
    return this.family === 4 ? this.value >> 28n === 0xen : this.value >> 120n === 0xffn;
  }

  /** 169.254.0.0/16 or fe80::/10. */
  get isLinkLocal(): boolean {
    return this.family === 4 ? this.value >> 16n === 0xa9fen : this.value >> 118n === 0x3fan;
  }

  /** The prefix of this one address: /32 or /128. */
  toPrefix(): Prefix {
    return new Prefix(this, Number(bits[this.family]));
  }

  /** Canonical text: dotted quad, or RFC 5952. */
  toString(): string {
    return this.family === 4 ? this.toBytes().join('.') : format6(this.toBytes());
  }

  toJSON(): string {
    return this.toString();
  }
}

/** An address with a prefix length. Host bits are kept: `10.0.0.5/24` stays what it is, as in CNI results. */
export class Prefix {
  readonly address: Address;
  /** Prefix length in bits, 0 to 32 or 128. */
  readonly length: number;

  constructor(address: Address, length: number) {
    if (!Number.isInteger(length) || length < 0 || length > Number(bits[address.family]))
      throw new RangeError(`"/${length}" is not a prefix length of IPv${address.family}`);
    this.address = address;
    this.length = length;
  }

  /** Reads `10.0.0.1/24` or `fd00::1/64`. @throws RangeError when the text is anything else. */
  static parse(text: string): Prefix {
    const match = /^([^/]+)\/(\d{1,3})$/.exec(text);
    const address = match && Address.tryParse(match[1]!);
    if (!address || Number(match[2]) > Number(bits[address.family]))
      throw new RangeError(`"${text}" is not an IP address with a prefix length, such as "10.1.0.0/16"`);
    return new Prefix(address, Number(match[2]));
  }

  /** Like {@link Prefix.parse}, but returns undefined instead of throwing. */
  static tryParse(text: string): Prefix | undefined {
    try {
      return Prefix.parse(text);
    } catch {
      return undefined;
    }
  }

  get family(): Family {
    return this.address.family;
  }

  private get hostBits(): bigint {
    return bits[this.family] - BigInt(this.length);
  }

  /** The lowest address of the prefix. */
  get first(): Address {
    return new Address(this.family, (this.address.value >> this.hostBits) << this.hostBits);
  }

  /** The highest address of the prefix: the broadcast address in IPv4. */
  get last(): Address {
    return new Address(this.family, this.first.value | ((1n << this.hostBits) - 1n));
  }

  /** The same prefix with its host bits cleared. */
  get network(): Prefix {
    return new Prefix(this.first, this.length);
  }

  /** Netmask as an address. */
  get mask(): Address {
    return new Address(this.family, ((1n << BigInt(this.length)) - 1n) << this.hostBits);
  }

  contains(address: Address): boolean {
    return (
      address.family === this.family && address.value >> this.hostBits === this.address.value >> this.hostBits
    );
  }

  overlaps(other: Prefix): boolean {
    return this.contains(other.first) || other.contains(this.first);
  }

  equals(other: Prefix | undefined): boolean {
    return other !== undefined && this.length === other.length && this.address.equals(other.address);
  }

  toString(): string {
    return `${this.address}/${this.length}`;
  }

  toJSON(): string {
    return this.toString();
  }
}

function parse4(text: string): Address | undefined {
  // No leading zeros: "010" is octal to some readers and decimal to others, so Go refuses it, and so do we.
  if (!/^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$/.test(text)) return undefined;
  let value = 0n;
  for (const part of text.split('.')) {
    if (Number(part) > 255) return undefined;
    value = (value << 8n) | BigInt(part);
  }
  return new Address(4, value);
}

function parse6(text: string): Address | undefined {
  let groups = text;
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  if (dotted) {
    const tail = parse4(dotted[2]!);
    if (!tail) return undefined;
    groups = `${dotted[1]}${(tail.value >> 16n).toString(16)}:${(tail.value & 0xffffn).toString(16)}`;
  }
  const halves = groups.split('::');
  if (halves.length > 2) return undefined;
  const words = halves.map((half) => (half === '' ? [] : half.split(':')));
  const count = words.reduce((sum, half) => sum + half.length, 0);
  if (halves.length === 1 ? count !== 8 : count > 7) return undefined;
  const all = [...words[0]!, ...Array<string>(8 - count).fill('0'), ...(words[1] ?? [])];
  let value = 0n;
  for (const word of all) {
    if (!/^[0-9a-fA-F]{1,4}$/.test(word)) return undefined;
    value = (value << 16n) | BigInt(`0x${word}`);
  }
  return value >> 32n === 0xffffn ? new Address(4, value & 0xffffffffn) : new Address(6, value);
}

function format6(bytes: Uint8Array): string {
  const words: string[] = [];
  for (let i = 0; i < 16; i += 2) words.push(((bytes[i]! << 8) | bytes[i + 1]!).toString(16));
  // RFC 5952 section 4.2: the longest run of two or more zero groups is shortened; of equally long ones, the
  // first.
  let best = { start: 0, length: 1 };
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && words[start + length] === '0') length++;
    if (length > best.length) best = { start, length };
  }
  if (best.length < 2) return words.join(':');
  return `${words.slice(0, best.start).join(':')}::${words.slice(best.start + best.length).join(':')}`;
}
