/** Reading what calls have logged. */

import { existsSync, readFileSync } from 'node:fs';
import type { LogEntry } from '../../lib/cni/log/entry.ts';
import type { Host } from './host.ts';
import { until } from './observe.ts';

/** Where the tests have the log, on a file system of the host's own. */
export const logFile = '/run/cni-log/calls.jsonl';

/**
 * Waits for the entries of a log file on a host: the agent logs a call only after it has answered it.
 * @param count how many are expected.
 * @returns them, oldest first. @throws Error when there are more, or fewer in the end.
 */
export async function logEntries(host: Host, count: number, file = logFile): Promise<LogEntry[]> {
  const path = host.file(file);
  const read = () => (existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(0, -1) : []);
  await until(`${count} lines are in "${file}"`, async () => read().length >= count);
  const lines = read();
  if (lines.length > count) throw new Error(`"${file}" has ${lines.length} lines, not ${count}`);
  return lines.map((line) => JSON.parse(line) as LogEntry);
}
