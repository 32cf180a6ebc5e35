/** Plugins that the reference suite lacks: only this suite is measured, with its agent and without. */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { Namespace } from '../../test/support/host.ts';
import { OpenVswitch } from '../../test/support/open-vswitch.ts';
import {
  type Attached,
  addChain,
  addNamespace,
  type Contender,
  delChain,
  type Network,
  type PluginConf,
  removeNamespace,
} from './call.ts';
import { clear, liveOnce, networksDir, podNetwork, subnet } from './host.ts';
import type { Samples } from './measure.ts';
import { alternate, emptySamples, type Line, type Scenario, sum } from './scenario.ts';

const ipam = { type: 'host-local', subnet };
const ovs: Network = { name: 'bench', plugins: [{ type: 'ovs', bridge: 'br1', vlan: 100, ipam }] };
const [bridge] = podNetwork().plugins as [PluginConf];
const second: PluginConf = { type: 'ptp', ipam: { type: 'host-local', subnet: '10.78.0.0/16' } };

/** ADD and DEL of a pod on a network of Open vSwitch, by the number of ports that the bridge has. */
export function openVswitch(ports: readonly number[], rounds: number): Scenario {
  return {
    name: 'ovs',
    async measure() {
      const endings: (() => void | Promise<void>)[] = [];
      const here = new Namespace([]);
      await OpenVswitch.start({ teardown: (step) => void endings.push(step) }, here);
      const pods: Pod[] = [];
      const lines: Line[] = [];
      for (const count of ports) {
        while (pods.length < count) pods.push(await addPod(ovs, pods.length));
        lines.push(...(await measureVerbs(`ovs, ${count} ports`, ovs, rounds)));
        lines.push(await measureAddPort(`ovs, ${count} ports: ovs-vsctl add-port alone`, here, rounds));
      }
      for (const pod of pods) await delPod(ovs, pod);
      for (const end of endings) await end();
      rmSync('/var/lib/cni/networks', { recursive: true });
      return lines;
    },
  };
}

/** What Open vSwitch itself takes to add a port for an interface that was just made. */
async function measureAddPort(name: string, host: Namespace, rounds: number): Promise<Line> {
  const samples = emptySamples();
  for (let i = 0; i < rounds; i++) {
    await host.run(['ip', 'link', 'add', 'single', 'up', 'type', 'veth', 'peer', 'name', 'peer']);
    const start = performance.now();
    await host.run(['ovs-vsctl', 'add-port', 'br1', 'single']);
    samples.alone.push(performance.now() - start);
    await host.run(['ovs-vsctl', 'del-port', 'br1', 'single']);
    await host.run(['ip', 'link', 'delete', 'single']);
  }
  return { name, unit: 'ms', samples };
}

/** ADD and DEL of a pod's entry in a name server. @param others how many other pods dnsmasq knows. */
export function dnsname(others: number, rounds: number): Scenario {
  return {
    name: 'dnsname',
    async measure() {
      const network = { name: 'bench', plugins: [bridge, { type: 'dnsname', domainName: 'bench.test' }] };
      const pods: Pod[] = [];
      while (pods.length < others) pods.push(await addPod(network, pods.length));
      const lines = await measureVerbs(`dnsname, ${others} other pods`, network, rounds);
      for (const pod of pods) await delPod(network, pod);
      clear();
      return lines;
    },
  };
}

/** What a second network costs a pod, besides what its own plugin takes. */
export function multus(rounds: number): Scenario {
  return {
    name: 'multus',
    async measure() {
      mkdirSync(networksDir, { recursive: true });
      const file = { cniVersion: '1.0.0', name: 'second', plugins: [second] };
      writeFileSync(`${networksDir}/second.conflist`, JSON.stringify(file));
      const first = { cniVersion: '1.0.0', name: 'first', plugins: [bridge] };
      const several = { type: 'multus', delegates: [first], confDir: networksDir };
      const networks = {
        'multus, one network': several,
        'multus, two networks': { ...several, defaultNetworks: ['second'] },
        "multus, the second network's plugin alone": second,
      };
      const lines = Object.keys(networks).map((name) => ({
        add: { name: `${name}: ADD`, unit: 'ms', samples: emptySamples() },
        del: { name: `${name}: DEL`, unit: 'ms', samples: emptySamples() },
      }));
      await withoutReference(rounds, async (contender, round, counts) => {
        for (const [i, plugin] of Object.values(networks).entries()) {
          const network = { name: 'bench', plugins: [plugin] };
          const { added, deleted } = await liveOnce(network, contender, `round${round}${contender}`);
          if (!counts) continue;
          lines[i]!.add.samples[contender].push(sum(added));
          lines[i]!.del.samples[contender].push(sum(deleted));
        }
      });
      rmSync(networksDir, { recursive: true });
      clear();
      return lines.flatMap(({ add, del }) => [add, del]);
    },
  };
}

interface Pod {
  readonly name: string;
  readonly attached: Attached;
}

async function addPod(network: Network, number: number): Promise<Pod> {
  const { name, netns } = addNamespace();
  const { attached } = await addChain(network, 'agent', { containerId: `other${number}`, netns });
  return { name, attached };
}

async function delPod(network: Network, { name, attached }: Pod): Promise<void> {
  await delChain(network, 'agent', attached);
  removeNamespace(name);
}

/** ADD and DEL of the last plugin of a chain. */
async function measureVerbs(label: string, network: Network, rounds: number): Promise<Line[]> {
  const [add, del]: [Samples, Samples] = [emptySamples(), emptySamples()];
  await withoutReference(rounds, async (contender, round, counts) => {
    const { added, deleted } = await liveOnce(network, contender, `round${round}${contender}`);
    if (!counts) return;
    add[contender].push(added.at(-1)!);
    del[contender].push(deleted.at(-1)!);
  });
  return Object.entries({ ADD: add, DEL: del }).map(([verb, samples]) => ({
    ...{ name: `${label}: ${verb}`, unit: 'ms', samples },
  }));
}

function withoutReference(
  rounds: number,
  once: (contender: Contender, round: number, counts: boolean) => Promise<void>,
): Promise<void> {
  return alternate(rounds, async (contender, round, counts) => {
    if (contender !== 'reference') await once(contender, round, counts);
  });
}
