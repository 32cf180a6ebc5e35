/**
 * Netlink attributes, described once: a table of names, types and codecs gives the encoder, the decoder, the
 * types of both, and what error messages call an attribute. Source: linux/netlink.h.
 */

import { type AttributeNames, bytesAttr, concat, listAttributes, type NamedAttribute } from './message.ts';
import type { Codec, Field } from './struct.ts';

/** Marks an attribute that holds others (NLA_F_NESTED). */
const nestedMark = 0x8000;

/** How the content of an attribute is encoded. Codecs for nested attributes know their names. */
export interface AttributeCodec<T, In = T> extends Codec<T, In> {
  /** Set when it holds attributes, and must be marked so. */
  readonly nested?: boolean;
  readonly names?: AttributeNames;
  /** Set when the attribute may come several times, each time with one element of the list. */
  readonly element?: Codec<unknown, never>;
}

/**
 * Number of the attribute, what it holds, what error messages call it if a user can have set it, and the
 * lowest and highest value if the kernel refuses others without saying why.
 */
type Entry = readonly [
  type: number,
  codec: AttributeCodec<unknown, never>,
  label?: string,
  range?: readonly [number, number],
];
type Shape = Readonly<Record<string, Entry>>;
type Read<S extends Shape> = {
  [K in keyof S]?: S[K][1] extends AttributeCodec<infer T, never> ? T : never;
};
type Written<S extends Shape> = {
  [K in keyof S]?: (S[K][1] extends AttributeCodec<unknown, infer In> ? In : never) | undefined;
};

/** A set of attributes, such as those of an interface. */
class AttributeTable<S extends Shape = Shape> implements AttributeCodec<Read<S>, Written<S>>, AttributeNames {
  private readonly shape: S;
  private byType: string[] | undefined;

  constructor(shape: S) {
    this.shape = shape;
  }

  get nested(): boolean {
    return true;
  }

  get headerSize(): number {
    return 0;
  }

  get names(): AttributeNames {
    return this;
  }

  /** Attributes in the order of the values; those that are undefined are left out. */
  encode(values: Written<S>): Uint8Array {
    const parts: Uint8Array[] = [];
    for (const name in values) {
      const value = values[name] as never;
      if (value === undefined) continue;
      const [type, codec] = this.shape[name]!;
      const marked = codec.nested ? type | nestedMark : type;
      if (codec.element) {
        for (const one of value as never[]) parts.push(bytesAttr(marked, codec.element.encode(one)));
      } else parts.push(bytesAttr(marked, codec.encode(value)));
    }
    return concat(parts);
  }

  /**
   * Of several attributes with the same type the last counts, unless it is a list.
   * @throws RangeError when one is truncated.
   */
  decode(data: Uint8Array): Read<S> {
    const values: Record<string, unknown> = {};
    const nameOf = this.namesByType();
    for (const [type, bytes] of listAttributes(data, (one) => nameOf[one] !== undefined)) {
      const name = nameOf[type]!;
      const [, codec] = this.shape[name]!;
      if (codec.element) {
        values[name] ??= [];
        (values[name] as unknown[]).push(codec.element.decode(bytes));
      } else values[name] = codec.decode(bytes);
    }
    return values as Read<S>;
  }

  find(type: number): NamedAttribute | undefined {
    const name = this.namesByType()[type];
    if (name === undefined) return undefined;
    const [, codec, label, range] = this.shape[name]!;
    const { names, nested = false } = codec;
    return { label, nested, names, range, decode: (bytes) => (codec.element ?? codec).decode(bytes) };
  }

  /** Made when first needed: most tables are never used for decoding. */
  private namesByType(): string[] {
    if (!this.byType) {
      this.byType = [];
      for (const name in this.shape) this.byType[this.shape[name]![0]] = name;
    }
    return this.byType;
  }
}

/** Describes attributes by name: number, codec, and what error messages call it. */
export function attributes<S extends Shape>(shape: S): AttributeTable<S> {
  return new AttributeTable(shape);
}

/** A message of a protocol, or a part of one: its own structure, and the attributes that follow it. */
class Layout<H, HIn, S extends Shape> implements AttributeNames {
  readonly header: Field<H, HIn>;
  readonly attributes: AttributeTable<S>;

  constructor(header: Field<H, HIn>, table: AttributeTable<S>) {
    this.header = header;
    this.attributes = table;
  }

  get headerSize(): number {
    return this.header.size;
  }

  encode(header: HIn, values: Written<S>): Uint8Array {
    return concat([this.header.encode(header), this.attributes.encode(values)]);
  }

  /** The attributes of a message as received. @throws RangeError when it is truncated. */
  decode(payload: Uint8Array): Read<S> {
    return this.attributes.decode(payload.subarray(this.headerSize));
  }

  find(type: number): NamedAttribute | undefined {
    return this.attributes.find(type);
  }
}

/** Describes a message by its structure and its attributes. */
export function layout<H, HIn, S extends Shape>(
  header: Field<H, HIn>,
  table: AttributeTable<S>,
): Layout<H, HIn, S> {
  return new Layout(header, table);
}

/** Bytes as they are. */
export const raw: AttributeCodec<Uint8Array> = { encode: (value) => value, decode: (data) => data };

/** Text with a final NUL. */
export const text: AttributeCodec<string> = {
  encode: (value) => Buffer.from(`${value}\0`),
  decode: textOf,
};

/** Text that the kernel wants without a final NUL. */
export const word: AttributeCodec<string> = { encode: (value) => Buffer.from(value), decode: textOf };

/**
 * Attributes that are encoded and decoded by whoever knows them.
 * @param names of these, if they are always the same.
 */
export function container(names?: AttributeNames): AttributeCodec<Uint8Array> {
  return { ...raw, nested: true, ...(names && { names }) };
}

/** An attribute that may come several times. */
export function repeated<T, In>(element: Codec<T, In>): AttributeCodec<T[], readonly In[]> {
  const unused = () => {
    throw new TypeError('Elements of a repeated attribute are encoded one by one');
  };
  return { element, encode: unused, decode: unused };
}

/** An array of attributes that hold attributes, whose numbers count from 1. */
export function list<T, In>(element: AttributeCodec<T, In>): AttributeCodec<T[], readonly In[]> {
  return {
    nested: true,
    encode: (values) =>
      concat(values.map((value, i) => bytesAttr((i + 1) | nestedMark, element.encode(value)))),
    decode: (data) => listAttributes(data).map(([, bytes]) => element.decode(bytes)),
  };
}

/** Text up to its NUL. */
function textOf(data: Uint8Array): string {
  const end = data.indexOf(0);
  return Buffer.from(end < 0 ? data : data.subarray(0, end)).toString('utf8');
}
