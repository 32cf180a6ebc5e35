/** Whether the agent, if there is one, answers and is of the installed build. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { defaultSocket } from '../../agent/agent.ts';
import { privatePrefix } from '../../launcher/launch.ts';
import { namesIn } from '../../lib/directory.ts';
import { askStatus } from '../agent-status.ts';
import { CommandError } from '../errors.ts';
import { privateDirectoryOf } from '../install/identity.ts';
import type { Check } from './check.ts';

export const agentState: Check = {
  id: 'agent',
  title: 'Agent',
  async run({ environment: { path } }) {
    if (!existsSync(defaultSocket)) return { findings: [], seen: 'none is in use' };
    const fix = 'systemctl restart cni-agent.service';
    const subject = defaultSocket;
    try {
      const { pid, build, uptimeSeconds } = await askStatus(defaultSocket);
      const installed = path.flatMap(buildsIn);
      const seen = `process ${pid} answers, up for ${uptimeSeconds} s`;
      if (installed.length === 0 || installed.includes(build)) return { findings: [], seen };
      const message = `The agent is of build ${build}, and ${installed.join(', ')} is installed, whose calls it leaves to processes of their own`;
      const cause = 'The plugins were replaced, and the agent was not started again';
      return { findings: [{ severity: 'warning', subject, message, cause, fix }], seen };
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      const cause = 'It has ended and left its socket, or hangs; meanwhile each call starts a process';
      return { findings: [{ severity: 'warning', subject, message: error.message, cause, fix }], seen: '' };
    }
  },
};

/** Digests of the builds that the plugins in a directory start: an earlier installation may be kept. */
function buildsIn(directory: string): string[] {
  const used = namesIn(directory).flatMap((name) => privateDirectoryOf(join(directory, name)) ?? []);
  return [...new Set(used)].map((name) => name.slice(privatePrefix.length));
}
