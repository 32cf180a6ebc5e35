/** Waiting for the end of a pipe without blocking the thread. */

import { Socket } from 'node:net';
import type { PipeWatch } from '../lib/kernel/sharing.ts';

/** What {@link WaitForEnd} asks for: a pipe is a stream to Node.js, which tells of its end. */
export function waitForEnd(pipe: number): PipeWatch {
  const stream = new Socket({ fd: pipe, readable: true, writable: false });
  const ended = new Promise<void>((resolve) => {
    stream.on('error', () => {}).on('close', () => resolve());
  });
  stream.resume().unref();
  return { ended, stop: () => void stream.destroy() };
}
