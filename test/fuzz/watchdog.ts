/** Ends this process when an input keeps its only thread busy or waiting for ever, and says which one. */

import { writeSync } from 'node:fs';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';

/** In milliseconds. Far above what any target may take, even on a busy machine. */
const longestHang = 120_000;

let worker: Worker | undefined;

/** Watches over what follows, until it is called again. @param what is being tried; undefined for nothing. */
export function watch(what: string | undefined): void {
  if (!worker) {
    worker = new Worker(new URL(import.meta.url));
    worker.unref();
  }
  worker.postMessage(what);
}

if (!isMainThread) {
  let timer: NodeJS.Timeout | undefined;
  parentPort?.on('message', (what: string | undefined) => {
    clearTimeout(timer);
    if (what === undefined) return;
    timer = setTimeout(() => {
      writeSync(2, `No answer within ${longestHang / 1000} seconds: ${what}\n`);
      process.kill(process.pid, 'SIGKILL');
    }, longestHang);
  });
}
