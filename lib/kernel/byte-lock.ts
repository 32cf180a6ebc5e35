/**
 * Locks on single bytes of a file that many share. A byte is chosen by two keys: all bytes of one first key
 * are a group, which can be looked at as a whole. Source: F_OFD_SETLK(2const).
 */

import { isKernelError, libc } from '../netlink/libc.ts';

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_WRLCK = 1;
const F_UNLCK = 2;
/** Source: struct flock in asm-generic/fcntl.h, on 64-bit machines. */
const flock = { size: 32, type: 0, start: 8, length: 16 } as const;

/** How many bytes a group has. */
const groupSize = 2n ** 30n;

/** The byte of a key in a group; few keys share one. */
export function byteOf(group: string, key: string): bigint {
  return startOf(group) + (BigInt(hash(key)) % groupSize);
}

/**
 * Locks a byte of an open file, unless somebody else has. The lock ends when the file is closed, here and in
 * every child that inherits the descriptor.
 * @param file its path, for messages.
 * @returns false when somebody else has the lock.
 */
export function tryLockByte(fd: number, file: string, byte: bigint): boolean {
  const lock = writeLock(byte, 1n);
  try {
    libc(`lock "${file}"`, 'fcntl', fd, F_OFD_SETLK, new Uint8Array(lock.buffer));
    return true;
  } catch (error) {
    if (isKernelError(error, 'EAGAIN', 'EACCES')) return false;
    throw error;
  }
}

/** The bytes of a group that others have locked. @param file its path, for messages. */
export function lockedBytes(fd: number, file: string, group: string): bigint[] {
  const start = startOf(group);
  return lockedWithin(fd, file, start, start + groupSize);
}

/** Whether somebody else has locked a byte. @param file its path, for messages. */
export function isByteLocked(fd: number, file: string, byte: bigint): boolean {
  return lockedWithin(fd, file, byte, byte + 1n).length > 0;
}

/** The kernel tells one lock at a time, and not the first one first. */
function lockedWithin(fd: number, file: string, start: bigint, end: bigint): bigint[] {
  if (start >= end) return [];
  const lock = writeLock(start, end - start);
  libc(`look at the locks on "${file}"`, 'fcntl', fd, F_OFD_GETLK, new Uint8Array(lock.buffer));
  if (lock.getInt16(flock.type, true) === F_UNLCK) return [];
  const found = lock.getBigInt64(flock.start, true);
  const next = found + 1n;
  return [...lockedWithin(fd, file, start, found), found, ...lockedWithin(fd, file, next, end)];
}

function writeLock(start: bigint, length: bigint): DataView<ArrayBuffer> {
  const lock = new DataView(new ArrayBuffer(flock.size));
  lock.setInt16(flock.type, F_WRLCK, true);
  lock.setBigInt64(flock.start, start, true);
  lock.setBigInt64(flock.length, length, true);
  return lock;
}

function startOf(group: string): bigint {
  return BigInt(hash(group)) * groupSize;
}

/** FNV-1a, of 32 bits. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}
