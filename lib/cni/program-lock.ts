/**
 * Programs of the host outlive a plugin that is killed: iptables may work for seconds on a host with many
 * rules. What such a program does after DEL or GC has looked would stay for ever, or take away the rules of
 * whoever has the address by then. So programs hold a lock, and DEL and GC wait for it. They hold it by a
 * descriptor that they inherit; it is a lock on one byte of a file that all plugins share, chosen by plugin
 * and network, and within these by the attachment.
 */

import { closeSync, constants } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeDirectory } from '../directory.ts';
import { errnoOf } from '../file.ts';
import { byteOf, isByteLocked, lockedBytes, tryLockByte } from '../kernel/byte-lock.ts';
import { openRegular } from '../kernel/lock.ts';
import type { Invocation } from './invocation.ts';

const directory = '/run/cni';
const file = `${directory}/programs.lock`;

/** How long to wait for programs, in milliseconds: as long as a plugin itself lets one run. */
const longestWait = 60_000;
/** Pause between two attempts, in milliseconds. */
const pause = 10;

/** What the lock needs to know of a call. */
interface LockContext {
  readonly invocation: Pick<Invocation, 'containerId' | 'ifname'>;
  readonly programLock?: ProgramLock | undefined;
}

/** The lock of one plugin's calls for one attachment. */
export class ProgramLock implements Disposable {
  private readonly byte: bigint;
  private readonly outer: ProgramLock | undefined;
  private fd: number | undefined;
  private isHeld = false;
  private isOver = false;

  /**
   * @param context of the call. The lock of the plugin that delegates to this one within the process, if
   *   there is one, is held by programs as well.
   */
  constructor(plugin: string, network: string, { invocation, programLock }: LockContext) {
    this.byte = byteOf(groupOf(plugin, network), `${invocation.containerId}/${invocation.ifname}`);
    this.outer = programLock;
  }

  /**
   * Takes the lock for a program that is about to be started, if nobody holds it.
   * @returns the descriptors that the program is to inherit; none once the call has ended, or if the file
   *   cannot be used, as a full disk must keep nobody from cleaning up.
   */
  held(): readonly number[] {
    if (this.isOver) return [];
    const outer = this.outer?.held() ?? [];
    try {
      if (this.fd === undefined) makeDirectory(directory, 0o700);
      return this.take(constants.O_CREAT) ? [...outer, this.fd!] : outer;
    } catch {
      return outer;
    }
  }

  /**
   * Waits until an earlier call has ended, and the programs that it started.
   * @param warn is told when that takes too long, or when it cannot be found out.
   */
  async settle(warn: (message: string) => void): Promise<void> {
    await orWarn(warn, async () => {
      if (!(await isOverInTime(() => this.take(0)))) warn(unendingWarning('this attachment'));
    });
  }

  /**
   * @param create O_CREAT, or 0.
   * @returns whether the lock is held.
   * @throws the error of open(2) or fcntl(2).
   */
  private take(create: number): boolean {
    this.fd ??= openRegular(file, constants.O_RDWR | create, 0o600);
    this.isHeld ||= tryLockByte(this.fd, file, this.byte);
    return this.isHeld;
  }

  [Symbol.dispose](): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
    this.isOver = true;
  }
}

/**
 * Waits until the calls of a plugin that are under way for a network have ended, and all programs left by
 * earlier calls. Other attachments that begin meanwhile are not waited for.
 * @param warn as for {@link ProgramLock.settle}.
 */
export async function settleNetwork(
  plugin: string,
  network: string,
  warn: (message: string) => void,
): Promise<void> {
  await orWarn(warn, async () => {
    const fd = openRegular(file, constants.O_RDONLY, 0);
    try {
      let held = lockedBytes(fd, file, groupOf(plugin, network));
      const areFree = () => {
        held = held.filter((byte) => isByteLocked(fd, file, byte));
        return held.length === 0;
      };
      if (!(await isOverInTime(areFree))) warn(unendingWarning(`network "${network}"`));
    } finally {
      closeSync(fd);
    }
  });
}

function groupOf(plugin: string, network: string): string {
  return `${plugin}/${network}`;
}

/** Tries again for as long as programs may run. @returns whether they have ended in time. */
async function isOverInTime(isOver: () => boolean): Promise<boolean> {
  for (const end = performance.now() + longestWait; !isOver(); await sleep(pause))
    if (performance.now() > end) return false;
  return true;
}

/** Without the file, nobody holds a lock; any other error must keep nobody from cleaning up. */
async function orWarn(warn: (message: string) => void, wait: () => Promise<void>): Promise<void> {
  try {
    await wait();
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') warn(`Going on without the lock "${file}": ${(error as Error).message}`);
  }
}

function unendingWarning(what: string): string {
  return (
    `Going on, though an earlier call for ${what}, or a program that it started, has not ended for ${longestWait / 1000} seconds. ` +
    `Find out which one hangs: "fuser --verbose ${file}" lists those that it may be`
  );
}
