/** Runs a program, with all that it starts, for a limited time. */

import { spawn } from 'node:child_process';

/** How a program ended. */
export interface Ended {
  readonly passed: boolean;
  readonly output: string;
  /** Seconds that it took. */
  readonly elapsed: number;
}

/**
 * Runs a program. If it takes longer than `seconds`, it is killed with its process group, and has failed. It
 * is also killed if it still runs when this process ends.
 */
export function run(
  [program, ...args]: readonly [string, ...string[]],
  { seconds, ...options }: { cwd: string; env: NodeJS.ProcessEnv; seconds: number },
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const child = spawn(program, args, { ...options, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        output += chunk.toString();
      });
    const kill = () => {
      try {
        process.kill(-child.pid!, 'SIGKILL');
      } catch {
        // It has ended, but a process of another group still holds its output.
      }
    };
    const timer = setTimeout(kill, seconds * 1000);
    process.prependListener('exit', kill);
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      process.off('exit', kill);
      resolve({ passed: code === 0, output, elapsed: (performance.now() - start) / 1000 });
    });
  });
}
