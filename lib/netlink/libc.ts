/**
 * Functions of the C library that Node.js does not offer, bound once and only when first needed: loading
 * node:ffi costs a millisecond, which VERSION and plugins without kernel work should not pay.
 */

import { getSystemErrorMap } from 'node:util';

/** A call to the kernel failed. */
export class KernelError extends Error {
  /** The number in errno.h. */
  readonly errno: number;
  /** Its name, such as "EEXIST". */
  readonly code: string;

  /**
   * @param action what was tried, as in "create link \"cni0\"".
   * @param errno positive errno.
   * @param hint what the kernel said besides the number.
   */
  constructor(action: string, errno: number, hint = '') {
    const [code, text] = describeErrno(errno);
    super(`Cannot ${action}: ${hint ? `${hint} (${code})` : `${text} (${code})`}`);
    this.name = 'KernelError';
    this.errno = errno;
    this.code = code;
  }
}

/** True when `error` is a KernelError with one of these codes. */
export function isKernelError(error: unknown, ...codes: string[]): error is KernelError {
  return error instanceof KernelError && codes.includes(error.code);
}

interface Libc {
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Uint8Array, length: number): number;
  connect(fd: number, address: Uint8Array, length: number): number;
  setsockopt(fd: number, level: number, option: number, value: Uint8Array, length: number): number;
  getsockopt(fd: number, level: number, option: number, value: Uint8Array, length: Uint8Array): number;
  send(fd: number, data: Uint8Array, length: number, flags: number): number;
  sendto(
    fd: number,
    data: Uint8Array,
    length: number,
    flags: number,
    to: Uint8Array,
    toLength: number,
  ): number;
  shutdown(fd: number, how: number): number;
  recv(fd: number, data: Uint8Array, length: number, flags: number): number;
  recvfrom(
    fd: number,
    data: Uint8Array,
    length: number,
    flags: number,
    from: Uint8Array,
    fromLength: Uint8Array,
  ): number;
  setns(fd: number, type: number): number;
  unshare(flags: number): number;
  ioctl(fd: number, request: number, argument: Uint8Array): number;
  /** ioctl(2) with a number for an argument. */
  ioctlValue(fd: number, request: number, argument: number): number;
  flock(fd: number, operation: number): number;
  fcntl(fd: number, command: number, argument: Uint8Array): number;
  pipe2(ends: Uint8Array, flags: number): number;
  memfd_create(name: Uint8Array, flags: number): number;
  posix_spawn_file_actions_init(actions: Uint8Array): number;
  posix_spawn_file_actions_adddup2(actions: Uint8Array, fd: number, target: number): number;
  posix_spawn_file_actions_destroy(actions: Uint8Array): number;
  posix_spawn(
    pid: Uint8Array,
    path: Uint8Array,
    actions: Uint8Array,
    attributes: Uint8Array,
    argv: Uint8Array,
    environment: Uint8Array,
  ): number;
  _exit(code: number): number;
  waitpid(pid: number, status: Uint8Array, options: number): number;
  poll(fds: Uint8Array, count: number, timeoutMs: number): number;
  syscall(number: number, first: number, second: number): number;
  /** OpenSSL's, which Node.js exports for its addons. */
  SHA512(data: Uint8Array, length: number, digest: Uint8Array): number;
}

const i32 = 'int32';
// Lengths are size_t: the calling conventions of x86-64 and arm64 pass a uint32 zero-extended, and unlike
// uint64 it does not have to be a bigint.
const u32 = 'uint32';
const signatures = {
  socket: { arguments: [i32, i32, i32], return: i32 },
  bind: { arguments: [i32, 'buffer', u32], return: i32 },
  connect: { arguments: [i32, 'buffer', u32], return: i32 },
  setsockopt: { arguments: [i32, i32, i32, 'buffer', u32], return: i32 },
  getsockopt: { arguments: [i32, i32, i32, 'buffer', 'buffer'], return: i32 },
  send: { arguments: [i32, 'buffer', u32, i32], return: i32 },
  sendto: { arguments: [i32, 'buffer', u32, i32, 'buffer', u32], return: i32 },
  shutdown: { arguments: [i32, i32], return: i32 },
  recv: { arguments: [i32, 'buffer', u32, i32], return: i32 },
  recvfrom: { arguments: [i32, 'buffer', u32, i32, 'buffer', 'buffer'], return: i32 },
  setns: { arguments: [i32, i32], return: i32 },
  unshare: { arguments: [i32], return: i32 },
  ioctl: { arguments: [i32, u32, 'buffer'], return: i32 },
  ioctlValue: { arguments: [i32, u32, u32], return: i32 },
  flock: { arguments: [i32, i32], return: i32 },
  fcntl: { arguments: [i32, i32, 'buffer'], return: i32 },
  pipe2: { arguments: ['buffer', i32], return: i32 },
  memfd_create: { arguments: ['buffer', u32], return: i32 },
  posix_spawn_file_actions_init: { arguments: ['buffer'], return: i32 },
  posix_spawn_file_actions_adddup2: { arguments: ['buffer', i32, i32], return: i32 },
  posix_spawn_file_actions_destroy: { arguments: ['buffer'], return: i32 },
  posix_spawn: { arguments: ['buffer', 'buffer', 'buffer', 'buffer', 'buffer', 'buffer'], return: i32 },
  _exit: { arguments: [i32], return: i32 },
  waitpid: { arguments: [i32, 'buffer', i32], return: i32 },
  poll: { arguments: ['buffer', u32, i32], return: i32 },
  syscall: { arguments: [u32, u32, u32], return: i32 },
  SHA512: { arguments: ['buffer', u32, 'buffer'], return: 'pointer' },
} as const;

