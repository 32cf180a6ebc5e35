/** The data path: the throughput of iperf3 from pod to pod, and from outside through a host port. */

import { execFileSync, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { addChain, addNamespace, type Contender, delChain, removeNamespace } from './call.ts';
import { clear, podNetwork } from './host.ts';
import { alternate, emptySamples, type Scenario } from './scenario.ts';

const seconds = 1;
const hostPort = 18080;

/** TCP throughput, which should be the same for all: the kernel forwards, not the plugins. */
export function dataPath(rounds: number): Scenario {
  return {
    name: 'data path',
    async measure() {
      const [pods, port] = [emptySamples(), emptySamples()];
      const outside = addOutside();
      await alternate(
        rounds,
        async (contender) => {
          const { direct, mapped } = await transfer(contender, outside);
          pods[contender].push(direct);
          port[contender].push(mapped);
        },
        { warmUp: 0 },
      );
      removeNamespace(outside);
      clear();
      return [
        { name: 'data path: pod to pod', unit: 'Gbit/s', samples: pods },
        { name: 'data path: outside to a host port', unit: 'Gbit/s', samples: port },
      ];
    },
  };
}

/** Adds a machine next to the host. @returns its namespace. */
function addOutside(): string {
  const { name } = addNamespace();
  for (const command of [
    `link add uplink up type veth peer name eth0 netns ${name}`,
    'address add 192.0.2.1/24 dev uplink',
    `-n ${name} address add 192.0.2.2/24 dev eth0`,
    `-n ${name} link set eth0 up`,
  ])
    execFileSync('ip', command.split(' '));
  return name;
}

async function transfer(contender: Contender, outside: string): Promise<{ direct: number; mapped: number }> {
  const network = podNetwork(hostPort);
  const [server, client] = [addNamespace(), addNamespace()];
  const { attached: served } = await addChain(network, contender, { containerId: 'server', ...server });
  const bridgeOnly = { ...network, plugins: network.plugins.slice(0, 1) };
  const { attached: asked } = await addChain(bridgeOnly, contender, { containerId: 'client', ...client });
  const { ips } = served.result as { ips: { address: string }[] };
  const address = ips[0]!.address.split('/')[0]!;
  const iperf = spawn('ip', ['netns', 'exec', server.name, 'iperf3', '--server', '--port', '80'], {
    stdio: 'ignore',
  });
  // It says nothing when it is ready.
  await sleep(300);
  const direct = measure(client.name, address, 80);
  const mapped = measure(outside, '192.0.2.1', hostPort);
  iperf.kill();
  await delChain(bridgeOnly, contender, asked);
  await delChain(network, contender, served);
  for (const { name } of [server, client]) removeNamespace(name);
  return { direct, mapped };
}

/** @returns what arrives, in Gbit/s. */
function measure(from: string, address: string, port: number): number {
  const output = execFileSync(
    'ip',
    ['netns', 'exec', from, 'iperf3', '--json', '--time', String(seconds), '-c', address, '-p', String(port)],
    { encoding: 'utf8' },
  );
  const { end } = JSON.parse(output) as { end: { sum_received: { bits_per_second: number } } };
  return end.sum_received.bits_per_second / 1e9;
}
