/** Values of OVSDB as its protocol writes them. Source: RFC 7047, section 5.1. */

/** An atom, or a set or map of them. */
export type OvsdbValue = string | number | boolean | readonly [string, unknown];

/** Name and value of each column. */
export type Row = Readonly<Record<string, OvsdbValue>>;

/** A row by its UUID. */
export function uuid(id: string): OvsdbValue {
  return ['uuid', id];
}

/** A row that the same transaction inserts, by the name that it has there. */
export function namedUuid(name: string): OvsdbValue {
  return ['named-uuid', name];
}

/** Writes a set. */
export function set(values: readonly OvsdbValue[]): OvsdbValue {
  return ['set', values];
}

/** Writes a map from strings to strings. */
export function map(entries: Readonly<Record<string, string>>): OvsdbValue {
  return ['map', Object.entries(entries)];
}

/** Reads a set; an atom stands for a set of one. */
export function readSet(value: unknown): unknown[] {
  if (!Array.isArray(value)) return value === undefined ? [] : [value];
  return value[0] === 'set' && Array.isArray(value[1]) ? value[1] : [value];
}

/** Reads a string; any other value as JSON. */
export function readText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value ?? '');
}

/** Reads a map from strings to strings. */
export function readMap(value: unknown): Record<string, string> {
  if (!Array.isArray(value) || value[0] !== 'map' || !Array.isArray(value[1])) return {};
  return Object.fromEntries(
    value[1]
      .filter((pair) => Array.isArray(pair) && pair.length === 2)
      .map(([key, one]) => [readText(key), readText(one)]),
  );
}

/** Reads the UUIDs in a reference or a set of references. */
export function readUuids(value: unknown): string[] {
  return readSet(value).flatMap((one) =>
    Array.isArray(one) && one[0] === 'uuid' && typeof one[1] === 'string' ? [one[1]] : [],
  );
}
