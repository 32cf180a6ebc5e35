/** Bytecode that does not depend on chance: training is repeated until it has left the same one twice. */

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** How many times to train at most. */
const mostRounds = 5;

/**
 * Trains until each plugin has left the same code cache twice, and leaves these caches in the directory.
 * @param directory where training leaves code caches; each round begins without any.
 * @param train trains once, and returns false when that failed.
 * @returns false when training failed; then what the rounds before it left is kept, if there were any.
 */
export function learn(directory: string, train: () => boolean): boolean {
  /** Every content that each cache had, and how many times. */
  const seen = new Map<string, { content: Buffer; times: number }[]>();
  let isTrained = true;
  for (let round = 1; round <= mostRounds; round++) {
    for (const name of cachesIn(directory)) rmSync(join(directory, name));
    isTrained = train();
    if (!isTrained) break;
    for (const name of cachesIn(directory)) note(seen, name, readFileSync(join(directory, name)));
    if ([...seen.values()].every((contents) => contents.some(({ times }) => times > 1))) break;
  }
  for (const [name, contents] of seen) {
    const [chosen] = contents.toSorted((a, b) => b.times - a.times);
    if (chosen!.times < 2)
      console.log(`"${name}" was never the same: two builds may differ in the bytecode of this plugin`);
    writeFileSync(join(directory, name), chosen!.content);
  }
  return isTrained;
}

function note(seen: Map<string, { content: Buffer; times: number }[]>, name: string, content: Buffer): void {
  const contents = seen.get(name) ?? [];
  const known = contents.find((one) => one.content.equals(content));
  if (known) known.times++;
  else contents.push({ content, times: 1 });
  seen.set(name, contents);
}

function cachesIn(directory: string): string[] {
  return readdirSync(directory).filter((name) => name.endsWith('.cache'));
}
