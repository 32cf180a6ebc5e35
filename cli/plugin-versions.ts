/** Which versions of the specification a plugin supports, according to the plugin itself. */

import { spawnSync } from 'node:child_process';
import { isObject } from '../lib/object.ts';

/** How long a plugin may take to answer, in milliseconds. */
const patienceMs = 30_000;

/** @returns the versions that a plugin supports, or what is wrong with it. */
export function versionsOf(file: string): string[] | string {
  const { stdout, error, status, signal } = spawnSync(file, [], {
    env: { PATH: process.env.PATH, CNI_COMMAND: 'VERSION' },
    encoding: 'utf8',
    input: '{"cniVersion":"0.4.0"}',
    timeout: patienceMs,
    killSignal: 'SIGKILL',
  });
  // A plugin that answers without reading its input may have ended before the input is written.
  if (error && (error as NodeJS.ErrnoException).code !== 'EPIPE') return error.message;
  try {
    const answer: unknown = JSON.parse(stdout);
    if (isObject(answer) && Array.isArray(answer.supportedVersions))
      return answer.supportedVersions.map(String);
  } catch {
    // Reported below.
  }
  return `exit code ${status ?? signal}, and it printed: ${stdout.slice(0, 200).trim() || 'nothing'}`;
}
