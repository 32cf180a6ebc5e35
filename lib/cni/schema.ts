/**
 * Schemas: one description of a configuration that decodes it, types it, and documents it.
 *
 * Decoding follows Go's encoding/json, because that is what conflists were written against: keys match
 * exactly or else without regard to case, null is the same as absent, unknown keys are ignored, and a value
 * of the wrong type is an error. The same description yields the JSON Schemas in conf/schema.
 */

import { isObject } from '../object.ts';

/** A JSON Schema (draft 2020-12) fragment. */
export type JsonSchema = { [keyword: string]: unknown };

/** What every combinator takes besides its own options. */
export interface Described {
  /** One sentence for the operator, shown by editors. */
  description?: string;
}

/**
 * Decodes one kind of value. `Present` tells whether an object with a field of this schema always has it,
 * because it is required or has a default.
 */
export interface Schema<T, Present extends boolean = boolean> {
  /**
   * @param path where the value stands, such as "ipam.ranges[0]", for the error message.
   * @throws SchemaError
   */
  decode(value: unknown, path: string): T;
  /**
   * What an absent value decodes to; absent itself when the field is simply left out.
   * @throws SchemaError when required.
   */
  absent?: (path: string) => T;
  /** True where "" in a field of an object is the same as absent, as for Go's net.IP; in a list it is not. */
  readonly emptyIsAbsent?: boolean;
  readonly json: JsonSchema;
  readonly present?: Present;
}

/** The type that a schema decodes to. */
export type Infer<S> = S extends Schema<infer T> ? T : never;

/** The fields of an object, each with its schema. */
export type Shape = Record<string, Schema<unknown>>;
type PresentKeys<S extends Shape> = {
  [K in keyof S]: S[K] extends Schema<unknown, true> ? K : never;
}[keyof S];
/** The type of an object with the fields of `S`. */
export type InferShape<S extends Shape> = { [K in PresentKeys<S>]: Infer<S[K]> } & {
  [K in Exclude<keyof S, PresentKeys<S>>]?: Infer<S[K]>;
};

/** An object schema keeps its fields, so that schemas can be extended and their keys listed. */
export interface ObjectSchema<S extends Shape> extends Schema<InferShape<S>, false> {
  readonly shape: S;
}

/** A value does not fit its schema. The message says where, what was found there, and what is expected. */
export class SchemaError extends Error {
  override readonly name: string = 'SchemaError';
  readonly path: string;

  constructor(path: string, message: string) {
    super(message);
    this.path = path;
  }
}

/** A value has the right type, but is not one that can be used, such as a number out of range. */
export class UnusableValueError extends SchemaError {
  override readonly name = 'UnusableValueError';
}

/**
 * Decodes a value.
 * @param path prefix for the paths in error messages.
 * @throws SchemaError
 */
export function decode<T>(schema: Schema<T>, value: unknown, path = ''): T {
  return schema.decode(value, path);
}

/**
 * Text.
 * @param options.values the only values that are allowed.
 * @param options.pattern what it must match unless it is empty, which is then the same as absent, as for the
 *   reference plugins: templates leave keys empty.
 */
export function string<T extends string = string>(
  options: Described & { values?: readonly T[]; pattern?: RegExp } = {},
): Schema<T, false> {
  const { values, pattern } = options;
  return {
    emptyIsAbsent: pattern !== undefined,
    json: describe(options, {
      type: 'string',
      ...(values && { enum: values }),
      ...(pattern && { pattern: `^$|${pattern.source}` }),
    }),
    decode(value, path) {
      if (typeof value !== 'string') throw wrongType(path, value, 'a string');
      if (values && !values.includes(value as T))
        throw new UnusableValueError(path, `${at(path)} is ${quote(value)}, but it must be ${anyOf(values)}`);
      if (pattern && !pattern.test(value))
        throw new UnusableValueError(
          path,
          `${at(path)} is ${quote(value)}, but it must match ${pattern.source}`,
        );
      return value as T;
    },
  };
}

/** True or false. */
export function boolean(options: Described = {}): Schema<boolean, false> {
  return {
    json: describe(options, { type: 'boolean' }),
    decode(value, path) {
      if (typeof value !== 'boolean') throw wrongType(path, value, 'true or false');
      return value;
    },
  };
}

/** A whole number within the given bounds, by default 0 to 2,147,483,647. */
export function integer(options: Described & { min?: number; max?: number } = {}): Schema<number, false> {
  const { min = 0, max = 0x7fffffff } = options;
  return {
    json: describe(options, { type: 'integer', minimum: min, maximum: max }),
    decode(value, path) {
      if (typeof value !== 'number' || !Number.isInteger(value))
        throw wrongType(path, value, 'a whole number');
      if (value < min || value > max)
        throw new UnusableValueError(
          path,
          `${at(path)} is ${value}, but it must be between ${min} and ${max}`,
        );
      return value;
    },
  };
}

