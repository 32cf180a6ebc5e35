/**
 * JSON with positions: an operator who mistyped a comma gets the line and column, and every later complaint about a
 * value can point at it. JSON.parse gives neither. Source: RFC 8259.
 */

/** A JSON value and where it stands. */
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
  /** Offset of the character that cannot stand there. */
  readonly offset: number;

  constructor(message: string, offset: number) {
    super(message);
    this.name = 'JsonSyntaxError';
    this.offset = offset;
  }
}

/** Deeper nesting is a mistake or an attack; Go's decoder stops at 10,000 levels. */
const maxDepth = 1000;

/** Parses JSON. @throws JsonSyntaxError */
export function parseJson(text: string): JsonNode {
  return new Parser(text).parse();
}

/** Line and column of an offset, both counted from 1; the column in characters. */
export function positionOf(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset);
  const lineStart = before.lastIndexOf('\n') + 1;
  return { line: before.split('\n').length, column: [...before.slice(lineStart)].length + 1 };
}

/** The line that an offset is in, cut down around it if it is long, and below it a caret that points at the offset. */
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
 * Finds the node that a path such as `plugins[0].ipam.ranges[0]` leads to, keys without regard to case as Go reads them.
 * @returns the offset of the last part of the path that is there.
 */
export function offsetOf(root: JsonNode, path: string): number {
  let { start } = root;
  let node: JsonNode | undefined = root;
  // A key may itself have a dot, as sysctl names do: the longest key that fits is taken.
  let rest = path;
  while (node && rest !== '') {
    const index: RegExpExecArray | null = /^\.?\[(\d+)\]/.exec(rest);
    if (index && node.items) {
      node = node.items[Number(index[1])];
      rest = rest.slice(index[0].length);
      if (node) start = node.start;
      continue;
    }
    const name = rest.replace(/^\./, '');
    const field: JsonField | undefined = node.fields
      ?.filter(({ key }) => leads(name, key))
      .sort((a, b) => b.key.length - a.key.length)[0];
    node = field?.node;
    if (!field) break;
    start = field.start;
    rest = name.slice(field.key.length);
  }
  return start;
}

function leads(path: string, key: string): boolean {
  const head = path.slice(0, key.length).toLowerCase() === key.toLowerCase();
  return head && (path.length === key.length || '.['.includes(path[key.length]!));
}

class Parser {
  private readonly text: string;
  private at = 0;
  private depth = 0;

  constructor(text: string) {
    this.text = text;
  }

  parse(): JsonNode {
    if (this.text.startsWith('\uFEFF'))
      this.fail('The file begins with a byte order mark. Save it without one');
    const node = this.readValue();
    this.skipSpace();
    if (this.at < this.text.length)
      this.fail(
        `Found ${this.found()} after the end of the value. Remove it, or the bracket that ends it early`,
      );
    return node;
  }

  private readValue(): JsonNode {
    this.skipSpace();
    const start = this.at;
    switch (this.text[this.at]) {
      case '{':
        return { start, ...this.readObject() };
      case '[':
        return { start, ...this.readList() };
      case '"':
        return { start, value: this.readString() };
      default:
        return { start, value: this.readScalar() };
    }
  }

  private readObject(): Omit<JsonNode, 'start'> {
    const open = this.enter();
    const fields: JsonField[] = [];
    for (let more = !this.take('}'); more; ) {
      this.skipSpace();
      const start = this.at;
      if (this.text[this.at] === '}') this.failComma();
      if (this.text[this.at] !== '"')
        this.fail(`Found ${this.found()} where a key in double quotes should be${this.opened('{', open)}`);
      const key = this.readString();
      if (!this.take(':')) this.fail(`Found ${this.found()} where ":" should follow the key "${key}"`);
      fields.push({ key, start, node: this.readValue() });
      more = this.take(',');
      if (!more && !this.take('}'))
        this.fail(`Found ${this.found()} where "," or "}" should be${this.opened('{', open)}`);
    }
    this.depth--;
    // Built from entries, so that a key "__proto__" is a key like any other.
    return { fields, value: Object.fromEntries(fields.map(({ key, node }) => [key, node.value])) };
  }

  private readList(): Omit<JsonNode, 'start'> {
    const open = this.enter();
    const items: JsonNode[] = [];
    for (let more = !this.take(']'); more; ) {
      this.skipSpace();
      if (this.text[this.at] === ']') this.failComma();
      items.push(this.readValue());
      more = this.take(',');
      if (!more && !this.take(']'))
        this.fail(`Found ${this.found()} where "," or "]" should be${this.opened('[', open)}`);
    }
    this.depth--;
    return { items, value: items.map(({ value }) => value) };
  }

  private enter(): number {
    if (++this.depth > maxDepth) this.fail(`Brackets are nested more than ${maxDepth} deep`);
    return this.at++;
  }

  private readString(): string {
    const start = this.at++;
    for (;;) {
      const char = this.text[this.at];
      if (char === undefined || char === '\n')
        throw new JsonSyntaxError('The text that begins here has no closing quote', start);
      if (char < ' ') this.fail('Found a control character in a text. Write it as an escape such as "\\t"');
      this.at++;
      if (char === '"') break;
      if (char !== '\\') continue;
      if (!/^(["\\/bfnrt]|u[0-9a-fA-F]{4})/.test(this.text.slice(this.at, this.at + 5))) {
        this.at--;
        this.fail('Found an escape that JSON does not have. A backslash itself is written "\\\\"');
      }
      this.at++;
    }
    return JSON.parse(this.text.slice(start, this.at)) as string;
  }

  private readScalar(): unknown {
    const scalar = /[\w.+-]+/y;
    scalar.lastIndex = this.at;
    const word = scalar.exec(this.text)?.[0];
    if (!word) this.fail(`Found ${this.found()} where a value should be`);
    if (!/^(true|false|null|-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?)$/.test(word))
      this.fail(`Found "${word.slice(0, 40)}" where a value should be. A text needs double quotes`);
    this.at += word.length;
    return JSON.parse(word);
  }

  private take(char: string): boolean {
    this.skipSpace();
    if (this.text[this.at] !== char) return false;
    this.at++;
    return true;
  }

  private skipSpace(): void {
    const space = /[ \t\r\n]*/y;
    space.lastIndex = this.at;
    this.at += space.exec(this.text)![0].length;
  }

  private found(): string {
    const char = this.text.slice(this.at)[Symbol.iterator]().next().value;
    if (char === undefined) return 'the end of the file';
    if (char === '/' || char === '#') return `"${char}" (JSON has no comments)`;
    return `"${char}"`;
  }

  /** Where the bracket is that the file's end leaves open. */
  private opened(bracket: string, offset: number): string {
    if (this.at < this.text.length) return '';
    const { line, column } = positionOf(this.text, offset);
    return `: the "${bracket}" of line ${line}, column ${column} is not closed`;
  }

  private failComma(): never {
    this.at = this.text.lastIndexOf(',', this.at);
    return this.fail('Found a comma after the last item. Remove it');
  }

  private fail(message: string): never {
    throw new JsonSyntaxError(message, this.at);
  }
}
