/** Writing for people: colours only where a terminal shows them, tables that line up. */

import { styleText } from 'node:util';

type Style = Parameters<typeof styleText>[0];

/** Colours a text for standard output, unless that is not a terminal or NO_COLOR is set. */
export function paint(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stdout });
}

/** As {@link paint}, for standard error. */
export function paintError(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stderr });
}

/** Writes a line to standard output. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Writes a line to standard error, where it is in no program's way. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
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

/** Breaks a line between words, or within one that is too long. @param indent of what follows. */
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
  if (format === 'json') return print(JSON.stringify(value, null, 2));
  const { dump } = await import('js-yaml');
  // By way of JSON, which has no dates and no values that are undefined.
  process.stdout.write(dump(JSON.parse(JSON.stringify(value)), { noRefs: true }));
}

/** "1 network", "2 networks". */
export function count(number: number, noun: string, plural = `${noun}s`): string {
  return `${number} ${number === 1 ? noun : plural}`;
}
