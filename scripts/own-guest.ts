/** A kernel of their own for programs that try out what the running one may lack. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Guest, guestDirectory } from '../test/support/guest.ts';

/** Whether the program runs in a guest already. */
export const isInGuest = guestDirectory !== undefined;

/** How long a program may run in a guest, in seconds. */
const longestRun = 12 * 60 * 60;

/** How a program in a guest ended. */
export interface GuestRun {
  /** Exit code of the program; 1 when the guest ended without one. */
  readonly exit: number;
  /** What it passed to {@link hand}; undefined when it passed nothing. */
  readonly result: unknown;
}

/**
 * Starts the running program again in a guest that sees the same files, and shows what it prints.
 * @param args besides the program's own; if an option is given twice, the last one counts.
 */
export async function runInGuest(args: readonly string[] = []): Promise<GuestRun> {
  const guest = new Guest();
  let shown = 0;
  const show = () => {
    const output = guest.read('output');
    process.stdout.write(output.slice(shown));
    shown = output.length;
  };
  const timer = setInterval(show, 1000);
  const program = [process.execPath, '--no-warnings', ...process.argv.slice(1), ...args];
  await guest.run(['env', `PATH=${process.env.PATH}`, ...program], longestRun);
  clearInterval(timer);
  show();
  const [status, result] = [guest.read('status').trim(), guest.read('result')];
  if (status === '') console.error(`The guest ended early: ${guest.read('console').slice(-2000)}`);
  guest.remove();
  return {
    exit: status === '' ? 1 : Number(status),
    result: result === '' ? undefined : (JSON.parse(result) as unknown),
  };
}

/** Passes a value out of the guest, for {@link GuestRun}. */
export function hand(result: unknown): void {
  writeFileSync(join(guestDirectory!, 'result'), JSON.stringify(result));
}
