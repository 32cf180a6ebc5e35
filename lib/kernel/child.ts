/**
 * Child processes by posix_spawn(3). Node's own child_process forks, which copies the page tables of the
 * whole process and makes it fault on every page it touches afterwards: some five milliseconds for each child
 * that a plugin starts, as long as many of these run themselves.
 */

import { closeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { cString, cStrings, KernelError, libc } from '../netlink/libc.ts';

const O_CLOEXEC = 0o2000000;
const WNOHANG = 1;
const POLLIN = 1;
/** Number of a system call that older C libraries have no function for, the same on every processor. */
const SYS_pidfd_open = 434;
/** Room for posix_spawn_file_actions_t: more than the 80 bytes of glibc. */
const fileActionsSize = 256;
/**
 * Gives signals that the parent ignores their default action in the child. Source: posix_spawnattr_t in
 * glibc's spawn.h.
 */
const attributes = { size: 336, flags: 0, defaultSignals: 8, POSIX_SPAWN_SETSIGDEF: 4 } as const;
/** Ignored by Node.js and the launcher; a program whose output nobody reads should end. */
const SIGPIPE = 13;
/** Longest pause between two checks whether a child has ended, in milliseconds. */
const longestPause = 100;

/** A pipe whose ends no other child inherits. */
export function openPipe(): [readEnd: number, writeEnd: number] {
  const ends = new Uint8Array(8);
  libc('open a pipe', 'pipe2', ends, O_CLOEXEC);
  const view = new DataView(ends.buffer);
  return [view.getInt32(0, true), view.getInt32(4, true)];
}

/**
 * Starts a child.
 * @param path of its executable.
 * @param argv its arguments, of which the first is its name.
 * @param environment NAME=VALUE each.
 * @param fds the descriptors that it gets: its standard input, output and error, and others in any order.
 * @returns its process ID.
 * @throws KernelError when it cannot be started.
 */
export function spawn(
  path: string,
  argv: readonly string[],
  environment: readonly string[],
  fds: readonly number[],
): number {
  const actions = new Uint8Array(new ArrayBuffer(fileActionsSize));
  libc('prepare a child', 'posix_spawn_file_actions_init', actions);
  // In ascending order, none is overwritten before it has been copied.
  const others = [...new Set(fds.slice(3))].sort((a, b) => a - b);
  for (const [target, fd] of [...fds.slice(0, 3), ...others].entries())
    libc('prepare a child', 'posix_spawn_file_actions_adddup2', actions, fd, target);
  const signals = new DataView(new ArrayBuffer(attributes.size));
  signals.setInt16(attributes.flags, attributes.POSIX_SPAWN_SETSIGDEF, true);
  signals.setUint32(attributes.defaultSignals, 1 << (SIGPIPE - 1), true);
  const pid = new Uint8Array(new ArrayBuffer(4));
  const [file, attr] = [cString(path), new Uint8Array(signals.buffer)];
  const [args, env] = [cStrings(argv), cStrings(environment)];
  // It returns the error itself, instead of setting errno.
  const error = libc(`start "${path}"`, 'posix_spawn', pid, file, actions, attr, args, env);
  libc('tidy up after a child', 'posix_spawn_file_actions_destroy', actions);
  if (error !== 0) throw new KernelError(`start "${path}"`, error);
  return new DataView(pid.buffer).getInt32(0, true);
}

/**
 * Blocks the thread until a child has ended. Kernels before 5.3 cannot tell when: it returns at once there.
 * @param timeoutMs for how long at most, in milliseconds.
 */
export function blockUntilEnd(pid: number, timeoutMs: number): void {
  let fd: number;
  try {
    fd = libc('watch a child', 'syscall', SYS_pidfd_open, pid, 0);
  } catch {
    return;
  }
  const view = new DataView(new ArrayBuffer(8));
  view.setInt32(0, fd, true);
  view.setInt16(4, POLLIN, true);
  try {
    libc('wait for a child', 'poll', new Uint8Array(view.buffer), 1, Math.max(0, Math.ceil(timeoutMs)));
  } finally {
    closeSync(fd);
  }
}

/**
 * Waits for a child to end, and reaps it. This does not keep the process alive.
 * @param hint resolved once it should have ended; without that, its end is noticed as well, but later.
 * @returns its exit code, undefined when a signal ended it.
 */
export async function reap(pid: number, hint: Promise<unknown>): Promise<number | undefined> {
  let isDue = false;
  const due = hint.then(() => {
    isDue = true;
  });
  const pauseFor = (ms: number) => sleep(ms, undefined, { ref: false });
  const status = new Uint8Array(new ArrayBuffer(4));
  const hasEnded = () => libc('wait for a child', 'waitpid', pid, status, WNOHANG) !== 0;
  let isOver = false;
  while (!isOver && !isDue) {
    await Promise.race([due, pauseFor(longestPause)]);
    isOver = hasEnded();
  }
  for (let pause = 1; !isOver; pause = Math.min(pause * 2, longestPause)) {
    await pauseFor(pause);
    isOver = hasEnded();
  }
  const value = new DataView(status.buffer).getInt32(0, true);
  return (value & 0x7f) === 0 ? (value >> 8) & 0xff : undefined;
}
