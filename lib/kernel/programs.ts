/**
 * Children by posix_spawn(3). Node's own child_process forks, which copies the page tables of the whole
 * process and has it fault on every page it touches afterwards: some five milliseconds for each child that a
 * plugin starts, as much as many of these take themselves. Standard input, output and error are files in
 * memory, so that nobody waits for anybody's pipe.
 */

import { accessSync, closeSync, constants, fstatSync, readSync, writeSync } from 'node:fs';
import { alone, type Together } from '../group-commit.ts';
import { KernelError, libc, type Pointers, pointersTo } from '../netlink/libc.ts';
import { eachTime, type Once, type Sharing } from './sharing.ts';

const MFD_CLOEXEC = 1;
const O_CLOEXEC = 0o2000000;
/** More than the 80 bytes that glibc has for it. */
const fileActionsSize = 256;

/** Where programs are looked for besides PATH: runtimes often start plugins with a bare environment. */
const systemPath = '/usr/sbin:/sbin:/usr/bin:/bin';

/** How a child ended. */
export interface ExitResult {
  /** Exit code; undefined when a signal ended it. */
  status: number | undefined;
  stdout: string;
  stderr: string;
}

/** A program of the host that was run to its end. */
export interface ProgramRun {
  /** Path of its file. */
  readonly file: string;
  /** When it began, in milliseconds since 1970. */
  readonly startTime: number;
  readonly milliseconds: number;
  /** Exit code; undefined when a signal ended it. */
  readonly status: number | undefined;
}

/** How a child is started. */
export interface RunOptions {
  /** Its standard input. */
  readonly input?: string;
  /** Added to the environment. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Descriptors that it gets as well, from 3 on, and keeps as long as it lives. */
  readonly inherit?: readonly number[];
}

/** There is no such program. */
export class ProgramMissingError extends Error {
  override readonly name = 'ProgramMissingError';
}

/** Finds and runs programs of the host, with one environment. */
export class Programs {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Where programs are looked for. */
  readonly path: string;
  /** Does what calls of this process may do as one. */
  readonly together: Together;
  /** Looks once for all calls, in a process that only looks. */
  readonly once: Once | undefined;
  private readonly sharing: Sharing | undefined;
  private readonly note: ((run: ProgramRun) => void) | undefined;
  private readonly found = new Map<string, string>();

  /**
   * @param sharing for a process with other things to do; without it, the thread waits for each child.
   * @param note told of each program once it has ended.
   */
  constructor(
    environment: Readonly<Record<string, string | undefined>>,
    sharing?: Sharing,
    note?: (run: ProgramRun) => void,
  ) {
    this.environment = environment;
    this.note = note;
    this.sharing = sharing;
    this.together = sharing?.together ?? alone;
    this.once = sharing?.once;
    this.path = [environment.PATH, systemPath].filter(Boolean).join(':');
  }

  /** The file of a program, which a name with a slash is itself. @throws ProgramMissingError */
  find(program: string): string {
    if (program.includes('/')) return program;
    const known = this.found.get(program);
    if (known) return known;
    const look = this.once ?? eachTime;
    const file = look(`program ${program} of ${this.path}`, () => this.lookUp(program));
    this.found.set(program, file);
    return file;
  }

  /** Whether a program is installed. */
  has(program: string): boolean {
    try {
      this.find(program);
      return true;
    } catch (error) {
      if (error instanceof ProgramMissingError) return false;
      throw error;
    }
  }

  private lookUp(program: string): string {
    for (const directory of this.path.split(':')) {
      if (directory === '') continue;
      try {
        accessSync(`${directory}/${program}`, constants.X_OK);
        return `${directory}/${program}`;
      } catch {}
    }
    throw new ProgramMissingError(`"${program}" is not installed`);
  }

