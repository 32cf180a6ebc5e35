/** Patches of JSON values. */

/** An operation of a JSON patch (RFC 6902). */
export interface PatchOperation {
  readonly op: string;
  readonly path: string;
  readonly value?: unknown;
}

type Json = Record<string, unknown>;

const isJson = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Source: RFC 7386, section 2. */
export function applyMergePatch(target: unknown, patch: unknown): unknown {
  if (!isJson(patch)) return patch;
  const merged: Json = isJson(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch))
    if (value === null) delete merged[key];
    else merged[key] = applyMergePatch(merged[key], value);
  return merged;
}

/** Source: RFC 6902, without "move" and "copy". @returns undefined when an operation fails. */
export function applyJsonPatch(target: object, patch: readonly PatchOperation[]): unknown {
  const patched = { root: structuredClone(target) } as Json;
  for (const { op, path, value } of patch) {
    const keys = `/root${path}`
      .split('/')
      .slice(1)
      .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'));
    const last = keys.pop()!;
    const parent = keys.reduce<unknown>((at, key) => (at as Json | undefined)?.[key], patched) as
      | Json
      | undefined;
    if (typeof parent !== 'object' || parent === null) return undefined;
    const exists = last in parent;
    // A missing value equals null, as in the library that kube-apiserver uses.
    if (op === 'test' && JSON.stringify(parent[last] ?? null) === JSON.stringify(value ?? null)) continue;
    if (op === 'add' && Array.isArray(parent))
      parent.splice(last === '-' ? parent.length : Number(last), 0, value);
    else if (op === 'add' || (op === 'replace' && exists)) parent[last] = value;
    else if (op === 'remove' && exists)
      Array.isArray(parent) ? parent.splice(Number(last), 1) : delete parent[last];
    else return undefined;
  }
  return patched.root;
}
