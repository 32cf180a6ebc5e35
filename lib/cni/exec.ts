/**
 * Running another plugin's executable. Apart from delegate.ts, so that only those who need it load
 * child_process.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { CniError, ErrorCode } from '../errors.ts';
import { isObject } from '../object.ts';

/**
 * An executable that is just being replaced cannot be run for a moment; the reference library waits five
 * seconds.
 */
const busyPauses = [50, 200, 750, 1000, 3000];

/** How long an executable may take to end once it is asked to, in milliseconds. */
const graceMs = 2000;
/**
 * How long one may run that is started when nobody waits any more, to take something back, in milliseconds.
 */
const cleanUpMs = 30_000;

/** An executable was killed. What it had done by then is not known. */
export class KilledError extends CniError {
  override readonly name = 'KilledError';
}

/**
 * Runs a plugin's executable to its end. Its standard error goes to ours.
 * @param file path of the executable.
 * @param stdin what it reads.
 * @param env its whole environment.
 * @param signal aborted when nobody waits for it any more: then it is ended, with all that it has started.
 * @returns what it printed.
 * @throws CniError the error it printed, or one that says how it failed; KilledError.
 */
export async function runExecutable(
  file: string,
  stdin: string,
  env: NodeJS.ProcessEnv,
  signal?: AbortSignal,
): Promise<string> {
  for (const pause of busyPauses) {
    try {
      return await runOnce(file, stdin, env, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ETXTBSY') throw error;
      await sleep(pause);
    }
  }
  return await runOnce(file, stdin, env, signal);
}

function runOnce(
  file: string,
  stdin: string,
  env: NodeJS.ProcessEnv,
  signal: AbortSignal | undefined,
): Promise<string> {
  return new Promise((resolve, reject) => {
    // A process group of its own can be ended as a whole.
    const child = spawn(file, [], {
      env,
      stdio: ['pipe', 'pipe', 'inherit'],
      detached: signal !== undefined,
    });
    const release = signal && endWith(child, signal);
    const chunks: Buffer[] = [];
    // Registered before the streams are touched: if the process has no descriptors left, there are none.
    child.on('error', (error: NodeJS.ErrnoException) => {
      release?.();
      reject(
        error.code === 'ETXTBSY'
          ? error
          : new CniError(
              ErrorCode.Internal,
              `Cannot run plugin "${file}". Make it an executable file`,
              error.message,
            ),
      );
    });
    child.on('close', (code, deadly) => {
      const wasEnded = release?.() ?? false;
      const output = Buffer.concat(chunks).toString('utf8');
      if (code === 0) resolve(output);
      else if (deadly) reject(killedError(file, deadly, wasEnded));
      else reject(readError(file, output, `exit code ${code}`));
    });
    child.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.stdin?.on('error', () => {}); // It may exit without reading everything.
    child.stdin?.end(stdin);
  });
}

/**
 * Ends a child, and what it has started, when a signal is aborted: first it is asked to, then it is killed.
 * @returns stops that, and tells whether the child was asked to end.
 */
function endWith(child: ChildProcess, signal: AbortSignal): () => boolean {
  let isAsked = false;
  let timer: NodeJS.Timeout | undefined;
  const send = (name: NodeJS.Signals) => {
    try {
      process.kill(-child.pid!, name);
    } catch {
      // It has just ended.
    }
  };
  const end = () => {
    isAsked = true;
    send('SIGTERM');
    timer = setTimeout(() => {
      send('SIGKILL');
      // A process that has left the group may keep the pipe open for ever.
      child.stdout?.destroy();
    }, graceMs);
  };
  if (signal.aborted) timer = setTimeout(end, cleanUpMs);
  else signal.addEventListener('abort', end);
  return () => {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
    return isAsked;
  };
}

function killedError(file: string, deadly: NodeJS.Signals, byUs: boolean): KilledError {
  return new KilledError(
    ErrorCode.Internal,
    byUs
      ? `Plugin "${file}" had not ended when the runtime gave up, and was stopped with ${deadly}. Find out what it waits for`
      : `Plugin "${file}" was killed by ${deadly} before it answered. Find out what sent that signal: the kernel does when memory is short`,
  );
}

/** The error of an executable that failed. @param how as in "exit code 1". */
export function readError(file: string, output: string, how: string): CniError {
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
    `Plugin "${file}" failed with ${how}${output ? ' and printed no CNI error' : ' and printed nothing'}`,
    output.slice(0, 500) || undefined,
  );
}
