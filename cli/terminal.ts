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

/** "1 network", "2 networks". */
export function count(number: number, noun: string, plural = `${noun}s`): string {
  return `${number} ${number === 1 ? noun : plural}`;
}
