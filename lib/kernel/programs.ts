/**
 * Programs of the host. Their standard input, output and error are files in memory, so that neither side ever
 * waits for a pipe.
 */

import { accessSync, closeSync, constants, fstatSync, readSync, writeSync } from 'node:fs';
import { CniError, ErrorCode } from '../errors.ts';
import { alone, type Together } from '../group-commit.ts';
import { cString, libc } from '../netlink/libc.ts';
import { blockUntilEnd, openPipe, reap, spawn } from './child.ts';
import type { FileLock } from './lock.ts';
import { eachTime, type Once, type PipeWatch, type Sharing, type WaitForEnd } from './sharing.ts';

const MFD_CLOEXEC = 1;

/** Where programs are looked for besides PATH: runtimes often start plugins with a bare environment. */
const systemPath = '/usr/sbin:/sbin:/usr/bin:/bin';

/** How long a program may run, in milliseconds. It may wait for a lock for half of that. */
const defaultTimeoutMs = 60_000;

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
  /** Further descriptors that it gets, and keeps as long as it lives; {@link Programs.held} by default. */
  readonly inherit?: readonly number[];
  /** How long it may run, in milliseconds; a minute by default. */
  readonly timeoutMs?: number;
}

/** There is no such program. */
export class ProgramMissingError extends Error {
  override readonly name = 'ProgramMissingError';
}

/** A program did not end in time, and was killed. What it had done by then is not known. */
export class ProgramTimeoutError extends CniError {
  override readonly name = 'ProgramTimeoutError';
}

/** Finds and runs programs of the host, with one environment. */
export class Programs {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Where programs are looked for. */
  readonly path: string;
  /** Does together what several calls of this process can do together. */
  readonly together: Together;
  /** Looks things up once for all calls, in a read-only process. */
  readonly once: Once | undefined;
  private readonly sharing: Sharing | undefined;
  private readonly note: ((run: ProgramRun) => void) | undefined;
  private readonly locks: () => readonly number[];
  private readonly found = new Map<string, string>();

  /**
   * @param sharing for a process with other things to do; without it, the thread waits for each child.
   * @param note told of each program once it has ended.
   * @param locks descriptors of the locks that a program which is about to be started is to hold.
   */
  constructor(
    environment: Readonly<Record<string, string | undefined>>,
    sharing?: Sharing,
    note?: (run: ProgramRun) => void,
    locks: () => readonly number[] = () => [],
  ) {
    this.environment = environment;
    this.note = note;
    this.locks = locks;
    this.sharing = sharing;
    this.together = sharing?.together ?? alone;
    this.once = sharing?.once;
    this.path = [environment.PATH, systemPath].filter(Boolean).join(':');
  }

  /**
   * The same programs, which hold a lock as well: one that outlives this process, as that was killed, then
   * keeps others out until it has ended.
   */
  holding(lock: FileLock | undefined): Programs {
    if (!lock) return this;
    return new Programs(this.environment, this.sharing, this.note, () => [...this.held, lock.fd]);
  }

  /** Descriptors of the locks that a program holds for as long as it lives. */
  get held(): readonly number[] {
    return this.locks();
  }

  /** The file of a program; a name with a slash is the file itself. @throws ProgramMissingError */
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
   * Runs a program to its end. It has started when this returns, and runs alongside whatever the caller does
   * before it returns to the event loop; from then on it is waited for.
   * @param program its path, or its name, which is looked up in PATH and the system's directories.
   * @param options its standard input, or all its options.
   * @throws ProgramMissingError when there is no such program; KernelError when it cannot be started;
   *   ProgramTimeoutError when it does not end in time.
   */
  run(program: string, args: readonly string[], options: string | RunOptions = {}): Promise<ExitResult> {
    const {
      input = '',
      environment = {},
      inherit = this.held,
      timeoutMs = defaultTimeoutMs,
    } = typeof options === 'string' ? { input: options } : options;
    const files: number[] = [];
    const file = (content: string) => {
      const fd = libc('make a file in memory', 'memfd_create', cString('child'), MFD_CLOEXEC);
      files.push(fd);
      const bytes = Buffer.from(content);
      // With an offset: the child still begins to read at the beginning.
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
      const { pid, ended, stop } = this.start(path, [program, ...args], environ, fds, timeoutMs);
      return within(timeoutMs, pid, ended)
        .then((status) => {
          const milliseconds = performance.now() - start;
          const isOverdue = status === 'overdue';
          this.note?.({ file: path, startTime, milliseconds, status: isOverdue ? undefined : status });
          if (isOverdue) throw timeoutError(program, pid, timeoutMs, readAll(stderr));
          return { status, stdout: readAll(stdout), stderr: readAll(stderr) };
        })
        .finally(() => {
          stop();
          for (const fd of files) closeSync(fd);
        });
    } catch (error) {
      for (const fd of files) closeSync(fd);
      return Promise.reject(error as Error);
    }
  }

  /**
   * Starts a child.
   * @returns its process ID, and a wait that is over once it should have ended.
   */
  private start(
    path: string,
    argv: readonly string[],
    environ: readonly string[],
    fds: readonly number[],
    timeoutMs: number,
  ): PipeWatch & { readonly pid: number } {
    if (!this.sharing) {
      const deadline = performance.now() + timeoutMs;
      const pid = spawn(path, argv, environ, fds);
      const ended = new Promise((resolve) => setImmediate(resolve)).then(() =>
        blockUntilEnd(pid, deadline - performance.now()),
      );
      return { pid, ended, stop: () => {} };
    }
    // The child holds one end of a pipe, which nobody writes to, for as long as it lives; longer, if it has
    // started something that keeps its descriptors.
    const [readEnd, writeEnd] = openPipe();
    try {
      const pid = spawn(path, argv, environ, [...fds, writeEnd]);
      return { pid, ...watch(readEnd, this.sharing.waitForEnd) };
    } catch (error) {
      closeSync(readEnd);
      throw error;
    } finally {
      closeSync(writeEnd);
    }
  }
}

/**
 * Waits for the end of a pipe. If that is not possible, the end of the child is noticed as well, but later.
 */
function watch(pipe: number, waitForEnd: WaitForEnd): PipeWatch {
  try {
    return waitForEnd(pipe);
  } catch {
    closeSync(pipe);
    return { ended: Promise.resolve(), stop: () => {} };
  }
}

/**
 * Waits for a child, and kills it when it takes too long. After that, it is not waited for, as a child that
 * hangs in the kernel does not end.
 * @returns its exit code, undefined when a signal ended it.
 */
async function within(
  timeoutMs: number,
  pid: number,
  ended: Promise<void>,
): Promise<number | undefined | 'overdue'> {
  let timer: NodeJS.Timeout | undefined;
  const overdue = new Promise<'overdue'>((resolve) => {
    timer = setTimeout(resolve, timeoutMs, 'overdue');
  });
  try {
    const status = await Promise.race([reap(pid, ended), overdue]);
    if (status === 'overdue') process.kill(pid, 'SIGKILL');
    return status;
  } finally {
    clearTimeout(timer);
  }
}

function timeoutError(program: string, pid: number, timeoutMs: number, stderr: string): ProgramTimeoutError {
  return new ProgramTimeoutError(
    ErrorCode.TryAgainLater,
    `"${program}" had not ended after ${timeoutMs / 1000} seconds, and was killed. Try again; if that is of no use, ` +
      `find out what it waits for: while process ${pid} is still there, it hangs in the kernel, whose log is shown by "dmesg"`,
    stderr.trim() || undefined,
  );
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
