/** How long something took that cannot be blamed on the machine's load. */

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Kinds of things that tasks wait for, of which the kernel tells how long any did. */
const resources = ['cpu', 'io', 'memory'] as const;

/**
 * Begins to measure.
 * @returns a function that tells how long it was since then in milliseconds: by the clock, and of that, how
 *   much must have passed whatever else the machine had to do.
 */
export function stopwatch(): () => { readonly clock: number; readonly own: number } {
  const start = performance.now();
  const waited = pressure();
  return () => {
    const clock = performance.now() - start;
    const busy = waited === undefined ? clock : pressure()! - waited;
    // While others waited, it had a share of the processors at least.
    return { clock, own: Math.max(clock - busy, clock / slowdown()) };
  };
}

/** For how many milliseconds some task waited. Source: Documentation/accounting/psi.rst of the kernel. */
function pressure(): number | undefined {
  try {
    const totals = resources.map((one) =>
      Number(/^some .*total=(\d+)/.exec(readFileSync(`/proc/pressure/${one}`, 'latin1'))?.[1] ?? 0),
    );
    return totals.reduce((sum, microseconds) => sum + microseconds, 0) / 1000;
  } catch {
    return undefined; // The kernel was built without it.
  }
}

/** How many tasks share a processor: within the last minute, or now. Source: proc_loadavg(5). */
function slowdown(): number {
  const [average, , , running = ''] = readFileSync('/proc/loadavg', 'latin1').split(' ');
  return Math.max(1, Math.max(Number(average), Number.parseInt(running, 10)) / availableParallelism());
}
