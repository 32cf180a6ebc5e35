/**
 * JSON with positions: an operator who mistyped a comma gets the line and column, and every later complaint
 * about a value can point at it. JSON.parse gives neither. jsonc-parser reads the text; the messages are
 * ours.
 */

import { createScanner, type Node, parseTree, printParseErrorCode } from 'jsonc-parser';

/** A JSON value and its position. */
export interface JsonNode {
  value: unknown;
  /** Offset of the first character. */
  start: number;
  /** Fields of an object in the order they are written, duplicates included. */
  fields?: JsonField[];
  /** Items of a list. */
  items?: JsonNode[];
}

/** A field of an object. */
export interface JsonField {
  key: string;
  /** Offset of the key. */
  start: number;
  node: JsonNode;
}

/** Text that is not JSON. */
export class JsonSyntaxError extends Error {
  /** Offset of the character to correct. */
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message);
    this.name = 'JsonSyntaxError';
    this.offset = offset;
  }
}

/** Deeper nesting is a mistake or an attack; Go's decoder stops at 10,000 levels. */
const maxDepth = 1000;

/** Parses JSON according to RFC 8259: no comments, no trailing commas. @throws JsonSyntaxError */
export function parseJson(text: string): JsonNode {
  refuseByteOrderMark(text);
  refuseDeepNesting(text);
  const errors: { error: number; offset: number; length: number }[] = [];
  const options = { disallowComments: true, allowTrailingComma: false, allowEmptyContent: false };
  const root = parseTree(text, errors, options);
  const [first] = errors;
  if (first) throw syntaxError(text, root, printParseErrorCode(first.error), first);
  return convert(root!);
}

/** Line and column of an offset, both counted from 1; the column in characters. */
export function positionOf(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset);
  const lineStart = before.lastIndexOf('\n') + 1;
  return { line: before.split('\n').length, column: [...before.slice(lineStart)].length + 1 };
}

/**
 * The line that contains an offset, shortened around it if it is long, and below it a caret that points to
 * the offset.
 */
export function excerptOf(text: string, offset: number, width = 76): string {
  const lineStart = text.lastIndexOf('\n', offset - 1) + 1;
  const lineEnd = text.indexOf('\n', offset);
  const line = text.slice(lineStart, lineEnd < 0 ? undefined : lineEnd).replace(/\r$/, '');
  const column = offset - lineStart;
  const from = line.length <= width ? 0 : Math.max(0, Math.min(column - (width >> 1), line.length - width));
  // A tab or an escape sequence in the file must not move the caret.
  const shown = line.slice(from, from + width).replace(/\p{Cc}/gu, ' ');
  return `${shown}\n${' '.repeat([...shown.slice(0, column - from)].length)}^`;
}

/**
 * Finds the node that a path such as `plugins[0].ipam.ranges[0]` leads to, ignoring the case of keys as Go
 * does.
 * @returns the offset of the last part of the path that exists.
 */
export function offsetOf(root: JsonNode, path: string): number {
  return follow(root, path).offset;
}

/** True if there is a value at the path, as {@link offsetOf} follows it. */
export function hasPath(root: JsonNode, path: string): boolean {
  return nodeAt(root, path) !== undefined;
}

/** The value at the path; undefined when there is none. */
export function nodeAt(root: JsonNode, path: string): JsonNode | undefined {
  return follow(root, path).node;
}

function follow(root: JsonNode, path: string): { offset: number; node: JsonNode | undefined } {
  let offset = root.start;
  let node = root;
  // A key may itself contain dots, as sysctl names do: the longest key that fits is taken.
  let rest = path;
  while (rest !== '') {
    const index: RegExpExecArray | null = /^\.?\[(\d+)\]/.exec(rest);
    const name = rest.replace(/^\./, '');
    const item: JsonNode | undefined = index ? node.items?.[Number(index[1])] : undefined;
    const field: JsonField | undefined = node.fields
      ?.filter(({ key }) => leads(name, key))
      .sort((a, b) => b.key.length - a.key.length)[0];
    if (item) {
      [node, offset, rest] = [item, item.start, rest.slice(index![0].length)];
    } else if (field) {
      [node, offset, rest] = [field.node, field.start, name.slice(field.key.length)];
    } else return { offset, node: undefined };
  }
  return { offset, node };
}

function leads(path: string, key: string): boolean {
  const head = path.slice(0, key.length).toLowerCase() === key.toLowerCase();
  return head && (path.length === key.length || '.['.includes(path[key.length]!));
}

function refuseByteOrderMark(text: string): void {
  if (text.startsWith('\uFEFF'))
    throw new JsonSyntaxError('The file begins with a byte order mark. Save it without one', 0);
}

