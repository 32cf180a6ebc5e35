/** The machines of the cluster: the one with the control plane and the nodes, on one wire. */

import { readFileSync } from 'node:fs';
import { makeNode, type Node } from '../../test/runtimes/support/node.ts';
import { type Host, makeHost, type Teardown } from '../../test/support/host.ts';
import { until } from '../../test/support/observe.ts';

/** A machine with its name and its address on the wire. */
export interface Machine {
  readonly name: string;
  readonly address: string;
  readonly node: Node;
}

/** Where the machines are, an address range for documentation (RFC 5737). */
const wire = { prefix: 24, outside: '192.0.2.1' };

/**
 * Makes the wire: a bridge in a host, which also plays everything outside the cluster. It knows the addresses
 * of the machines, but not those of pods and Services.
 */
export async function makeWire(t: Teardown): Promise<Host> {
  const outside = await makeHost(t);
  await outside.run(['ip', 'link', 'add', 'wire', 'up', 'type', 'bridge']);
  await outside.run(['ip', 'address', 'add', `${wire.outside}/${wire.prefix}`, 'dev', 'wire']);
  return outside;
}

/** Makes a machine on the wire, with process IDs, control groups and state directories of its own. */
export async function makeMachine(
  t: Teardown,
  outside: Host,
  name: string,
  address: string,
): Promise<Machine> {
  const node = await makeNode(t);
  const peer = ['peer', 'name', 'eth0', 'netns', String(node.pid)];
  await outside.run(['ip', 'link', 'add', name, 'up', 'master', 'wire', 'type', 'veth', ...peer]);
  await node.run(['ip', 'address', 'add', `${address}/${wire.prefix}`, 'dev', 'eth0']);
  await node.run(['ip', 'link', 'set', 'eth0', 'up']);
  await node.run(['ip', 'route', 'add', 'default', 'via', wire.outside]);
  await node.run(['sh', '-c', ownDirectories]);
  return { name, address, node };
}

/** Where programs of Kubernetes keep state; /run and /var/lib/cni are private already. */
const ownDirectories = `set -e
  mkdir -p /var/lib/kubelet /run/daemons
  for directory in /opt /var/lib/kubelet /var/log; do mount -t tmpfs -o mode=755 tmpfs $directory; done`;

const log = (name: string) => `/run/daemons/${name}.log`;

/** Starts a program that runs as long as its machine. Its output goes to /run/daemons/NAME.log. */
export async function startDaemon({ node }: Machine, name: string, argv: readonly string[]): Promise<void> {
  const script = `mkdir -p /run/daemons; "$@" >> ${log(name)} 2>&1 < /dev/null & echo $!`;
  const pid = await node.run(['sh', '-c', script, 'sh', ...argv], { env: { HOME: '/run' } });
  node.write(`/run/daemons/${name}.pid`, pid);
}

/**
 * Waits until a daemon is ready.
 * @throws Error with the end of the daemon's output, when it ended or is not ready within a minute.
 */
export async function untilReady(
  machine: Machine,
  name: string,
  isReady: () => Promise<boolean>,
): Promise<void> {
  const pid = readFileSync(machine.node.file(`/run/daemons/${name}.pid`), 'utf8').trim();
  const { node } = machine;
  const lastWords = () =>
    readFileSync(node.file(log(name)), 'utf8')
      .split('\n')
      .slice(-20)
      .join('\n');
  try {
    await until(`${name} is ready on ${machine.name}`, async () => {
      if ((await node.tryRun(['kill', '-0', pid])).exit !== 0) throw new Error(`${name} has ended`);
      return isReady();
    });
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${lastWords()}`);
  }
}

/** True if a program on a machine succeeds. */
export async function succeeds({ node }: Machine, argv: readonly string[]): Promise<boolean> {
  return (await node.tryRun(argv)).exit === 0;
}
