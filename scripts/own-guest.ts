/** A kernel of their own for programs that try out what the running one may lack. */

import { Guest, guestDirectory } from '../test/support/guest.ts';

/** Whether the program runs in a guest already. */
export const isInGuest = guestDirectory !== undefined;

/** In seconds. */
const longestRun = 12 * 60 * 60;

/**
 * Starts the running program again, with the same arguments, in a guest that sees the same files, and shows
 * what it prints. This process ends with the exit code of that one; 1 when the guest ended without one.
 */
export async function continueInGuest(): Promise<never> {
  const guest = new Guest();
  let shown = 0;
  const show = () => {
    const output = guest.read('output');
    process.stdout.write(output.slice(shown));
    shown = output.length;
  };
  const timer = setInterval(show, 1000);
  const program = [process.execPath, '--no-warnings', ...process.argv.slice(1)];
  await guest.run(['env', `PATH=${process.env.PATH}`, ...program], longestRun);
  clearInterval(timer);
  show();
  const status = guest.read('status').trim();
  if (status === '') console.error(`The guest ended early: ${guest.read('console').slice(-2000)}`);
  guest.remove();
  process.exit(status === '' ? 1 : Number(status));
}
