/** `cni agent`: the process that does the plugins' calls without a start of its own for each. */

import { basename, dirname } from 'node:path';
import type { CommandModule } from 'yargs';
import { Agent, defaultSocket } from '../agent/agent.ts';
import { privatePrefix, readLaunch } from '../launcher/launch.ts';
import type { Suite } from '../main.ts';
import { note } from './terminal.ts';

interface AgentArguments {
  socket: string;
  concurrency: number;
  'idle-timeout': number;
}

/** The subcommand. @param suite the plugins that it serves. */
export function agent(suite: Suite): CommandModule<object, AgentArguments> {
  return {
    command: 'agent',
    describe: 'Serve the plugins from one process that stays',
    builder: (yargs) =>
      yargs
        .option('socket', {
          type: 'string',
          default: defaultSocket,
          requiresArg: true,
          describe: 'Unix socket to listen on; plugins look for the default one only',
        })
        .option('concurrency', {
          type: 'number',
          default: 64,
          requiresArg: true,
          describe: 'How many calls may be under way at once; the rest wait in order',
        })
        .option('idle-timeout', {
          type: 'number',
          default: 0,
          requiresArg: true,
          describe: 'End after this many seconds without a call; 0 for never',
        })
        .example('$0 agent', 'Serve until SIGTERM'),
    handler: async ({ socket, concurrency, 'idle-timeout': idleTimeout }) => {
      const running = new Agent({
        socket,
        plugins: new Map([...suite.plugins, ...suite.ipam]),
        program: readLaunch(process.argv).program,
        build: basename(dirname(process.execPath)).slice(privatePrefix.length),
        concurrency,
        idleTimeoutMs: idleTimeout * 1000,
      });
      const ended = new Promise<void>((resolve) => {
        running.onEnd = resolve;
      });
      await running.listen();
      note(`Listening on "${socket}"`);
      for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => running.stop());
      await ended;
    },
  };
}
