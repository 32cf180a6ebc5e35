/**
 * Children of tests, by posix_spawn(3): Node's own child_process copies the page tables of the process, which
 * takes longer than many of the programs that tests run.
 */

import { accessSync, closeSync, constants } from 'node:fs';
import { Socket } from 'node:net';
import { constants as osConstants } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openPipe, spawn } from '../../lib/kernel/child.ts';
import { libc } from '../../lib/netlink/libc.ts';

const WNOHANG = 1;
/** Longest interval, in milliseconds, between checks whether a child has ended. */
const longestPause = 50;

/** A running child, and its standard streams. */
export interface Child {
  readonly pid: number;
  readonly stdin: Socket;
  readonly stdout: Socket;
  readonly stderr: Socket;
  /**
   * Waits until it has ended; best called once its output has ended.
   * @returns its exit code, or the name of the signal that ended it.
   */
  readonly ended: () => Promise<number | string>;
}

/**
 * Starts a program.
 * @param environment all of it; the program is looked up in its PATH.
 * @throws Error when it cannot be started.
 */
export function startChild(argv: readonly string[], environment: NodeJS.ProcessEnv): Child {
  const path = find(argv[0]!, environment.PATH ?? '');
  const variables = Object.entries(environment).filter(([, value]) => value !== undefined);
  const [input, output, errors] = [openPipe(), openPipe(), openPipe()];
  const theirs = [input[0], output[1], errors[1]];
  const ours = [input[1], output[0], errors[0]];
  let pid: number;
  try {
    const list = variables.map(([name, value]) => `${name}=${value}`);
    pid = spawn(path, argv, list, theirs);
  } catch (error) {
    for (const fd of ours) closeSync(fd);
    throw error;
  } finally {
    for (const fd of theirs) closeSync(fd);
  }
  const [stdin, stdout, stderr] = ours.map(
    (fd, i) => new Socket({ fd, readable: i > 0, writable: i === 0 }),
  ) as [Socket, Socket, Socket];
  return { pid, stdin, stdout, stderr, ended: () => waitForEnd(pid) };
}

function find(program: string, path: string): string {
  if (program.includes('/')) return program;
  for (const directory of path.split(':'))
    try {
      const file = join(directory, program);
      accessSync(file, constants.X_OK);
      return file;
    } catch {}
  throw new Error(`"${program}" is not in ${path}`);
}

async function waitForEnd(pid: number): Promise<number | string> {
  const status = new Uint8Array(new ArrayBuffer(4));
  for (let pause = 1; libc('wait for a child', 'waitpid', pid, status, WNOHANG) === 0; ) {
    await sleep(pause);
    pause = Math.min(pause * 2, longestPause);
  }
  const value = new DataView(status.buffer).getInt32(0, true);
  const signal = value & 0x7f;
  if (signal === 0) return (value >> 8) & 0xff;
  const [name] = Object.entries(osConstants.signals).find(([, number]) => number === signal) ?? [];
  return name ?? `signal ${signal}`;
}
