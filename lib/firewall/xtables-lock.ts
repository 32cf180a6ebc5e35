/**
 * The lock of iptables. The older variant changes a table by reading the whole of it and writing it back, so
 * that its programs exclude one another by a lock on a file; the variant on nf_tables needs none. A program
 * that waits for the lock outlives a plugin that is killed meanwhile, and would add rules long after
 * everything has been cleaned up. So the plugin itself waits, and passes the lock on to the program: it is
 * held for as long as either lives. Source: xtables_lock() of iptables, since 1.8.6 with XTABLES_LOCKFILE.
 */

import { readFileSync, realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { errnoOf, fileError } from '../file.ts';
import { acquireLock, type FileLock } from '../kernel/lock.ts';
import type { Programs, RunOptions } from '../kernel/programs.ts';

const variable = 'XTABLES_LOCKFILE';
const defaultFile = '/run/xtables.lock';

/**
 * How long another program may hold the lock, in seconds. Under contention, programs that block until they
 * get it are faster than we are.
 */
export const lockSeconds = 30;

/** How long to wait for locks that are held while iptables waits for its own, in milliseconds. */
export const outerLockMs = (lockSeconds + 10) * 1000;

/** How long to wait for locks that are held while others wait for those, in milliseconds. */
export const outermostLockMs = outerLockMs + outerLockMs;

/** A file that no other program has: its own standard input. */
const ownFile: RunOptions['environment'] = { [variable]: '/proc/self/fd/0' };

/** The file of the lock. */
export function xtablesLock(programs: Programs): string {
  return programs.environment[variable] || defaultFile;
}

/** True when a program of iptables works on nf_tables, as the name of its executable tells. */
export function isNftVariant(programs: Programs, program: string): boolean {
  return basename(executableOf(programs, program)).includes('nft');
}

/**
 * How to run a program that only reads: without the lock, as what the kernel returns is consistent even while
 * others write.
 */
export function withoutLock(programs: Programs, program: string): RunOptions {
  return takesLockFile(programs, program) ? { environment: ownFile! } : {};
}

/** The lock, held for a program that is run with {@link options}. */
export interface XtablesLock extends Disposable {
  readonly options: RunOptions;
}

/**
 * Takes the lock for a program that writes.
 * @returns undefined when the program needs none, or should take it by itself.
 * @throws CniError TryAgainLater when another program holds it for too long, IOFailure when its file cannot
 *   be opened or locked.
 */
export async function takeLock(programs: Programs, program: string): Promise<XtablesLock | undefined> {
  if (!takesLockFile(programs, program)) return undefined;
  let lock: FileLock;
  try {
    lock = await acquireLock(xtablesLock(programs), lockSeconds * 1000);
  } catch (error) {
    // Only the program follows a link, or locks a device. After any other error it must not try: it would
    // wait for the lock while another call of this process holds that, and waits for the program.
    const { cause } = error as Error;
    if (cause && ['ELOOP', undefined].includes(errnoOf(cause))) return undefined;
    throw error;
  }
  return {
    options: { environment: ownFile!, inherit: [lock.fd] },
    [Symbol.dispose]: () => lock.close(),
  };
}

/**
 * Whether a program locks a file, and lets its caller say which.
 * @throws CniError when its executable cannot be read.
 */
function takesLockFile(programs: Programs, program: string): boolean {
  const executable = executableOf(programs, program);
  if (executable === '' || basename(executable).includes('nft')) return false;
  try {
    return readFileSync(executable).includes(variable);
  } catch (error) {
    throw fileError('read', executable, error);
  }
}

/** Path of a program's executable, "" when it is not installed. */
function executableOf(programs: Programs, program: string): string {
  try {
    return realpathSync.native(programs.find(program));
  } catch {
    return '';
  }
}
