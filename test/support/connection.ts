/** TCP connections that last as long as a test, to see whether they survive. */

import { once } from 'node:events';
import { join } from 'node:path';
import type { Namespace, Teardown } from './host.ts';

/** How long an answer may take, in milliseconds: far longer than TCP takes to retransmit lost packets. */
const patienceMs = 30_000;

const talk = join(import.meta.dirname, 'talk.ts');

/** Starts a server for such connections; it runs until the test ends. */
export async function serveLines(t: Teardown, ns: Namespace, port: number): Promise<void> {
  await ns.start(t, [process.execPath, talk, 'serve', String(port)]);
}

/**
 * Connects to {@link serveLines}.
 * @returns a function that says something over this connection, and resolves to the answer: the peer as the
 *   server sees it, and what was said.
 */
export async function converse(
  t: Teardown,
  ns: Namespace,
  address: string,
  port: number,
): Promise<(text: string) => Promise<string>> {
  const child = await ns.start(t, [process.execPath, talk, 'connect', address, String(port)]);
  return async (text) => {
    const answer = once(child.stdout!, 'data', { signal: AbortSignal.timeout(patienceMs) });
    child.stdin!.write(`${text}\n`);
    try {
      const [line] = (await answer) as [Buffer];
      return line.toString().trim();
    } catch (error) {
      throw new Error(`No answer to "${text}" from ${address} port ${port}`, { cause: error });
    }
  };
}

/**
 * Whether a new connection is answered.
 * @param patience in milliseconds.
 */
export async function answers(
  ns: Namespace,
  address: string,
  port: number,
  patience = patienceMs,
): Promise<boolean> {
  const argv = [process.execPath, talk, 'connect', address, String(port)];
  const { stdout } = await ns.tryRun(argv, { stdin: 'hello\n', timeout: patience });
  return stdout.includes('hello');
}
