/** The record of what was tried, and how docs/reliability.md shows it. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What one run tried, and what came of it. */
export interface Row {
  /** What was tried, in a few words. A new row replaces the one that says the same here. */
  readonly part: string;
  /** What was counted: "kills", "inputs", "lives" or the like. */
  readonly unit: string;
  readonly tried: number;
  /** How many of these went wrong. */
  readonly failed: number;
  /** Repeats the same run, seed included. */
  readonly command: string;
  readonly minutes: number;
  /** What else the command has to say, in Markdown. */
  readonly note?: string;
}

/** A row as it is kept. */
export interface DatedRow extends Row {
  /** Year, month and day. */
  readonly date: string;
  /** Abbreviated hash of the commit that was tried; with a "+" when files differed from it. */
  readonly commit: string;
  /** What people found out about that run and added by hand. It is lost when the row is written anew. */
  readonly remark?: string;
}

const directory = join(import.meta.dirname, '../../docs');
export const [dataFile, page] = [join(directory, 'reliability.json'), join(directory, 'reliability.md')];
/** Where the page has the table. */
const generated = /(<!-- the commands write from here -->\n)[\s\S]*(<!-- to here -->)/;

/** The record. */
export function recorded(): DatedRow[] {
  return JSON.parse(readFileSync(dataFile, 'utf8')) as DatedRow[];
}

/** The text of docs/reliability.md with the table of these rows. */
export function withTable(text: string, rows: readonly DatedRow[]): string {
  return text.replace(generated, (_, from: string, to: string) => from + table(rows) + to);
}

function table(rows: readonly DatedRow[]): string {
  const lines = rows.map(({ part, unit, tried, failed, command, minutes, note, date, commit, remark }) => {
    const count = (value: number) => value.toLocaleString('en');
    const time = minutes < 1 ? '< 1 min' : `${Math.round(minutes)} min`;
    const said = [note, remark && `Added by hand: ${remark}`].filter(Boolean).join('. ');
    const cells = [part, `${count(tried)} ${unit}`, count(tried - failed), `\`${command}\``, time];
    return `| ${[...cells, `${date}, ${commit}`, said].join(' | ')} |`;
  });
  return [
    '',
    '| What | Tried | Survived | How to run | Time | Last run | |',
    '|---|---:|---:|---|---:|---|---|',
    ...lines,
    '',
    '',
  ].join('\n');
}