  /**
   * Runs a program to its end. It has started when this returns, and runs beside whatever the caller does
   * before it lets go of the event loop; from then on it is waited for.
   * @param program its path, or its name, which is looked up in PATH and the system's directories.
   * @param options its standard input, or that and more.
   * @throws ProgramMissingError when there is no such program; KernelError when it cannot be started.
   */
  run(program: string, args: readonly string[], options: string | RunOptions = {}): Promise<ExitResult> {
    const {
      input = '',
      environment = {},
      inherit = [],
    } = typeof options === 'string' ? { input: options } : options;
    const files: number[] = [];
    const file = (content: string) => {
      const fd = libc('make a file in memory', 'memfd_create', cString('child'), MFD_CLOEXEC);
      files.push(fd);
      const bytes = Buffer.from(content);
      // At an offset: where the child begins to read stays the beginning.
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, at);
      return fd;
    };
    try {
      const path = this.find(program);
      const [stdin, stdout, stderr] = [file(input), file(''), file('')];
      const variables = { ...this.environment, ...environment, PATH: this.path, LC_ALL: 'C' };
      const environ = Object.entries(variables).flatMap(([name, value]) =>
        value === undefined ? [] : [`${name}=${value}`],
      );
      const fds = [stdin, stdout, stderr, ...inherit];
      const startTime = Date.now();
      const start = performance.now();
      const { pid, hasEnded } = this.start(path, [program, ...args], environ, fds);
      return hasEnded
        .then(() => {
          const status = wait(pid);
          this.note?.({ file: path, startTime, milliseconds: performance.now() - start, status });
          return { status, stdout: readAll(stdout), stderr: readAll(stderr) };
        })
        .finally(() => {
          for (const fd of files) closeSync(fd);
        });
    } catch (error) {
      for (const fd of files) closeSync(fd);
      return Promise.reject(error as Error);
    }
  }

  /** Starts a child. @returns its process ID, and a promise that is kept once it can be waited for. */
  private start(
    path: string,
    argv: readonly string[],
    environ: readonly string[],
    fds: readonly number[],
  ): { pid: number; hasEnded: Promise<unknown> } {
    if (!this.sharing) {
      const pid = spawn(path, argv, environ, fds);
      return { pid, hasEnded: new Promise((resolve) => setImmediate(resolve)) };
    }
    // The child holds one end of a pipe, which nobody writes to, for as long as it lives.
    const { waitForEnd } = this.sharing;
    const [readEnd, writeEnd] = openPipe();
    try {
      const pid = spawn(path, argv, environ, [...fds, writeEnd]);
      // Without that, the thread waits: nobody else waits for the child, which would stay as a zombie.
      const hasEnded = (async () => waitForEnd(readEnd))().catch(() => closeSync(readEnd));
      return { pid, hasEnded };
    } catch (error) {
      closeSync(readEnd);
      throw error;
    } finally {
      closeSync(writeEnd);
    }
  }
}

/** A pipe whose ends no other child gets. */
function openPipe(): [readEnd: number, writeEnd: number] {
  const ends = new Uint8Array(8);
  libc('open a pipe', 'pipe2', ends, O_CLOEXEC);
  const view = new DataView(ends.buffer);
  return [view.getInt32(0, true), view.getInt32(4, true)];
}

function spawn(
  path: string,
  argv: readonly string[],
  environment: readonly string[],
  fds: readonly number[],
): number {
  const actions = new Uint8Array(new ArrayBuffer(fileActionsSize));
  libc('prepare a child', 'posix_spawn_file_actions_init', actions);
  for (const [target, fd] of fds.entries())
    libc('prepare a child', 'posix_spawn_file_actions_adddup2', actions, fd, target);
  const pid = new Uint8Array(new ArrayBuffer(4));
  const [args, env] = [cStrings(argv), cStrings(environment)];
  // It returns the error itself, in place of setting errno.
  const error = libc(
    `start "${path}"`,
    'posix_spawn',
    pid,
    cString(path),
    actions,
    null,
    args.pointers,
    env.pointers,
  );
  libc('tidy up after a child', 'posix_spawn_file_actions_destroy', actions);
  if (error !== 0) throw new KernelError(`start "${path}"`, error);
  return new DataView(pid.buffer).getInt32(0, true);
}

function wait(pid: number): number | undefined {
  const status = new Uint8Array(new ArrayBuffer(4));
  libc('wait for a child', 'waitpid', pid, status, 0);
  const value = new DataView(status.buffer).getInt32(0, true);
  return (value & 0x7f) === 0 ? (value >> 8) & 0xff : undefined;
}

function readAll(fd: number): string {
  const bytes = Buffer.alloc(fstatSync(fd).size);
  for (let at = 0; at < bytes.length; ) {
    const count = readSync(fd, bytes, at, bytes.length - at, at);
    if (count === 0) break;
    at += count;
  }
  return bytes.toString('utf8');
}

function cString(text: string): Uint8Array {
  return Buffer.from(`${text}\0`);
}

/** A list of texts as C has it. */
function cStrings(list: readonly string[]): Pointers {
  return pointersTo(list.map(cString));
}
