/**
 * Standard input and output of a plugin's process, whatever a runtime connects them to: files, pipes,
 * blocking or not.
 */

import { readSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { CniError, ErrorCode } from '../errors.ts';

/** How long a full pipe may stay full before its reader is taken to hang, in milliseconds. */
const writeTimeoutMs = 10_000;

/** How much is read at once, in bytes: what a pipe holds. */
const chunkBytes = 65536;

/** Reads standard input to its end. @throws CniError IOFailure */
export async function readStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  try {
    for (let more = true; more; ) {
      const chunk = Buffer.allocUnsafe(chunkBytes);
      const length = readSync(0, chunk);
      chunks.push(chunk.subarray(0, length));
      more = length > 0;
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN')
      throw new CniError(
        ErrorCode.IOFailure,
        'Cannot read the network configuration from standard input',
        String(error),
      );
    // A non-blocking pipe with nothing in it at the moment.
    for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/**
 * Writes to standard output, all of it before it returns.
 * @throws Error when the reader is gone, or does not read within ten seconds.
 */
export async function writeStdout(text: string): Promise<void> {
  const bytes = Buffer.from(text);
  const deadline = performance.now() + writeTimeoutMs;
  for (let sent = 0; sent < bytes.length; ) {
    try {
      sent += writeSync(1, bytes, sent);
    } catch (error) {
      // A non-blocking pipe that is full.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || performance.now() > deadline) throw error;
      await sleep(1);
    }
  }
}
