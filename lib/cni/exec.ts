/**
 * Running another plugin's executable. Separate from delegate.ts, so that child_process is loaded only when
 * it is needed.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { CniError, ErrorCode } from '../errors.ts';
import { errnoOf } from '../file.ts';
import { isObject } from '../object.ts';

/**
 * Pauses between attempts, in milliseconds: an executable that is being replaced cannot be run for a moment.
 * The reference library waits five seconds.
 */
const busyPauses = [50, 200, 750, 1000, 3000];

/** How long an executable may take to end once it is asked to, in milliseconds. */
const graceMs = 2000;
/**
 * How long an executable may run that is started to undo something after the runtime gave up, in
 * milliseconds.
 */
const cleanUpMs = 30_000;

/** The most that an executable may print, in MiB: far above any result. */
const longestOutputMiB = 16;
/** The longest line of standard error that is passed on in one piece, in characters. */
const longestLine = 65_536;
/** How much of an executable's standard error is kept for its error, in characters. */
const keptStderr = 4096;

/** How an executable is run in a process that has other things to do. */
export interface ExecOptions {
  /** Aborted when nobody waits for it any more: it is then ended, with all that it has started. */
  readonly signal?: AbortSignal | undefined;
  /** Called with whole lines that it writes to its standard error; without this, they go to ours. */
  readonly warn?: ((text: string) => void) | undefined;
}

/** An executable was killed, or asked to end. What it had done by then is not known. */
export class KilledError extends CniError {
  override readonly name = 'KilledError';
}

/** An executable could not be started, so that nothing was done. */
export class NotStartedError extends CniError {
  override readonly name = 'NotStartedError';
}

/**
 * Runs a plugin's executable to its end.
 * @param file path of the executable.
 * @param stdin what it reads.
 * @param env its whole environment.
 * @returns what it printed.
 * @throws CniError the error it printed, or one that says how it failed; KilledError; NotStartedError.
 */
export async function runExecutable(
  file: string,
  stdin: string,
  env: NodeJS.ProcessEnv,
  options: ExecOptions = {},
): Promise<string> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await runOnce(file, stdin, env, options);
    } catch (error) {
      const pause = busyPauses[attempt];
      if (errnoOf(error) !== 'ETXTBSY' || pause === undefined) throw startError(file, error as Error);
      await sleep(pause);
    }
  }
}

/** Why an executable cannot be started, and what helps, by the code of the error. */
const startProblems: Readonly<Record<string, string>> = {
  EMFILE: 'The process has too many open files. Raise its limit',
  ENFILE: 'The host has too many open files. Raise fs.file-max',
  EAGAIN: 'There may be no more processes. Raise the limit of the runtime, such as TasksMax of its unit',
  ENOMEM: 'Memory is short. Free some, or raise the limit of the runtime',
  E2BIG: 'The environment is too long. Shorten CNI_ARGS',
  ETXTBSY: 'It is still being written. Wait until it is installed, and try again',
};

/** Says why an executable could not be started. An error of the plugin itself is left as it is. */
function startError(file: string, error: Error): Error {
  if (error instanceof CniError) return error;
  const problem = startProblems[errnoOf(error) ?? ''] ?? 'Make it an executable file';
  return new NotStartedError(ErrorCode.Internal, `Cannot run plugin "${file}". ${problem}`, error.message);
}

function runOnce(
  file: string,
  stdin: string,
  env: NodeJS.ProcessEnv,
  { signal, warn }: ExecOptions,
): Promise<string> {
  return new Promise((resolve, reject) => {
    // A process group of its own can be ended as a whole.
    const child = spawn(file, [], {
      env,
      stdio: ['pipe', 'pipe', warn ? 'pipe' : 'inherit'],
      detached: signal !== undefined,
    });
    const release = signal && endWith(child, signal);
    const chunks: Buffer[] = [];
    let size = 0;
    let stderr = '';
    const isTooLong = () => size > longestOutputMiB * 2 ** 20;
    // Registered before the streams are touched: if this process has no descriptors left, there are no
    // streams.
    child.on('error', (error) => {
      release?.();
      reject(error);
    });
    child.on('close', (code, deadly) => {
      const wasEnded = release?.() ?? false;
      if (isTooLong()) return reject(tooLongError(file));
      const output = Buffer.concat(chunks).toString('utf8');
      if (code === 0) resolve(output);
      // A plugin that handles the signal may leave just as much behind.
      else if (deadly || wasEnded) reject(killedError(file, deadly, wasEnded, stderr));
      else reject(readError(file, output, `exit code ${code}`, stderr));
    });
    child.stdout?.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (isTooLong()) kill(child, signal !== undefined);
      else chunks.push(chunk);
    });
    if (warn)
      onLines(child.stderr, (text) => {
        stderr = `${stderr}${text}\n`.slice(-keptStderr);
        warn(text);
      });
    child.stdin?.on('error', () => {}); // It may exit without reading everything.
    child.stdin?.end(stdin);
  });
}

