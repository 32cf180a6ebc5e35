/**
 * The record of attempts to break the suite. Each of the commands that try to writes a row to
 * docs/reliability.json, and the table in docs/reliability.md is made from these.
 */

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { dataFile, page, type Row, recorded, withTable } from './reliability/page.ts';

const root = join(import.meta.dirname, '..');

/** Adds a row to the record, or replaces it, and writes the table anew. */
export function record(row: Row): void {
  const dated = { ...row, date: new Date().toISOString().slice(0, 10), commit: currentCommit() };
  const sorted = [...recorded().filter(({ part }) => part !== row.part), dated].toSorted((a, b) =>
    a.part.localeCompare(b.part, 'en'),
  );
  writeFileSync(dataFile, `${JSON.stringify(sorted, null, 2)}\n`);
  writeFileSync(page, withTable(readFileSync(page, 'utf8'), sorted));
}

function currentCommit(): string {
  const git = (...args: string[]) => execFileSync('git', args, { encoding: 'utf8', cwd: root }).trim();
  return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--', ':!/docs') ? '+' : '');
}