/** Refuses nesting so deep that walking through it would overflow the stack. */
function refuseDeepNesting(text: string): void {
  const scanner = createScanner(text, true);
  let depth = 0;
  while (scanner.getPosition() < text.length) {
    scanner.scan();
    const bracket = scanner.getTokenLength() === 1 ? text[scanner.getTokenOffset()]! : '';
    if (bracket === '{' || bracket === '[') depth++;
    if (bracket === '}' || bracket === ']') depth--;
    if (depth > maxDepth)
      throw new JsonSyntaxError(`Brackets are nested more than ${maxDepth} deep`, scanner.getTokenOffset());
  }
}

function convert({ type, offset: start, value, children = [] }: Node): JsonNode {
  if (type === 'array') {
    const items = children.map(convert);
    return { start, items, value: items.map((item) => item.value) };
  }
  if (type !== 'object') return { start, value: value as unknown };
  const fields = children.map(({ children: [key, item] = [] }) => ({
    key: key!.value as string,
    start: key!.offset,
    node: convert(item!),
  }));
  // Built from entries, so that a key "__proto__" is a key like any other.
  return { start, fields, value: Object.fromEntries(fields.map(({ key, node }) => [key, node.value])) };
}

/** The first mistake, in words. @param code as jsonc-parser names it. */
function syntaxError(
  text: string,
  root: Node | undefined,
  code: ReturnType<typeof printParseErrorCode>,
  { offset, length }: { offset: number; length: number },
): JsonSyntaxError {
  const token = text.slice(offset, offset + length);
  const found = describeToken(token);
  const before = text.slice(0, offset).trimEnd();
  const open = unclosed(text, root);
  const wanted = (what: string) =>
    new JsonSyntaxError(`Found ${found} where ${what} should be${token === '' ? open : ''}`, offset);
  // jsonc-parser reports a comma before a closing bracket as a missing key or value after the comma.
  if (before.endsWith(',') && /^[}\]]/.test(token))
    return new JsonSyntaxError('Found a comma after the last item. Remove it', before.length - 1);
  switch (code) {
    case 'CommaExpected':
      if (/^["\w[{-]/.test(token))
        return new JsonSyntaxError(`A comma is missing between this value and ${found}`, before.length);
      return wanted('"," or a closing bracket');
    case 'PropertyNameExpected':
      return wanted('a key in double quotes');
    case 'ColonExpected':
      return wanted('the ":" after a key');
    case 'CloseBraceExpected':
      return wanted('"," or "}"');
    case 'CloseBracketExpected':
      return wanted('"," or "]"');
    case 'EndOfFileExpected':
      return new JsonSyntaxError(
        `Found ${found} after the end of the value. Remove it, or the bracket that ends it early`,
        offset,
      );
    case 'InvalidCommentToken':
    case 'UnexpectedEndOfComment':
      return new JsonSyntaxError('Found a comment, which JSON does not have. Remove it', offset);
    case 'UnexpectedEndOfString':
      return new JsonSyntaxError('The text that begins here has no closing quote', offset);
    case 'InvalidEscapeCharacter':
    case 'InvalidUnicode':
      return new JsonSyntaxError(
        'Found an escape sequence that JSON does not have. A backslash itself is written "\\\\"',
        offset + (/^(?:[^\\]|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*/.exec(token)?.[0].length ?? 0),
      );
    case 'InvalidCharacter':
      return new JsonSyntaxError(
        'Found a control character in a text. Write it as an escape sequence such as "\\t"',
        offset + Math.max(token.search(/\p{Cc}/u), 0),
      );
    case 'InvalidSymbol':
    case 'InvalidNumberFormat':
    case 'UnexpectedEndOfNumber':
      if (/^[\w.+-]/.test(token))
        return new JsonSyntaxError(
          `Found ${found}, which is not a value. A text needs double quotes`,
          offset,
        );
      return wanted('a key or a value');
    default:
      return wanted('a value');
  }
}

function describeToken(token: string): string {
  if (token === '') return 'the end of the file';
  if (token.startsWith('#')) return '"#" (JSON has no comments)';
  return token.startsWith('"') ? token.slice(0, 40) : `"${token.slice(0, 40)}"`;
}

/** Where the innermost bracket is that is still open at the end of the file. */
function unclosed(text: string, root: Node | undefined): string {
  let open: Node | undefined;
  for (let node = root; node; node = node.children?.at(-1))
    if ((node.type === 'object' || node.type === 'array') && !isClosed(text, node)) open = node;
  if (!open) return '';
  const { line, column } = positionOf(text, open.offset);
  return `: the "${text[open.offset]}" of line ${line}, column ${column} is not closed`;
}

function isClosed(text: string, { type, offset, length }: Node): boolean {
  return length > 1 && text[offset + length - 1] === (type === 'object' ? '}' : ']');
}
