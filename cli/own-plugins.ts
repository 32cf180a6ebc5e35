/**
 * Runs plugins of this suite within the command's own process: it is the same executable, which saves a start
 * of Node.js for each call. Only for verbs that change nothing: what these calls see of the host is shared.
 */

import { waitForEnd } from '../agent/pipe.ts';
import { readLaunch } from '../launcher/launch.ts';
import { isSameProgram } from '../lib/cni/delegate.ts';
import { readError, runExecutable } from '../lib/cni/exec.ts';
import { runPlugin } from '../lib/cni/runner.ts';
import { ErrorCode } from '../lib/errors.ts';
import { groupCommits } from '../lib/group-commit.ts';
import type { Once } from '../lib/kernel/sharing.ts';
import { finderIn, type PluginTable, type Suite } from '../main.ts';
import { type Execute, NoAnswerError } from './libcni/chain.ts';

/** How long a plugin may take to answer, in milliseconds. CHECK of a whole chain takes about ten. */
const patienceMs = 10_000;

let ownPlugins: PluginTable = new Map();

/** Called by the command's entry point with the plugins that the executable holds. */
export function setOwnPlugins({ plugins, ipam }: Suite): void {
  ownPlugins = new Map([...plugins, ...ipam]);
}

/** Whether a file is a plugin of this executable. @param once shares what is seen. */
export function isOwnPlugin(file: string, once: Once): boolean {
  return once(`own ${file}`, () => isSameProgram(file, readLaunch(process.argv).program));
}

/**
 * Runs plugins for one look at the host: those of this suite within this process, where they share what they
 * see, others as children. An executable that once failed to answer is not run again.
 * @param once shares what is seen between the calls, and with others that look at the host.
 */
export function lookingPlugins(once: Once): Execute {
  const { program } = readLaunch(process.argv);
  const sharing = { waitForEnd, together: groupCommits(), once };
  const silent = new Set<string>();
  return async (file, stdin, environment) => {
    const name = file.slice(file.lastIndexOf('/') + 1);
    if (silent.has(file)) throw silentError(file);
    const load = isOwnPlugin(file, once) ? ownPlugins.get(name) : undefined;
    const timer = new AbortController();
    const timeout = setTimeout(() => timer.abort(), patienceMs);
    const { signal } = timer;
    try {
      if (!load) return await runExecutable(file, stdin, environment, { signal });
      const { plugin } = await load();
      let answer = '';
      const caller = {
        program,
        environment,
        sharing,
        signal,
        warn: () => {}, // What does not make CHECK fail is of no interest here.
        readStdin: async () => stdin,
        print: async (text: string) => {
          answer = text;
        },
      };
      const call = runPlugin(plugin, caller, finderIn(ownPlugins));
      const code = await Promise.race([call, aborted(signal)]);
      if (code !== 0) throw readError(file, answer, `exit code ${code}`);
      return answer;
    } catch (error) {
      if (!signal.aborted) throw error;
      silent.add(file);
      throw silentError(file);
    } finally {
      clearTimeout(timeout);
    }
  };
}

/** Never resolves. @throws when the signal is aborted. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(new Error('No answer')), { once: true });
  });
}

function silentError(file: string): NoAnswerError {
  return new NoAnswerError(
    ErrorCode.TryAgainLater,
    `"${file}" did not answer within ${patienceMs / 1000} seconds. Find out what it waits for`,
  );
}
