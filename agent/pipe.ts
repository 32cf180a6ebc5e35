/** Waiting for the end of a pipe without blocking the thread. */

import { Socket } from 'node:net';

/** What {@link WaitForEnd} asks for: a pipe is a stream to Node.js, which tells of its end. */
export function waitForEnd(pipe: number): Promise<void> {
  return new Promise((resolve) => {
    const stream = new Socket({ fd: pipe, readable: true, writable: false });
    stream.on('error', () => {}).on('close', () => resolve());
    stream.resume().unref();
  });
}
