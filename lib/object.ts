/** Values of JSON whose type is not known. */

/** True for a JSON object, false for a list, null and everything else. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
