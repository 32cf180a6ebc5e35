/**
 * Programs of the host outlive a plugin that is killed: iptables may work for seconds on a host with many
 * rules. What such a program does after DEL has looked would stay for ever, or take away the rules of whoever
 * has the address by then. So programs hold a lock, and DEL waits for it. They hold it by a descriptor that
 * they inherit; it is a lock on one byte, chosen by the attachment, of a file that all plugins share. Source:
 * F_OFD_SETLK(2const).
 */

import { closeSync, constants } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeDirectory } from '../directory.ts';
import { errnoOf } from '../file.ts';
import { openRegular, tryLockByte } from '../kernel/lock.ts';

const directory = '/run/cni';
const file = `${directory}/programs.lock`;

/** How long to wait for programs, in milliseconds: as long as a plugin itself lets one run. */
const longestWait = 60_000;
/** Pause between two attempts, in milliseconds. */
const pause = 10;

/** The lock of one plugin's calls for one attachment. */
export class ProgramLock implements Disposable {
  private readonly key: string;
  private fd: number | undefined;
  private isHeld = false;
  private isOver = false;

  /**
   * @param plugin its name: a plugin that it runs in another process has a lock of its own.
   * @param attachment as the runtime names it.
   */
  constructor(plugin: string, network: string, attachment: { containerId: string; ifname: string }) {
    this.key = [plugin, network, attachment.containerId, attachment.ifname].join('/');
  }

  /**
   * Takes the lock for a program that is about to be started, if nobody holds it.
   * @returns the descriptor that the program is to inherit; none once the call has ended, or if the file
   *   cannot be used, as a full disk must keep nobody from cleaning up.
   */
  held(): readonly number[] {
    if (this.isOver) return [];
    try {
      if (this.fd === undefined) makeDirectory(directory, 0o700);
      return this.take(constants.O_CREAT) ? [this.fd!] : [];
    } catch {
      return [];
    }
  }

  /**
   * Waits until an earlier call has ended, and the programs that it started.
   * @param warn is told when that takes too long, or when it cannot be found out.
   */
  async settle(warn: (message: string) => void): Promise<void> {
    try {
      for (const end = performance.now() + longestWait; !this.take(0); await sleep(pause))
        if (performance.now() > end) {
          warn(
            `Going on, though an earlier call for this attachment, or a program that it started, has not ended for ${longestWait / 1000} seconds. ` +
              `Find out which one hangs: "fuser --verbose ${file}" lists those that it may be`,
          );
          return;
        }
    } catch (error) {
      // Without the file, nobody holds the lock.
      if (errnoOf(error) !== 'ENOENT')
        warn(`Going on without the lock "${file}": ${(error as Error).message}`);
    }
  }

  /**
   * @param create O_CREAT, or 0.
   * @returns whether the lock is held.
   * @throws the error of open(2) or fcntl(2).
   */
  private take(create: number): boolean {
    this.fd ??= openRegular(file, constants.O_RDWR | create, 0o600);
    this.isHeld ||= tryLockByte(this.fd, file, this.key);
    return this.isHeld;
  }

  [Symbol.dispose](): void {
    if (this.fd !== undefined) closeSync(this.fd);
    this.fd = undefined;
    this.isOver = true;
  }
}
