/**
 * `cni probe-helper`: the process that `cni probe` starts in a network namespace. Each line of its standard
 * input is a task as JSON, and it answers each with a line.
 */

import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { errnoOf } from '../../lib/file.ts';
import { Address } from '../../lib/ip.ts';
import { echo } from '../../lib/kernel/echo.ts';
import { readSysctl } from '../../lib/kernel/sysctl.ts';
import { isKernelError } from '../../lib/netlink/libc.ts';
import type { Subcommand } from '../subcommand.ts';

/** How long to wait for an answer, in milliseconds. */
const patienceMs = 1500;
/** How often to try what a single lost packet may cause to fail. */
const tries = 2;

/** What a helper can be asked to do. */
export type Task =
  | { readonly kind: 'ping'; readonly address: string; readonly bytes?: number; readonly whole?: boolean }
  | { readonly kind: 'listen'; readonly protocol: Protocol; readonly port: number; readonly greeting: string }
  /** Without a greeting, it is enough that somebody accepts the connection. */
  | {
      readonly kind: 'connect';
      readonly protocol: Protocol;
      readonly address: string;
      readonly port: number;
      readonly greeting?: string;
    }
  | { readonly kind: 'resolve'; readonly server: string; readonly name: string };

export type Protocol = 'tcp' | 'udp';

/** How a task went. After "listen", the detail is the port. */
export interface Answer {
  readonly ok: boolean;
  readonly detail: string;
}

export const probeHelper: Subcommand = {
  handler: async () => {
    for await (const line of createInterface({ input: process.stdin }))
      process.stdout.write(`${JSON.stringify(await attempt(JSON.parse(line) as Task))}\n`);
    process.exit();
  },
};

async function attempt(task: Task): Promise<Answer> {
  try {
    if (task.kind === 'ping') return ping(task);
    if (task.kind === 'listen') return await listen(task);
    if (task.kind === 'resolve') return await resolve(task);
    let answer: Answer = failed('');
    for (let i = 0; i < tries && !answer.ok; i++)
      answer = await (task.protocol === 'tcp' ? connectTcp(task) : connectUdp(task));
    return answer;
  } catch (error) {
    return failed((error as Error).message);
  }
}

function failed(detail: string): Answer {
  return { ok: false, detail };
}

type TaskOf<K extends Task['kind']> = Extract<Task, { kind: K }>;

function ping({ address, bytes, whole = false }: TaskOf<'ping'>): Answer {
  const to = Address.parse(address);
  for (let i = 0; i < tries; i++) {
    try {
      const milliseconds = echo(to, {
        timeoutMs: patienceMs,
        dontFragment: whole,
        ...(bytes !== undefined && { bytes }),
      });
      if (milliseconds !== undefined) return { ok: true, detail: `${milliseconds.toFixed(1)} ms` };
    } catch (error) {
      if (isKernelError(error, 'EMSGSIZE'))
        return failed('a router on the way takes no packets of that size');
      throw error;
    }
  }
  return failed(`no answer within ${patienceMs} ms, asked ${tries} times`);
}

/** Detail of the answer when somebody else already listens there. */
export const portTaken = 'taken';

/** Listens until the process ends, on a free port if `port` is 0. Whoever connects is greeted. */
async function listen({ protocol, port, greeting }: TaskOf<'listen'>): Promise<Answer> {
  try {
    const bound = protocol === 'tcp' ? await listenTcp(port, greeting) : await listenUdp(port, greeting);
    return { ok: true, detail: `${bound}` };
  } catch (error) {
    return failed(errnoOf(error) === 'EADDRINUSE' ? portTaken : (error as Error).message);
  }
}

async function listenTcp(port: number, greeting: string): Promise<number> {
  const server = createServer((socket) => socket.on('error', () => {}).end(greeting));
  await once(server.listen(port), 'listening');
  return (server.address() as { port: number }).port;
}

async function listenUdp(port: number, greeting: string): Promise<number> {
  // A kernel or a namespace without IPv6 has only IPv4.
  const hasIPv6 = readSysctl(['ipv6', 'conf', 'all', 'disable_ipv6']) === '0';
  const socket = createSocket(hasIPv6 ? 'udp6' : 'udp4');
  socket.on('message', (_, sender) => socket.send(greeting, sender.port, sender.address));
  socket.bind(port);
  await once(socket, 'listening');
  return socket.address().port;
}

/**
 * Gives up when it has waited long enough, but not before what has arrived meanwhile is seen: the process may
 * have been without a processor.
 */
function whenLate(giveUp: () => void): NodeJS.Timeout {
  return setTimeout(() => setImmediate(giveUp), patienceMs);
}

function connectTcp({ address, port, greeting }: TaskOf<'connect'>): Promise<Answer> {
  return new Promise((settle) => {
    let heard = '';
    const finish = (answer: Answer) => {
      clearTimeout(timer);
      socket.destroy();
      settle(answer);
    };
    const socket = connect(port, address);
    const timer = whenLate(() =>
      finish(
        failed(
          socket.connecting
            ? `no answer within ${patienceMs} ms`
            : 'the connection was taken, and nothing came',
        ),
      ),
    );
    const isRight = () => greeting === undefined || heard === greeting;
    const refused = () => failed('another program than the one that was meant has answered');
    socket.on('connect', () => greeting === undefined && finish({ ok: true, detail: '' }));
    socket.on('data', (part) => {
      heard += part;
    });
    socket.on('end', () => finish(isRight() ? { ok: true, detail: '' } : refused()));
    socket.on('error', (error) => finish(failed(reasons[errnoOf(error) ?? ''] ?? error.message)));
  });
}

const reasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset',
  EHOSTUNREACH: 'no route to it, or nobody has the address',
  ENETUNREACH: 'no route to it',
};

async function connectUdp({ address, port, greeting }: TaskOf<'connect'>): Promise<Answer> {
  const socket: UdpSocket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  try {
    return await new Promise<Answer>((settle) => {
      const timer = whenLate(() => settle(failed(`no answer within ${patienceMs} ms`)));
      socket.on('error', (error) => settle(failed(error.message)));
      socket.on('message', (text) => {
        clearTimeout(timer);
        const ok = text.toString() === greeting;
        settle({ ok, detail: ok ? '' : 'another program than the one that was meant has answered' });
      });
      socket.send('probe', port, address);
    });
  } finally {
    socket.close();
  }
}

/** Any answer counts, except that the server cannot do its work. Source: RFC 1035, section 4.1.1. */
async function resolve({ server, name }: TaskOf<'resolve'>): Promise<Answer> {
  const resolver = new Resolver({ timeout: patienceMs, tries });
  resolver.setServers([server.includes(':') ? `[${server}]` : server]);
  try {
    const [address] = await resolver.resolve4(name);
    return { ok: true, detail: `${name} is ${address}` };
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'ENOTFOUND' || code === 'ENODATA')
      return { ok: true, detail: `it answers, and knows no address of ${name}` };
    return failed(dnsReasons[code ?? ''] ?? (error as Error).message);
  }
}

const dnsReasons: Readonly<Record<string, string>> = {
  ETIMEOUT: 'no answer',
  ECONNREFUSED: 'nobody listens on port 53',
  ESERVFAIL: 'the server answers that it failed (SERVFAIL)',
  EREFUSED: 'the server answers that it refuses (REFUSED)',
};
