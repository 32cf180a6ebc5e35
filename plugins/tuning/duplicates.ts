/**
 * JSON allows duplicate keys, of which JSON.parse keeps the last: a choice between two values of a kernel
 * setting that nobody made.
 */

/**
 * Finds a key that an object has twice.
 * @param text valid JSON.
 * @param name key under which the objects in question stand, at any depth.
 */
export function duplicateKey(text: string, name: string): string | undefined {
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\]:]/g) ?? [];
  const open: { name: string; keys: Set<string> }[] = [];
  let key = '';
  for (const [i, token] of tokens.entries()) {
    if (token === '{') open.push({ name: key, keys: new Set() });
    else if (token === '[') open.push({ name: '', keys: new Set() });
    else if (token === '}' || token === ']') open.pop();
    else if (tokens[i + 1] === ':') {
      key = JSON.parse(token) as string;
      const object = open.at(-1)!;
      if (object.name === name && object.keys.has(key)) return key;
      object.keys.add(key);
    }
  }
  return undefined;
}
