/** `cni agent status`: what the agent of this host has done. */

import { connect } from 'node:net';
import { defaultSocket } from '../agent/agent.ts';
import type { OverlayStatus } from '../agent/overlay/host.ts';
import { frameHeaderSize, statusRequest } from '../agent/protocol.ts';
import type { AgentStatus } from '../agent/statistics.ts';
import { errnoOf } from '../lib/file.ts';
import { isObject } from '../lib/object.ts';
import { CommandError } from './errors.ts';
import { withFormat } from './format.ts';
import type { Subcommand } from './subcommand.ts';
import { count, formatTable, print } from './terminal.ts';

/** How long to wait for an agent, in milliseconds. */
const patienceMs = 5000;

/** The subcommand. */
export const agentStatus: Subcommand<{ socket: string; format: 'text' | 'json' }> = {
  builder: (yargs) =>
    withFormat(yargs, ['text', 'json'], 'How to print what the agent tells')
      .option('socket', {
        type: 'string',
        default: defaultSocket,
        requiresArg: true,
        describe: 'Socket of the agent',
      })
      .example('$0 agent status', 'Calls, failures and durations'),
  handler: async ({ socket, format }) => {
    const report = await askStatus(socket);
    if (format === 'json') return print(JSON.stringify(report, null, 2));
    const { pid, build, priority, uptimeSeconds, running, queued, refused, memoryMiB, calls, overlay } =
      report;
    print(
      `Process ${pid} of build ${build}, up for ${uptimeSeconds} s, priority ${priority}, ${memoryMiB} MiB resident.`,
    );
    print(`${running} under way, ${queued} waiting, ${refused} left to the executable.`);
    if (overlay) print(describeOverlay(overlay));
    print('');
    const rows = calls.map((one) => [
      ...[one.plugin, one.verb, `${one.calls}`, `${one.failures}`],
      ...[one.p50Ms, one.p99Ms].map((milliseconds) => milliseconds.toFixed(1)),
      Object.entries(one.codes)
        .filter(([code]) => code !== '0')
        .map(([code, calls]) => `${code} (${calls})`)
        .join(', '),
    ]);
    const heading = ['PLUGIN', 'VERB', 'CALLS', 'FAILED', 'P50 MS', 'P99 MS', 'ERROR CODES'];
    print(formatTable(heading, rows).join('\n'));
  },
};

function describeOverlay({ problem, backend, subnets, nodes }: OverlayStatus): string {
  const lease =
    subnets.length > 0
      ? `${subnets.join(' and ')}, by ${backend} to ${count(nodes, 'other node')}`
      : 'no subnet yet';
  const [reason] = (problem ?? '').split('\n');
  return `Overlay: ${lease}${reason ? `. Problem: ${reason}` : ''}.`;
}

/** Asks an agent for its statistics. @throws CommandError when none answers. */
export function askStatus(path: string): Promise<AgentStatus> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect(path, () => socket.end(`-\0-\0-\0${statusRequest}\0\0`));
    const fail = (message: string, cause?: Error) => {
      clearTimeout(timer);
      socket.destroy();
      reject(new CommandError(message, { cause }));
    };
    const hangs =
      `The agent on "${path}" does not answer within ${patienceMs / 1000} seconds: it hangs, or is stopped. ` +
      'End it with "systemctl kill --signal=KILL cni-agent.service" or, where systemd did not start it, with ' +
      `"fuser --kill ${path}.lock". Calls under way then get code 11; those that follow are done without it`;
    const timer = setTimeout(() => fail(hangs), patienceMs);
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', (cause) => {
      // The listen backlog is full: the kernel queues no more connections.
      if (errnoOf(cause) === 'EAGAIN') fail(hangs, cause);
      else if (errnoOf(cause) === 'EACCES')
        fail(
          `This user may not ask the agent on "${path}". Run the command as root, for example with "sudo"`,
          cause,
        );
      else fail(`No agent answers on "${path}". Start it with "cni agent"`, cause);
    });
    socket.on('end', () => {
      const report = parseReport(Buffer.concat(chunks).toString('utf8', frameHeaderSize));
      if (!report)
        return fail(`What listens on "${path}" is not an agent. Give the socket of one with --socket`);
      clearTimeout(timer);
      resolve(report);
    });
  });
}

/** @returns undefined when the text is not a status report of this version's agent. */
function parseReport(text: string): AgentStatus | undefined {
  try {
    const report: unknown = JSON.parse(text);
    return isStatus(report) ? report : undefined;
  } catch {
    return undefined;
  }
}

const statusNumbers = ['pid', 'priority', 'uptimeSeconds', 'running', 'queued', 'refused', 'memoryMiB'];

function isStatus(value: unknown): value is AgentStatus {
  if (!isObject(value)) return false;
  const { calls, overlay } = value;
  return (
    typeof value.build === 'string' &&
    statusNumbers.every((key) => typeof value[key] === 'number') &&
    Array.isArray(calls) &&
    calls.every(isVerbStatus) &&
    (overlay === undefined || isOverlayStatus(overlay))
  );
}

function isVerbStatus(value: unknown): boolean {
  return (
    isObject(value) &&
    ['plugin', 'verb'].every((key) => typeof value[key] === 'string') &&
    ['calls', 'failures', 'p50Ms', 'p99Ms'].every((key) => typeof value[key] === 'number') &&
    isObject(value.codes) &&
    Object.values(value.codes).every((count) => typeof count === 'number')
  );
}

function isOverlayStatus(value: unknown): boolean {
  return (
    isObject(value) &&
    Array.isArray(value.subnets) &&
    value.subnets.every((subnet) => typeof subnet === 'string') &&
    typeof value.nodes === 'number' &&
    ['problem', 'backend'].every((key) => ['string', 'undefined'].includes(typeof value[key]))
  );
}