/** A list of values of one kind. */
export function array<T>(items: Schema<T>, options: Described = {}): Schema<T[], false> {
  return {
    json: describe(options, { type: 'array', items: items.json }),
    decode(value, path) {
      if (!Array.isArray(value)) throw wrongType(path, value, 'a list');
      return value.map((item, i) => items.decode(item, `${path}[${i}]`));
    },
  };
}

/** An object with arbitrary keys, such as sysctl names. */
export function record<T>(values: Schema<T>, options: Described = {}): Schema<Record<string, T>, false> {
  return {
    json: describe(options, { type: 'object', additionalProperties: values.json }),
    decode(value, path) {
      if (!isObject(value)) throw wrongType(path, value, 'an object');
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, values.decode(item, join(path, key))]),
      );
    },
  };
}

/**
 * An object with known keys. Fields are optional unless wrapped in {@link required} or {@link withDefault}.
 */
export function object<S extends Shape>(shape: S, options: Described = {}): ObjectSchema<S> {
  const requiredKeys = Object.keys(shape).filter((key) => shape[key]?.json['x-required']);
  return {
    shape,
    json: describe(options, {
      type: 'object',
      properties: Object.fromEntries(Object.entries(shape).map(([key, field]) => [key, field.json])),
      ...(requiredKeys.length > 0 && { required: requiredKeys }),
    }),
    decode(value, path) {
      if (!isObject(value)) throw wrongType(path, value, 'an object');
      const result: Record<string, unknown> = {};
      const read = keyReader(value);
      for (const key of Object.keys(shape)) {
        const field = shape[key]!;
        const found = read(key);
        const isAbsent = found === undefined || found === null || (found === '' && field.emptyIsAbsent);
        if (!isAbsent) result[key] = field.decode(found, join(path, key));
        else if (field.absent) result[key] = field.absent(join(path, key));
      }
      return result as InferShape<S>;
    },
  };
}

/** Any JSON value, taken as it is. */
export function json(options: Described = {}): Schema<unknown, false> {
  return { json: describe(options, {}), decode: (value) => value };
}

/**
 * A value converted after its JSON type was checked. `convertValue` throws an Error whose message says what
 * is wanted.
 * @param options.emptyIsAbsent see {@link Schema}. The rest goes into the JSON Schema.
 */
export function convert<A, B>(
  from: Schema<A>,
  convertValue: (value: A) => B,
  { emptyIsAbsent = false, ...format }: JsonSchema & { emptyIsAbsent?: boolean } = {},
): Schema<B, false> {
  return {
    emptyIsAbsent,
    json: { ...from.json, ...format },
    decode(value, path) {
      const decoded = from.decode(value, path);
      try {
        return convertValue(decoded);
      } catch (error) {
        if (error instanceof SchemaError) throw error;
        throw new UnusableValueError(path, `${at(path)}: ${(error as Error).message}`);
      }
    },
  };
}

/** A field that must be there. */
export function required<T>(schema: Schema<T>): Schema<T, true> {
  return {
    json: { ...schema.json, 'x-required': true },
    decode: (value, path) => schema.decode(value, path),
    absent(path) {
      throw new SchemaError(path, `${at(path)} is missing. Add it to the network configuration`);
    },
  };
}

/** A field that has a default value when it is left out. */
export function withDefault<T>(schema: Schema<T>, value: T): Schema<T, true> {
  return {
    json: { ...schema.json, default: value },
    decode: (given, path) => schema.decode(given, path),
    absent: () => value,
  };
}

/** Looks a key up as Go does: the exact spelling, or else the last one that differs only in case. */
export function getKey(value: object, key: string): unknown {
  return keyReader(value)(key);
}

/**
 * Looks up the keys of an object as {@link getKey} does, in time that does not grow with the number of keys.
 */
function keyReader(value: object): (key: string) => unknown {
  let folded: Map<string, unknown> | undefined;
  return (key) => {
    if (Object.hasOwn(value, key)) return (value as Record<string, unknown>)[key];
    folded ??= new Map(Object.entries(value).map(([name, item]) => [name.toLowerCase(), item]));
    return folded.get(key.toLowerCase());
  };
}

/** The finished JSON Schema of a schema, without our own markers. */
export function toJsonSchema(schema: Schema<unknown>): JsonSchema {
  return JSON.parse(
    JSON.stringify(schema.json, (key, value) => (key === 'x-required' ? undefined : value)),
  ) as JsonSchema;
}

function describe(options: Described, schema: JsonSchema): JsonSchema {
  return options.description ? { ...schema, description: options.description } : schema;
}

function join(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`;
}

function at(path: string): string {
  return path === '' ? 'The network configuration' : `"${path}"`;
}

function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function anyOf(values: readonly string[]): string {
  return values.map((value) => `"${value}"`).join(' or ');
}

function wrongType(path: string, value: unknown, wanted: string): SchemaError {
  return new SchemaError(path, `${at(path)} is ${quote(value)}, but it must be ${wanted}`);
}