/** Functions that go by another name in the C library. */
const symbols: Record<string, string> = { ioctlValue: 'ioctl' };

let ffi: typeof import('node:ffi') | undefined;
let library: { getFunction(name: string, signature: object): (...args: never[]) => unknown } | undefined;
let errnoLocation: (() => bigint) | undefined;
const bound = new Map<string, (...args: never[]) => unknown>();

function bind<T extends (...args: never[]) => unknown>(name: string, signature: object): T {
  let fn = bound.get(name);
  if (!fn) {
    // Not an import: those are loaded at start-up whether they are needed or not.
    ffi ??= process.getBuiltinModule('node:ffi');
    library ??= openLibrary(ffi);
    const alias = symbols[name];
    // A library handle binds a function only once; another signature takes another handle.
    fn = alias ? openLibrary(ffi).getFunction(alias, signature) : library.getFunction(name, signature);
    bound.set(name, fn);
  }
  return fn as T;
}

function openLibrary(from: typeof import('node:ffi')): NonNullable<typeof library> {
  const { lib, functions } = from.dlopen(null, { __errno_location: { arguments: [], return: 'pointer' } });
  // Bound before anything is called: binding a function maps memory, which overwrites errno.
  errnoLocation = functions.__errno_location as () => bigint;
  return lib as unknown as NonNullable<typeof library>;
}

function errno(): number {
  return ffi!.getInt32(errnoLocation!(), 0);
}

/**
 * Calls a function of the C library.
 * @param action what is tried, for the error message.
 * @returns what the function returned, never negative.
 * @throws KernelError with errno when it returned a negative number. After EINTR, it is called again.
 */
export function libc<K extends keyof Libc>(action: string, name: K, ...args: Parameters<Libc[K]>): number {
  const fn = bind<(...args: Parameters<Libc[K]>) => number>(name, signatures[name]);
  for (;;) {
    const result = fn(...args);
    if (result >= 0) return result;
    const error = errno();
    if (error !== 4) throw new KernelError(action, error);
  }
}

/**
 * Ends the process, which has written everything, if the C library is loaded: the kernel cleans up a
 * millisecond or two faster than Node.js. Otherwise it returns, as loading the library would cost what is
 * gained.
 * @param code exit code.
 */
export function exitImmediately(code: number): void {
  if (library) libc('end', '_exit', code);
}

/** A text with the final NUL that C expects. */
export function cString(text: string): Uint8Array {
  return Buffer.from(`${text}\0`);
}

/**
 * Makes an array of texts like argv: pointers up to a null pointer. The texts follow the pointers in the same
 * piece of memory, so that they exist for as long as the array does.
 */
export function cStrings(list: readonly string[]): Uint8Array {
  ffi ??= process.getBuiltinModule('node:ffi');
  const texts = list.map(cString);
  const start = 8 * (texts.length + 1);
  const memory = new Uint8Array(new ArrayBuffer(texts.reduce((size, { length }) => size + length, start)));
  const view = new DataView(memory.buffer);
  const address = ffi.getRawPointer(memory);
  let at = start;
  for (const [i, text] of texts.entries()) {
    view.setBigUint64(8 * i, address + BigInt(at), true);
    memory.set(text, at);
    at += text.length;
  }
  return memory;
}

function describeErrno(errno: number): [code: string, text: string] {
  // libuv calls this number ENOTSUP, which errno.h defines as the same.
  if (errno === 95) return ['EOPNOTSUPP', 'operation not supported'];
  // containerd regards a failed DEL as done if it says "no such file or directory".
  if (errno === 2) return ['ENOENT', 'it does not exist'];
  if (errno === 85) return ['ERESTART', 'what it was based on has changed'];
  return getSystemErrorMap().get(-errno) ?? [`errno ${errno}`, 'the kernel refused'];
}
