/** Writing for people: colours only where a terminal shows them, tables that line up. */

import { styleText } from 'node:util';

/** The styles that text is painted with. */
const styles = ['bold', 'dim', 'red', 'green', 'yellow', 'magenta', 'cyan'] as const;
type Style = (typeof styles)[number];

/** Colours a text for standard output, unless that is not a terminal or NO_COLOR is set. */
export function paint(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stdout });
}

/** As {@link paint}, for standard error. */
export function paintError(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stderr });
}

/**
 * Writes a line. Names come from anybody, such as those of interfaces from annotations of pods: characters
 * that would control the terminal are written as JSON escapes. This leaves JSON as it is.
 */
function writeLine(stream: NodeJS.WriteStream, text: string): void {
  const sequences = styles.flatMap((style) => styleText(style, ' ', { stream }).split(' ').filter(Boolean));
  const own = new RegExp(`(${sequences.map((one) => one.replace('[', '\\[')).join('|') || '(?!)'})`);
  // Our own styles are at odd indexes.
  const parts = text.split(own).map((part, i) => (i % 2 === 0 ? withoutControls(part) : part));
  stream.write(`${parts.join('')}\n`);
}

function withoutControls(text: string): string {
  return text.replace(/(?![\n\t])[\p{Cc}\p{Cf}]/gu, (character) =>
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  );
}

/** Writes a line to standard output. */
export function print(text: string): void {
  writeLine(process.stdout, text);
}

/** As {@link print}, replacing everything that the terminal shows. */
export function redraw(text: string): void {
  process.stdout.write('\x1b[H\x1b[J');
  print(text);
}

/** Writes a line to standard error, where it is not mixed into output for programs. */
export function note(text: string): void {
  writeLine(process.stderr, text);
}

/** Warns the operator of something that does not stop the command. */
export function warn(text: string): void {
  note(`${paintError('yellow', 'Warning:')} ${text}`);
}

/** Lines of a table with a heading; columns are as wide as their longest cell. */
export function formatTable(heading: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = heading.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd();
  return [line(heading), ...rows.map(line)];
}

/**
 * A block of lines for each row, for terminals that are too narrow for a table: its first cell that is not
 * "-", then the others with their headings.
 * @param width of the terminal, in columns.
 */
export function formatBlocks(
  heading: readonly string[],
  rows: readonly (readonly string[])[],
  width: number,
): string[] {
  return rows.map((row) => {
    const cells = row.map((cell, i) => ({ title: heading[i]!.toLowerCase(), cell }));
    const [first, ...others] = cells.filter(({ cell }) => cell !== '-');
    const lines = others.map(({ title, cell }) => `  ${title} ${cell}`);
    return [first?.cell ?? '', ...lines].map((line) => wrap(line, width, '    ')).join('\n');
  });
}

/** Breaks a line between words, or within one that is too long. @param indent of the lines that follow. */
function wrap(text: string, width: number, indent: string): string {
  const room = Math.max(width, indent.length + 10);
  const lines: string[] = [];
  let rest = text;
  while (rest.length > room) {
    const blank = rest.lastIndexOf(' ', room);
    const at = blank > indent.length ? blank : room;
    lines.push(rest.slice(0, at).trimEnd());
    rest = indent + rest.slice(at).trimStart();
  }
  return [...lines, rest].join('\n');
}

/** Prints a value for programs. @param format "json" or "yaml". */
export async function printStructured(format: 'json' | 'yaml', value: object): Promise<void> {
  const json = JSON.stringify(value, null, 2);
  // JSON is valid YAML, and escapes what {@link writeLine} would otherwise escape in YAML's plain text.
  if (format === 'json' || withoutControls(json) !== json) return print(json);
  const { dump } = await import('js-yaml');
  // Converted by way of JSON, which has neither dates nor undefined values.
  print(dump(JSON.parse(json), { noRefs: true }).trimEnd());
}

/** "1 network", "2 networks". */
export function count(number: number, noun: string, plural = `${noun}s`): string {
  return `${number} ${number === 1 ? noun : plural}`;
}

/** Names in quotation marks, as a list in a message. */
export function quoted(names: readonly string[]): string {
  return names.map((name) => `"${name}"`).join(', ');
}
