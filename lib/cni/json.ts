/**
 * JSON from outside, with bounded nesting: a value nested too deeply overflows the stack of whoever walks it.
 */

/** No configuration nests a tenth as deep. */
const deepestNesting = 200;

/**
 * Parses JSON.
 * @throws SyntaxError, also when lists and objects are nested more than {@link deepestNesting} deep.
 */
export function parseJson(text: string): unknown {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const character = text.charCodeAt(i);
    if (character === 0x22) i = endOfString(text, i);
    else if (character === 0x7b || character === 0x5b) {
      if (++depth > deepestNesting)
        throw new SyntaxError(`Lists and objects are nested more than ${deepestNesting} deep`);
    } else if (character === 0x7d || character === 0x5d) depth--;
  }
  return JSON.parse(text);
}

/** Offset of the quote that ends the string which begins at `start`, or of the end of the text. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text[end - 1 - backslashes] === '\\') backslashes++;
    if (backslashes % 2 === 0) return end;
  }
  return text.length;
}
