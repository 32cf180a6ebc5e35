/** The launcher: what it is compiled from, and how. */

import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { runTool, type Target } from './target.ts';

const directory = join(import.meta.dirname, '../../launcher');
const filesIn = (suffix: string) =>
  readdirSync(directory)
    .filter((name) => name.endsWith(suffix))
    .sort()
    .map((name) => join(directory, name));

/** The files that are passed to the compiler. */
const launcherSources = filesIn('.c');
/** Every file that the launcher depends on. */
export const launcherFiles = [...launcherSources, ...filesIn('.h')];

/**
 * Compiles the launcher.
 * @param build digest in the name of the private directory. @param work directory to put it into.
 * @returns its path.
 * @throws Error that says what the building machine lacks.
 */
export function compileLauncher(target: Target, build: string, work: string): string {
  const [program, before, after] = target.compiler;
  const launcher = join(work, 'launcher');
  const flags = ['-std=c11', '-Os', '-s', '-Wall', '-Wextra', '-Werror'];
  // Separate pages for code and constants would make it half as large again.
  flags.push('-Wl,-z,noseparate-code');
  const defines = [`-DBUILD="${build}"`, `-DLOADER="${target.loader}"`];
  const output = ['-o', `${launcher}.new`];
  runTool(target, program, [...flags, ...defines, ...output, ...before, ...launcherSources, ...after]);
  // An unchanged launcher keeps its inode, so that the names that are linked to it stay as they are.
  const isSame = existsSync(launcher) && readFileSync(launcher).equals(readFileSync(`${launcher}.new`));
  if (isSame) rmSync(`${launcher}.new`);
  else renameSync(`${launcher}.new`, launcher);
  return launcher;
}
