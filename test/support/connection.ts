/** TCP connections that last as long as a test, to see whether they go on. */

import { once } from 'node:events';
import { join } from 'node:path';
import type { Namespace, Teardown } from './host.ts';

const talk = join(import.meta.dirname, 'talk.ts');

/** Starts a server of such connections; it runs until the test ends. */
export async function serveLines(t: Teardown, ns: Namespace, port: number): Promise<void> {
  await ns.start(t, [process.execPath, talk, 'serve', String(port)]);
}

/**
 * Connects to {@link serveLines}.
 * @returns says something over this connection, and gives the answer: the peer as the server sees it, and what
 *   was said.
 */
export async function converse(
  t: Teardown,
  ns: Namespace,
  address: string,
  port: number,
): Promise<(text: string) => Promise<string>> {
  const child = await ns.start(t, [process.execPath, talk, 'connect', address, String(port)]);
  return async (text) => {
    const answer = once(child.stdout!, 'data');
    child.stdin!.write(`${text}\n`);
    const [line] = (await answer) as [Buffer];
    return line.toString().trim();
  };
}