/**
 * Ends a child, and what it has started, when a signal is aborted: it is first asked to end, then killed.
 * @returns a function that stops this, and tells whether the child was asked to end.
 */
function endWith(child: ChildProcess, signal: AbortSignal): () => boolean {
  let isAsked = false;
  let timer: NodeJS.Timeout | undefined;
  const end = () => {
    isAsked = true;
    signalGroup(child, 'SIGTERM');
    timer = setTimeout(() => kill(child, true), graceMs);
  };
  if (signal.aborted) timer = setTimeout(end, cleanUpMs);
  else signal.addEventListener('abort', end);
  return () => {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
    return isAsked;
  };
}

/** @param hasGroup whether it has a process group of its own, which is killed as a whole. */
function kill(child: ChildProcess, hasGroup: boolean): void {
  if (hasGroup) signalGroup(child, 'SIGKILL');
  else child.kill('SIGKILL');
  // What it has started may have left the group, and keep the pipes open for ever.
  child.stdout?.destroy();
  child.stderr?.destroy();
}

function signalGroup({ pid }: ChildProcess, name: NodeJS.Signals): void {
  try {
    process.kill(-pid!, name);
  } catch {
    // It has just ended.
  }
}

/** Passes on the text of a stream in whole lines, but a very long one in pieces. */
function onLines(stream: Readable | null, take: (text: string) => void): void {
  let partial = '';
  stream
    ?.setEncoding('utf8')
    .on('data', (text: string) => {
      const end = text.lastIndexOf('\n');
      if (end >= 0) take(partial + text.slice(0, end));
      partial = (end < 0 ? partial : '') + text.slice(end + 1);
      if (partial.length <= longestLine) return;
      take(partial);
      partial = '';
    })
    .on('end', () => partial && take(partial));
}

function tooLongError(file: string): KilledError {
  return new KilledError(
    ErrorCode.Internal,
    `Plugin "${file}" printed more than ${longestOutputMiB} MiB, and was killed. Replace it by one that prints nothing but a CNI result`,
  );
}

function killedError(
  file: string,
  deadly: NodeJS.Signals | null,
  byUs: boolean,
  stderr: string,
): KilledError {
  return new KilledError(
    ErrorCode.Internal,
    byUs
      ? `Plugin "${file}" had not ended when the runtime gave up, and was stopped with ${deadly ?? 'SIGTERM'}. Find out what it waits for`
      : `Plugin "${file}" was killed by ${deadly} before it answered. Find out what sent that signal: the kernel does when memory is short`,
    stderr.trim() || undefined,
  );
}

/**
 * The error of an executable that failed.
 * @param output what it printed.
 * @param how as in "exit code 1".
 * @param stderr the end of what it wrote to standard error, if that is known.
 */
export function readError(file: string, output: string, how: string, stderr = ''): CniError {
  try {
    const value: unknown = JSON.parse(output);
    if (isObject(value) && Number.isSafeInteger(value.code))
      return new CniError(
        value.code as number,
        (typeof value.msg === 'string' && value.msg) || `Plugin "${file}" failed, and does not say why`,
        typeof value.details === 'string' ? value.details : undefined,
      );
  } catch {
    // Not an error object: reported below.
  }
  return new CniError(
    ErrorCode.Internal,
    `Plugin "${file}" failed with ${how}${output || stderr ? ' and printed no CNI error' : ' and printed nothing'}`,
    `${output.slice(0, 500)}\n${stderr}`.trim() || undefined,
  );
}
