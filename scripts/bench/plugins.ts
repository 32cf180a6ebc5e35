/** Each verb of each plugin: the last plugin of a chain is measured, the others provide what it needs. */

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  addChain,
  addNamespace,
  call,
  contenders,
  delChain,
  directories,
  type Network,
  type PluginConf,
  removeNamespace,
  supports,
} from './call.ts';
import { clear, podNetwork, subnet } from './host.ts';
import { longChain } from './life.ts';
import { alternate, emptySamples, type Line, type Scenario } from './scenario.ts';

const ipam = { type: 'host-local', subnet };
const [bridge, portmap] = podNetwork().plugins as [PluginConf, PluginConf];
const [, , firewall, bandwidth, tuning] = longChain().plugins as PluginConf[];

/** A plugin, after those that it needs before it. */
interface Subject {
  chain: PluginConf[];
  /** Kind of interface that the kernel must support. */
  kind?: string;
  /** Verbs that version 1.1.1 of the reference plugins cannot do here, besides STATUS and GC. */
  without?: readonly string[];
}

const subjects: Subject[] = [
  { chain: [bridge] },
  { chain: [{ type: 'ptp', ipMasq: true, ipam }] },
  { chain: [{ type: 'macvlan', master: 'wire', ipam }], kind: 'macvlan' },
  { chain: [{ type: 'ipvlan', master: 'wire', ipam }], kind: 'ipvlan' },
  { chain: [{ type: 'vlan', master: 'wire', vlanId: 5, ipam }], kind: 'vlan' },
  { chain: [{ type: 'host-device', device: 'wired', ipam }] },
  { chain: [{ type: 'tap', ipam }] },
  { chain: [{ type: 'dummy', ipam }], kind: 'dummy' },
  { chain: [{ type: 'loopback' }] },
  { chain: [{ type: 'bridge', ipam: { type: 'static', addresses: [{ address: '10.78.0.5/16' }] } }] },
  // Its CHECK looks for IPv6 rules even for a container that has only IPv4.
  { chain: [bridge, portmap], without: ['CHECK'] },
  { chain: [bridge, firewall!] },
  { chain: [bridge, bandwidth!] },
  { chain: [bridge, tuning!] },
  { chain: [{ type: 'ptp', ipam }, { type: 'sbr' }] },
  { chain: [bridge, { type: 'vrf', vrfname: 'red' }], kind: 'vrf' },
];

/** Every plugin that this kernel can run. */
export function eachPlugin(rounds: number): Scenario[] {
  return subjects.map(({ chain, kind, without = [] }) => ({
    name: `plugin ${labelOf(chain)}`,
    async measure() {
      if (kind && !kernelHas(kind)) {
        console.log(`plugin ${labelOf(chain)}: this kernel has no interfaces of kind "${kind}"`);
        return [];
      }
      prepare();
      const lines = await measurePlugin(chain, rounds, without);
      execFileSync('ip', ['link', 'del', 'wire']);
      clear();
      return lines;
    },
  }));
}

async function measurePlugin(
  chain: PluginConf[],
  rounds: number,
  without: readonly string[],
): Promise<Line[]> {
  const network: Network = { name: 'bench', plugins: chain };
  const plugin = chain.at(-1)!;
  const there = contenders.filter((contender) => existsSync(join(directories[contender], plugin.type)));
  const [add, check, del] = [emptySamples(), emptySamples(), emptySamples()];
  const [status, gc] = [emptySamples(), emptySamples()];
  const lacking = (await supports('reference', '1.1.0')) ? [] : [...without, 'STATUS', 'GC'];
  await alternate(
    rounds,
    async (contender, round, counts) => {
      if (!there.includes(contender)) return;
      const pod = { ...addNamespace(), containerId: `round${round}${contender}` };
      const { times, attached } = await addChain(network, contender, pod);
      const foreign = contender === 'reference' ? lacking : [];
      const once = async (command: string, samples: typeof add, keys: object) => {
        if (foreign.includes(command)) return;
        const config = { name: network.name, ...plugin, ...keys };
        const { time } = await call(plugin.type, { contender, command, ...pod }, config);
        if (counts) samples[contender].push(time);
      };
      await once('CHECK', check, { prevResult: attached.result });
      await once('STATUS', status, { cniVersion: '1.1.0' });
      const deleted = await delChain(network, contender, attached);
      await once('GC', gc, { cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] });
      removeNamespace(pod.name);
      if (!counts) return;
      add[contender].push(times.at(-1)!);
      del[contender].push(deleted.at(-1)!);
    },
    { warmUp: 1, seconds: 6 },
  );
  return Object.entries({ ADD: add, CHECK: check, DEL: del, STATUS: status, GC: gc }).map(
    ([verb, samples]) => ({ name: `plugin ${labelOf(chain)}: ${verb}`, unit: 'ms', samples }),
  );
}

/** An uplink with something at its other end, and a bridge. */
function prepare(): void {
  execFileSync('ip', ['-batch', '-'], {
    input:
      'link add wire type veth peer name wired\nlink set wire up\nlink set wired up\nlink add cni0 type bridge',
  });
}

function kernelHas(kind: string): boolean {
  const parent = ['macvlan', 'ipvlan', 'vlan'].includes(kind);
  if (parent) execFileSync('ip', ['link', 'add', 'probe0', 'type', 'veth', 'peer', 'name', 'probe1']);
  const extra = kind === 'vlan' ? ['id', '5'] : kind === 'vrf' ? ['table', '5'] : [];
  const { status } = spawnSync('ip', [
    ...['link', 'add', 'probe', ...(parent ? ['link', 'probe0'] : []), 'type', kind],
    ...extra,
  ]);
  if (status === 0) execFileSync('ip', ['link', 'del', 'probe']);
  if (parent) execFileSync('ip', ['link', 'del', 'probe0']);
  return status === 0;
}

/** The plugin's name, or "bridge with static" where the IPAM plugin is the one that matters. */
function labelOf(chain: readonly PluginConf[]): string {
  const { type, ipam: own } = chain.at(-1)! as PluginConf & { ipam?: PluginConf };
  return own && own.type !== 'host-local' ? `${type} with ${own.type}` : type;
}
