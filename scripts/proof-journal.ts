/** Keeps in build/ what a proof, or repeated runs, found so far: what takes hours can be done in parts. */

import { execFileSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Verdict } from '../test/proof/kills.ts';
import type { Journal } from '../test/proof/prove.ts';

const root = join(import.meta.dirname, '..');

/** A file with a line of JSON for each case. It is valid for one commit: another has to be tried anew. */
export class ProofJournal implements Journal {
  /** How long it has taken so far. */
  minutes = 0;
  private readonly file: string;
  private readonly verdicts = new Map<string, Verdict>();

  /** Reads what is there. @param name of the file, to which the commit is added. */
  constructor(name: string) {
    const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
      cwd: root,
      encoding: 'utf8',
    }).trim();
    this.file = join(root, `build/${name}-${commit}.jsonl`);
    mkdirSync(join(root, 'build'), { recursive: true });
    const text = existsSync(this.file) ? readFileSync(this.file, 'utf8') : '';
    for (const line of text.split('\n').filter(Boolean)) {
      const { key, minutes, ...verdict } = JSON.parse(line) as Verdict & { key?: string; minutes?: number };
      if (key !== undefined) this.verdicts.set(key, verdict);
      this.minutes = minutes ?? this.minutes;
    }
  }

  verdictOf(key: string): Verdict | undefined {
    return this.verdicts.get(key);
  }

  note(key: string, verdict: Verdict): void {
    this.write({ key, ...verdict });
  }

  noteMinutes(minutes: number): void {
    this.write({ minutes });
  }

  private write(line: object): void {
    appendFileSync(this.file, `${JSON.stringify(line)}\n`);
  }
}
