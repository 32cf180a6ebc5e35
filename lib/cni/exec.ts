/**
 * Running another plugin's executable. Apart from delegate.ts, so that only those who need it load
 * child_process.
 */

import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { CniError, ErrorCode } from '../errors.ts';
import { isObject } from './schema.ts';

/**
 * An executable that is just being replaced cannot be run for a moment; the reference library waits five
 * seconds.
 */
const busyPauses = [50, 200, 750, 1000, 3000];

/**
 * Runs a plugin's executable to its end. Its standard error goes to ours.
 * @param file path of the executable.
 * @param stdin what it reads.
 * @param env its whole environment.
 * @returns what it printed.
 * @throws CniError the error it printed, or one that says how it failed.
 */
export async function runExecutable(file: string, stdin: string, env: NodeJS.ProcessEnv): Promise<string> {
  for (const pause of busyPauses) {
    try {
      return await runOnce(file, stdin, env);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ETXTBSY') throw error;
      await sleep(pause);
    }
  }
  return await runOnce(file, stdin, env);
}

function runOnce(file: string, stdin: string, env: NodeJS.ProcessEnv): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, [], { env, stdio: ['pipe', 'pipe', 'inherit'] });
    const chunks: Buffer[] = [];
    // First, and the streams with care: without descriptors left there are none.
    child.on('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'ETXTBSY'
          ? error
          : new CniError(
              ErrorCode.Internal,
              `Cannot run plugin "${file}". Make it an executable file`,
              error.message,
            ),
      ),
    );
    child.on('close', (code, signal) => {
      const output = Buffer.concat(chunks).toString('utf8');
      if (code === 0) resolve(output);
      else reject(readError(file, output, signal ? `signal ${signal}` : `exit code ${code}`));
    });
    child.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.stdin?.on('error', () => {}); // It may exit without reading everything.
    child.stdin?.end(stdin);
  });
}

function readError(file: string, output: string, how: string): CniError {
  try {
    const value: unknown = JSON.parse(output);
    if (isObject(value) && typeof value.code === 'number')
      return new CniError(
        value.code,
        typeof value.msg === 'string' ? value.msg : '',
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
