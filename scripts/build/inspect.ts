/** Inspects a built tree, whatever machine it is for: would it run where it is installed? */

import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from './target.ts';

/** What readelf(1) tells about a program or library. */
interface Elf {
  machine: string;
  /** Path of the dynamic loader that it names. */
  interpreter: string | undefined;
  /** Libraries that it needs. */
  needed: string[];
}

/**
 * Inspects the tree: every name is a static program, and the private directory holds the executable, the
 * loader and every library that any of them needs, all for the same machine.
 * @param directory with the names. @param hidden name of the private directory in it.
 * @throws Error with all that is wrong.
 */
export function inspectTree(
  { machine, loader }: Pick<Target, 'machine' | 'loader'>,
  directory: string,
  hidden: string,
  names: readonly string[],
): void {
  const faults: string[] = [];
  const inspect = (file: string) => {
    const elf = readElf(file);
    if (elf.machine !== machine) faults.push(`"${file}" is for "${elf.machine}", not for "${machine}"`);
    return elf;
  };
  for (const name of names) {
    const { interpreter, needed } = inspect(join(directory, name));
    if (interpreter ?? needed[0])
      faults.push(`"${join(directory, name)}" needs "${interpreter ?? needed[0]}"`);
  }
  const privateDirectory = join(directory, hidden);
  for (const name of [loader, 'cni-plugins'])
    if (!existsSync(join(privateDirectory, name))) faults.push(`"${privateDirectory}" lacks "${name}"`);
  for (const entry of readdirSync(privateDirectory, { withFileTypes: true })) {
    if (entry.isDirectory() || entry.name.endsWith('.json')) continue;
    const file = join(privateDirectory, entry.name);
    for (const name of inspect(file).needed)
      if (!existsSync(join(privateDirectory, name)))
        faults.push(`"${file}" needs "${name}", which is not there`);
  }
  if (faults.length > 0) throw new Error(`The tree in "${directory}" would not run:\n${faults.join('\n')}`);
}

/**
 * Reads what a program or library tells about itself.
 * @throws Error when the file is neither, or readelf(1) is missing.
 */
export function readElf(file: string): Elf {
  const output = askReadelf(file);
  return {
    machine: /^ +Machine: +(.+)$/m.exec(output)?.[1] ?? 'no machine',
    interpreter: /\[Requesting program interpreter: (.+)\]/.exec(output)?.[1],
    needed: [...output.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name = '']) => name),
  };
}

function askReadelf(file: string): string {
  const args = ['--file-header', '--program-headers', '--dynamic', '--wide', file];
  try {
    return execFileSync('readelf', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error('"readelf" is missing. Install it with "apt-get install binutils"');
  }
}
