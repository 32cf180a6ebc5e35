/** JSON in which something is not what it should be. */

/** Values that a key may hold in place of what it should. */
const strangeValues = [null, -1, 'x', [], [null], {}];

/** A value, and the same with each key in turn holding something strange, those of inner objects included. */
export function variantsOf(value: Readonly<Record<string, unknown>>): Record<string, unknown>[] {
  return Object.entries(value).flatMap(([key, own], i) => {
    const isObject = typeof own === 'object' && own !== null && !Array.isArray(own);
    const inner: unknown[] = isObject ? variantsOf(own as Record<string, unknown>) : [];
    return [strangeValues[i % strangeValues.length], ...inner].map((other) => ({ ...value, [key]: other }));
  });
}

/**
 * Each of some values, and the same with each strange value in each place, elements of lists included, as
 * JSON.
 */
export function strangeJson(...values: readonly unknown[]): string[] {
  return values.flatMap((value) => [value, ...replaced(value)]).map((value) => JSON.stringify(value));
}

function replaced(value: unknown): unknown[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, own]) =>
    [...strangeValues, 'a/b', ...replaced(own)].map((other) =>
      Array.isArray(value) ? value.with(Number(key), other) : { ...value, [key]: other },
    ),
  );
}
