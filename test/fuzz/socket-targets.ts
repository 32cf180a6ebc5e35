/** What others say on the sockets of the agent and of the DHCP daemon. */

import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { type CallServer, serve } from '../../agent/connection.ts';
import { waitForEnd } from '../../agent/pipe.ts';
import { frameHeaderSize } from '../../agent/protocol.ts';
import { Statistics } from '../../agent/statistics.ts';
import { runDaemon } from '../../ipam/dhcp/daemon.ts';
import { groupCommits } from '../../lib/group-commit.ts';
import { plugins, requireAnswer, requireNoStack, withoutEffects } from './calls.ts';
import { agentOffer } from './samples.ts';
import type { Target } from './target.ts';

const idlePlugins = new Map(
  plugins.map(withoutEffects).map((plugin) => [plugin.name, async () => ({ plugin })]),
);

/** An agent that takes every call. */
const agent: CallServer = {
  plugins: idlePlugins,
  program: process.execPath,
  sharing: { waitForEnd, together: groupCommits() },
  accepts: ({ name }) => idlePlugins.has(name),
  statistics: new Statistics(),
  keepAlive: (work) => work(),
  schedule: async (_offer, _gone, call) => await call(0),
  observers: [],
  status: () => ({}),
  record: () => {},
};

/** Says something on a socket. @returns what comes back until the other side hangs up. */
async function say(path: string, input: Uint8Array): Promise<Buffer> {
  const pieces: Buffer[] = [];
  const client = connect({ path, allowHalfOpen: true })
    .on('error', () => {})
    .on('data', (piece: Buffer) => pieces.push(piece));
  const closed = once(client, 'close');
  client.write(input, () => setTimeout(() => client.end(), 2));
  client.on('end', () => client.end());
  await closed;
  return Buffer.concat(pieces);
}

/** Does something, and checks that no stack trace is written to standard error meanwhile. */
export function withoutStack<T>(work: () => Promise<T>): Promise<T> {
  return withoutOutput([process.stderr], work);
}

/** As {@link withoutStack}, for what writes to standard output as well, which is checked too. */
export function quietly<T>(work: () => Promise<T>): Promise<T> {
  return withoutOutput([process.stdout, process.stderr], work);
}

async function withoutOutput<T>(streams: readonly NodeJS.WriteStream[], work: () => Promise<T>): Promise<T> {
  let text = '';
  const writers = streams.map(({ write }) => write);
  for (const stream of streams)
    stream.write = ((chunk: string) => {
      text += chunk;
      return true;
    }) as typeof stream.write;
  try {
    return await work();
  } finally {
    for (const [i, stream] of streams.entries()) stream.write = writers[i]!;
    requireNoStack(text);
  }
}

/** @throws Error when an agent's answer is not made of frames, or a result in one is no answer of CNI. */
function requireFrames(answer: Buffer): void {
  const start = answer[0] === 'Y'.charCodeAt(0) ? 1 : 0;
  for (let at = start; at < answer.length; ) {
    const type = String.fromCharCode(answer[at]!);
    const length = answer.readUInt32LE(at + 2);
    if (!'EHR'.includes(type)) throw new Error(`Not a frame: ${answer.toString('base64', at)}`);
    const text = answer.toString('utf8', at + frameHeaderSize, at + frameHeaderSize + length);
    requireNoStack(text);
    if (type === 'R') requireAnswer(text, answer[at + 1]!);
    at += frameHeaderSize + length;
  }
}

/** Runs the DHCP daemon during some work. It ends by a signal to this process, which is faked here. */
export async function withDaemon(
  socket: string,
  work: () => Promise<void>,
  options: readonly string[] = [],
): Promise<void> {
  const before = new Set(process.listeners('SIGTERM'));
  const foreign = process.listeners('SIGINT');
  let ended = false;
  const running = runDaemon(['-socketpath', socket, ...options]).finally(() => {
    ended = true;
  });
  const own = () => process.listeners('SIGTERM').find((listener) => !before.has(listener));
  try {
    while (!own() && !ended) await new Promise((resolve) => setTimeout(resolve, 1));
    if (!ended) await work();
  } finally {
    const stop = own();
    if (stop) {
      stop('SIGTERM');
      process.off('SIGTERM', stop);
    }
    for (const listener of process.listeners('SIGINT'))
      if (!foreign.includes(listener)) process.off('SIGINT', listener);
  }
  await running;
}

const owner = { network: 'n', containerId: 'c', ifname: 'e', netns: '/none-such' };

export const socketTargets: readonly Target[] = [
  {
    name: 'agent-socket',
    samples: [agentOffer, agentOffer.subarray(0, 80)],
    async run(input, directory) {
      const server = createServer({ allowHalfOpen: true }, (connection) => void serve(connection, agent));
      await once(server.listen(join(directory, 'socket')), 'listening');
      try {
        requireFrames(await withoutStack(() => say(join(directory, 'socket'), input)));
      } finally {
        server.close();
      }
    },
  },
  {
    name: 'dhcp-socket',
    samples: [
      { method: 'ping' },
      { method: 'collect', network: 'n', keep: ['c'] },
      ...['allocate', 'release', 'check'].map((method) => ({ method, owner, config: {}, args: {} })),
    ].map((request) => `${JSON.stringify(request)}\n`),
    async run(input, directory) {
      const socket = join(directory, 'socket');
      await withoutStack(() =>
        withDaemon(socket, async () => {
          const reply = (await say(socket, input)).toString('utf8').trim();
          if (reply === '' && !input.includes('\n')) return;
          const { result, error } = JSON.parse(reply) as { result?: unknown; error?: unknown };
          if (error) requireAnswer(JSON.stringify(error), 1);
          else if (typeof result === 'string') throw new Error(`Not a reply: ${reply}`);
          const alive = (await say(socket, Buffer.from('{"method":"ping"}\n'))).toString('utf8').trim();
          if (alive !== '{}') throw new Error(`The daemon no longer answers: ${alive}`);
        }),
      );
    },
  },
];
