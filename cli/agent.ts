/** `cni agent`: the process that does the plugins' calls without a start of its own for each. */

import { connect } from 'node:net';
import { basename, dirname } from 'node:path';
import type { CommandModule } from 'yargs';
import { Agent, defaultSocket } from '../agent/agent.ts';
import { frameHeaderSize, statusRequest } from '../agent/protocol.ts';
import type { AgentStatus } from '../agent/statistics.ts';
import { privatePrefix, readLaunch } from '../launcher/launch.ts';
import type { Suite } from '../main.ts';
import { CommandError } from './errors.ts';
import { formatTable, print } from './terminal.ts';

interface AgentArguments {
  socket: string;
  concurrency: number;
  'idle-timeout': number;
}

/** `cni agent status` */
const status: CommandModule<object, { socket: string; json: boolean }> = {
  command: 'status',
  describe: 'Show what the agent of this host has done',
  builder: (yargs) =>
    yargs
      .option('socket', { type: 'string', default: defaultSocket, requiresArg: true, describe: 'Its socket' })
      .option('json', { type: 'boolean', default: false, describe: 'Print it as JSON' })
      .example('$0 agent status', 'Calls, failures and durations'),
  handler: async ({ socket, json }) => {
    const report = await askStatus(socket);
    if (json) return print(JSON.stringify(report, null, 2));
    const { pid, build, uptimeSeconds, running, queued, refused, memoryMiB, calls } = report;
    print(`Process ${pid} of build ${build}, up for ${uptimeSeconds} s, ${memoryMiB} MiB resident.`);
    print(`${running} under way, ${queued} waiting, ${refused} left to the executable.\n`);
    const rows = calls.map((one) => [
      ...[one.plugin, one.verb, `${one.calls}`, `${one.failures}`],
      ...[one.p50Ms, one.p99Ms].map((milliseconds) => milliseconds.toFixed(1)),
    ]);
    print(formatTable(['PLUGIN', 'VERB', 'CALLS', 'FAILED', 'P50 MS', 'P99 MS'], rows).join('\n'));
  },
};

/** Asks an agent for its statistics. @throws CommandError when there is none. */
function askStatus(path: string): Promise<AgentStatus> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect(path, () => socket.end(`-\0-\0-\0${statusRequest}\0\0`));
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', (cause) =>
      reject(new CommandError(`No agent answers on "${path}". Start it with "cni agent"`, { cause })),
    );
    socket.on('end', () => {
      const text = Buffer.concat(chunks).toString('utf8', frameHeaderSize);
      if (text !== '') resolve(JSON.parse(text) as AgentStatus);
      else reject(new CommandError(`What listens on "${path}" is not an agent`));
    });
  });
}

/** The subcommand. @param suite the plugins that it serves. */
export function agent(suite: Suite): CommandModule<object, AgentArguments> {
  return {
    command: 'agent',
    describe: 'Serve the plugins from one process that stays',
    builder: (yargs) =>
      yargs
        .command(status)
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
        .check(({ concurrency }) => {
          if (Number.isInteger(concurrency) && concurrency > 0) return true;
          throw new Error('--concurrency must be a whole number above 0');
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
      print(`Listening on "${socket}"`);
      for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => running.stop());
      await ended;
    },
  };
}
