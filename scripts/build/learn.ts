/** Bytecode that does not depend on chance: what training leaves is taken once it has left the same twice. */

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** How often training is repeated at most. */
const mostRounds = 5;

/**
 * Trains until each plugin has left the same code cache twice, and leaves these in the directory.
 * @param directory where training leaves code caches, and begins without any.
 * @param train trains once. @returns false when it failed.
 * @returns false when training failed; then what was learnt until then stays.
 */
export function learn(directory: string, train: () => boolean): boolean {
  /** Every content that a cache had, with how often it had that. */
  const seen = new Map<string, { content: Buffer; times: number }[]>();
  for (let round = 1; round <= mostRounds; round++) {
    for (const name of cachesIn(directory)) rmSync(join(directory, name));
    if (!train()) return false;
    for (const name of cachesIn(directory)) note(seen, name, readFileSync(join(directory, name)));
    if ([...seen.values()].every((contents) => contents.some(({ times }) => times > 1))) break;
  }
  for (const [name, contents] of seen) {
    const [chosen] = contents.toSorted((a, b) => b.times - a.times);
    if (chosen!.times < 2)
      console.log(`"${name}" was never the same: two builds may differ in the bytecode of this plugin`);
    writeFileSync(join(directory, name), chosen!.content);
  }
  return true;
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
