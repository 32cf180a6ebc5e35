/**
 * Structures of the kernel, described once: a description gives the size, the encoder and the decoder, and
 * the types of both. Numbers are in host byte order, which on every machine that Node.js runs on is
 * little-endian, unless their name says otherwise.
 */

/** Turns values into bytes and back. `In` is what can be written, where that is more than what is read. */
export interface Codec<T, In = T> {
  encode(value: In): Uint8Array;
  /** @throws RangeError when there are too few bytes. */
  decode(data: Uint8Array): T;
}

/** What a {@link struct} may contain: a value of fixed size. */
export interface Field<T, In = T> extends Codec<T, In> {
  /** Bytes. */
  readonly size: number;
  /** Its offset in a structure is a multiple of this. */
  readonly alignment: number;
  read(view: DataView, offset: number): T;
  write(view: DataView, offset: number, value: In): void;
}

abstract class FixedSize<T, In = T> implements Field<T, In> {
  abstract readonly size: number;
  abstract readonly alignment: number;
  abstract read(view: DataView, offset: number): T;
  abstract write(view: DataView, offset: number, value: In): void;

  encode(value: In): Uint8Array {
    const out = new Uint8Array(this.size);
    this.write(new DataView(out.buffer), 0, value);
    return out;
  }

  decode(data: Uint8Array): T {
    if (data.length < this.size)
      throw new RangeError(`The kernel sent ${data.length} bytes where ${this.size} are needed`);
    return this.read(new DataView(data.buffer, data.byteOffset, data.byteLength), 0);
  }
}

class Scalar<T> extends FixedSize<T> {
  readonly size: number;
  readonly alignment: number;
  readonly read: (view: DataView, offset: number) => T;
  readonly write: (view: DataView, offset: number, value: T) => void;

  constructor(size: number, read: Scalar<T>['read'], write: Scalar<T>['write'], alignment = size) {
    super();
    this.size = size;
    this.alignment = alignment;
    this.read = read;
    this.write = write;
  }
}

export const u8: Field<number> = new Scalar(
  1,
  (view, at) => view.getUint8(at),
  (view, at, value) => view.setUint8(at, value),
);
export const u16: Field<number> = new Scalar(
  2,
  (view, at) => view.getUint16(at, true),
  (view, at, value) => view.setUint16(at, value, true),
);
/** In network byte order. */
export const be16: Field<number> = new Scalar(
  2,
  (view, at) => view.getUint16(at),
  (view, at, value) => view.setUint16(at, value),
);
export const u32: Field<number> = new Scalar(
  4,
  (view, at) => view.getUint32(at, true),
  (view, at, value) => view.setUint32(at, value, true),
);
export const i32: Field<number> = new Scalar(
  4,
  (view, at) => view.getInt32(at, true),
  (view, at, value) => view.setInt32(at, value, true),
);
export const u64: Field<bigint> = new Scalar(
  8,
  (view, at) => view.getBigUint64(at, true),
  (view, at, value) => view.setBigUint64(at, value, true),
);

/** An array of bytes. A shorter value is padded with zeros. */
export function byteArray(size: number): Field<Uint8Array> {
  return new Scalar<Uint8Array>(
    size,
    (view, at) => new Uint8Array(view.buffer, view.byteOffset + at, size),
    (view, at, value) => new Uint8Array(view.buffer, view.byteOffset + at, size).set(value),
    1,
  );
}

type Fields = Readonly<Record<string, Field<unknown, never>>>;
type Read<F extends Fields> = { [K in keyof F]: F[K] extends Field<infer T, never> ? T : never };
type Written<F extends Fields> = { [K in keyof F]?: F[K] extends Field<unknown, infer In> ? In : never };

/** A structure; fields that are not written are zero. */
export type Struct<F extends Fields = Fields> = Field<Read<F>, Written<F>>;

/** Where the members of a structure are. */
interface Placement {
  readonly members: readonly [name: string, offset: number, field: Field<unknown>][];
  readonly size: number;
  readonly alignment: number;
}

class StructOf<F extends Fields> extends FixedSize<Read<F>, Written<F>> {
  private readonly fields: F;
  private placed: Placement | undefined;

  constructor(fields: F) {
    super();
    this.fields = fields;
  }

  get size(): number {
    return this.placement().size;
  }

  get alignment(): number {
    return this.placement().alignment;
  }

  read(view: DataView, at: number): Read<F> {
    const value: Record<string, unknown> = {};
    for (const [name, offset, field] of this.placement().members) value[name] = field.read(view, at + offset);
    return value as Read<F>;
  }

  write(view: DataView, at: number, value: Written<F>): void {
    for (const [name, offset, field] of this.placement().members) {
      const member = (value as Record<string, unknown>)[name];
      if (member !== undefined) field.write(view, at + offset, member);
    }
  }

  /** Worked out when first needed: a plugin loads more descriptions than it uses. */
  private placement(): Placement {
    this.placed ??= place(this.fields as unknown as Record<string, Field<unknown>>);
    return this.placed;
  }
}

function place(fields: Readonly<Record<string, Field<unknown>>>): Placement {
  const members: [string, number, Field<unknown>][] = [];
  let end = 0;
  let alignment = 1;
  for (const name in fields) {
    const field = fields[name]!;
    const offset = alignTo(end, field.alignment);
    members.push([name, offset, field]);
    end = offset + field.size;
    alignment = Math.max(alignment, field.alignment);
  }
  return { members, size: alignTo(end, alignment), alignment };
}

/** Several fields of the same kind, one after the other. */
export function each<K extends string, T>(field: Field<T>, ...names: K[]): Record<K, Field<T>> {
  return Object.fromEntries(names.map((name) => [name, field])) as Record<K, Field<T>>;
}

/** Describes a structure by its fields in order; they are aligned as a C compiler aligns them. */
export function struct<F extends Fields>(fields: F): Struct<F> {
  return new StructOf(fields);
}

function alignTo(offset: number, alignment: number): number {
  return Math.ceil(offset / alignment) * alignment;
}
