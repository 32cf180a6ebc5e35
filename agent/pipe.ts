/** Waiting for the end of a pipe without blocking the thread. */

import { Socket } from 'node:net';
import type { PipeWatch } from '../lib/kernel/sharing.ts';

/** Implements {@link WaitForEnd}: to Node.js, a pipe is a stream, whose end it reports. */
export function waitForEnd(pipe: number): PipeWatch {
  const stream = new Socket({ fd: pipe, readable: true, writable: false });
  const ended = new Promise<void>((resolve) => {
    stream.on('error', () => {}).on('close', () => resolve());
  });
  stream.resume().unref();
  return { ended, stop: () => void stream.destroy() };
}
