/** Running programs from tests: argument vectors only, a clean PATH, and everything that they print. */

import { text } from 'node:stream/consumers';
import { startChild } from './child.ts';

/** How a program ended. */
export interface Output {
  readonly argv: readonly string[];
  /** Exit code, or the name of the signal that ended it. */
  readonly exit: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

/** Long enough to do any call on a busy machine, in milliseconds. */
export const patience = 180_000;
/** Long enough for `cni install`, which starts every plugin. */
export const installPatience = 600_000;

/** How a program is run. */
export interface RunOptions {
  stdin?: string;
  /** Added to {@link cleanEnv}. */
  env?: NodeJS.ProcessEnv;
  /** Milliseconds until it is killed; {@link patience} when left out. */
  timeout?: number;
}

/**
 * What a node's service manager would give: npm's PATH must not lend our children the programs of
 * node_modules.
 */
export const cleanEnv: NodeJS.ProcessEnv = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  LC_ALL: 'C',
};

/** Runs a program to its end, whether it succeeds or not. @throws Error only when it cannot be started. */
export async function tryRun(argv: readonly string[], options: RunOptions = {}): Promise<Output> {
  const { stdin = '', env = {}, timeout = patience } = options;
  const child = startChild(argv, { ...cleanEnv, ...env });
  child.stdin.on('error', () => {}); // It may exit without reading.
  child.stdin.end(stdin);
  const late = setTimeout(() => process.kill(child.pid, 'SIGTERM'), timeout);
  try {
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
    return { argv, exit: await child.ended(), stdout, stderr };
  } finally {
    clearTimeout(late);
  }
}

/** Runs a program that must succeed. @returns its standard output. @throws Error with all that it printed. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const output = await tryRun(argv, options);
  if (output.exit !== 0)
    throw new Error(`${argv.join(' ')}: exit ${output.exit}\n${output.stderr}${output.stdout}`);
  return output.stdout;
}
