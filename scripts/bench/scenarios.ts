/** What is measured. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import {
  masqueradeChain,
  masqueradeComment,
  portMapChain,
  portMapComment,
} from '../../lib/firewall/names.ts';
import { Address } from '../../lib/ip.ts';
import {
  type Attached,
  addChain,
  addNamespace,
  bothSuites,
  call,
  delChain,
  type Network,
  removeNamespace,
  runChainAsync,
  type Suite,
} from './call.ts';
import type { Samples } from './measure.ts';

/** Something to measure, which gives one line of the table or several. */
export interface Scenario {
  name: string;
  unit: string;
  measure(): Promise<({ name: string } & Samples)[]> | ({ name: string } & Samples)[];
}

const warmUp = 2;

/** Everything, in the order of the table. @param quick with fewer calls. */
export function scenarios(quick: boolean): Scenario[] {
  const rounds = quick ? 7 : 21;
  return [
    {
      name: 'VERSION',
      unit: 'ms',
      measure: () => [
        {
          name: 'VERSION',
          ...alternate(rounds, (suite) => call('bridge', { suite, command: 'VERSION' }, {}).time),
        },
      ],
    },
    ...(quick ? [10, 20_000] : [10, 1000, 20_000, 60_000]).map((count) => hostLocal(count, rounds)),
    ...(quick ? [0, 1000] : [0, 200, 1000]).map((pods) =>
      life(`life, ${pods} pods present`, podNetwork(), pods, rounds),
    ),
    life('chain of six', longChain(), 0, quick ? 5 : 11),
    ...(quick ? [] : [legacy(() => life('life, iptables-legacy', podNetwork(), 0, 11))]),
    ...simplePlugins(quick ? 5 : 11),
    atOnce(quick ? 16 : 64),
    collection(quick ? 100 : 1000),
  ];
}

/** Calls both suites in turn, after a few calls that do not count. */
function alternate(rounds: number, once: (suite: Suite) => number): Samples {
  const samples = { ours: [] as number[], reference: [] as number[] };
  for (let round = -warmUp; round < rounds; round++)
    for (const suite of bothSuites) {
      const time = once(suite);
      if (round >= 0) samples[suite].push(time);
    }
  return samples;
}

/** One IPAM verb at a time, on a node where many addresses are reserved. */
function hostLocal(count: number, rounds: number): Scenario {
  const name = `host-local, ${count.toLocaleString('en')} reserved`;
  return {
    name,
    unit: 'ms',
    measure() {
      const add: Samples & { reference: number[] } = { ours: [], reference: [] };
      const del: Samples & { reference: number[] } = { ours: [], reference: [] };
      const config = (suite: Suite) => ({
        name: 'bench',
        type: 'host-local',
        ipam: { type: 'host-local', dataDir: `/var/lib/cni/bench-${suite}`, subnet: '10.0.0.0/8' },
      });
      for (const suite of bothSuites) reserve(`/var/lib/cni/bench-${suite}/bench`, count);
      for (let round = -warmUp; round < rounds; round++)
        for (const suite of bothSuites) {
          const verb = { suite, containerId: `round${round + warmUp}`, netns: '/unused' };
          const added = call('host-local', { ...verb, command: 'ADD' }, config(suite)).time;
          const deleted = call('host-local', { ...verb, command: 'DEL' }, config(suite)).time;
          if (round < 0) continue;
          add[suite].push(added);
          del[suite].push(deleted);
        }
      for (const suite of bothSuites) rmSync(`/var/lib/cni/bench-${suite}`, { recursive: true });
      return [
        { name: `${name}: ADD`, ...add },
        { name: `${name}: DEL`, ...del },
      ];
    },
  };
}

function reserve(directory: string, count: number): void {
  mkdirSync(directory, { recursive: true });
  const first = Address.parse('10.0.0.2');
  for (let i = 0; i < count; i++) writeFileSync(`${directory}/${first.plus(i)}`, `present${i}\r\neth0`);
  writeFileSync(`${directory}/last_reserved_ip.0`, `${first.plus(count - 1)}`);
}

const subnet = '10.77.0.0/16';

/** What a node's pods have: a bridge with masquerading, and two ports of the node. */
function podNetwork(): Network {
  return {
    name: 'bench',
    plugins: [
      {
        type: 'bridge',
        bridge: 'cni0',
        isGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: { type: 'host-local', subnet, routes: [{ dst: '0.0.0.0/0' }] },
      },
      {
        type: 'portmap',
        runtimeConfig: {
          portMappings: [
            { hostPort: 18080, containerPort: 80, protocol: 'tcp' },
            { hostPort: 18443, containerPort: 443, protocol: 'tcp' },
          ],
        },
      },
    ],
  };
}

function longChain(): Network {
  const network = podNetwork();
  return {
    ...network,
    plugins: [
      ...network.plugins,
      { type: 'firewall', backend: 'iptables' },
      {
        type: 'bandwidth',
        ingressRate: 8_000_000,
        ingressBurst: 800_000,
        egressRate: 8_000_000,
        egressBurst: 800_000,
      },
      { type: 'tuning', sysctl: { 'net.ipv4.conf.all.log_martians': '1' } },
    ],
  };
}

/** A pod's life on a chain: ADD and DEL of each plugin, of the chain, and both together. */
function life(name: string, network: Network, pods: number, rounds: number): Scenario {
  return {
    name,
    unit: 'ms',
    measure() {
      const labels = network.plugins.map(({ type }) => type);
      const empty = (): Samples & { reference: number[] } => ({ ours: [], reference: [] });
      const add = labels.map(empty);
      const del = labels.map(empty);
      const [addAll, delAll, whole] = [empty(), empty(), empty()];
      // The first pod makes what all share; then the others come.
      once(network, 'reference', 0);
      populate(pods);
      for (let round = -warmUp; round < rounds; round++)
        for (const suite of bothSuites) {
          const { added, deleted } = once(network, suite, round);
          if (round < 0) continue;
          for (const i of labels.keys()) {
            add[i]![suite].push(added[i]!);
            del[i]![suite].push(deleted[i]!);
          }
          addAll[suite].push(sum(added));
          delAll[suite].push(sum(deleted));
          whole[suite].push(sum(added) + sum(deleted));
        }
      clear();
      return [
        ...labels.flatMap((label, i) => [
          { name: `${name}: ${label} ADD`, ...add[i]! },
          { name: `${name}: ${label} DEL`, ...del[i]! },
        ]),
        { name: `${name}: chain ADD`, ...addAll },
        { name: `${name}: chain DEL`, ...delAll },
        { name: `${name}: whole life`, ...whole },
      ];
    },
  };
}

function once(network: Network, suite: Suite, round: number): { added: number[]; deleted: number[] } {
  const { name, netns } = addNamespace();
  const { times, attached } = addChain(network, suite, `bench${round + warmUp}${suite}`, netns);
  const deleted = delChain(network, suite, attached);
  removeNamespace(name);
  return { added: times, deleted };
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);

/** Other pods of the node: their rules with two ports each, their reservations, and their ports on the bridge. */
function populate(pods: number): void {
  if (pods === 0) return;
  const first = Address.parse('10.77.128.0');
  const lines = ['*nat'];
  const links: string[] = [];
  for (let i = 0; i < pods; i++) {
    const owner = { network: 'bench', containerId: `present${i}` };
    const [masq, dn, ip] = [masqueradeChain(owner), portMapChain(owner), first.plus(i)];
    const quoted = (text: string) => `-m comment --comment "${text.replaceAll('"', '\\"')}"`;
    const ports = [20000 + 2 * i, 20001 + 2 * i];
    lines.push(
      `-N ${masq}`,
      `-A ${masq} -d ${subnet} -j ACCEPT ${quoted(masqueradeComment(owner))}`,
      `-A ${masq} ! -d 224.0.0.0/4 -j MASQUERADE ${quoted(masqueradeComment(owner))}`,
      `-A POSTROUTING -s ${ip}/32 -j ${masq} ${quoted(masqueradeComment(owner))}`,
      `-N ${dn}`,
      ...ports.flatMap((port) => [
        `-A ${dn} -p tcp --dport ${port} -s ${ip}/16 -j CNI-HOSTPORT-SETMARK`,
        `-A ${dn} -p tcp --dport ${port} -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK`,
        `-A ${dn} -p tcp --dport ${port} -j DNAT --to-destination ${ip}:80`,
      ]),
      `-A CNI-HOSTPORT-DNAT ${quoted(portMapComment(owner))} -p tcp -m multiport --destination-ports ${ports.join(',')} -j ${dn}`,
    );
    links.push(`link add name p${i} up master cni0 type veth peer name q${i}`);
    writeFileSync(`/var/lib/cni/networks/bench/${ip}`, `present${i}\r\neth0`);
  }
  execFileSync('iptables-restore', ['--noflush'], { input: `${lines.join('\n')}\nCOMMIT\n` });
  // A bridge takes 1,023 ports, and the pod that is measured is one more.
  execFileSync('ip', ['-batch', '-'], { input: links.slice(0, 1000).join('\n') });
}

function clear(): void {
  for (const table of ['nat', 'filter']) {
    execFileSync('iptables', ['-t', table, '-F']);
    execFileSync('iptables', ['-t', table, '-X']);
  }
  const links = execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' }).match(/(?<=: )p\d+(?=@)/g) ?? [];
  execFileSync('ip', ['-batch', '-'], {
    input: [...links, 'cni0'].map((name) => `link del ${name}`).join('\n'),
  });
  rmSync('/var/lib/cni/networks', { recursive: true, force: true });
}

/** Runs a scenario with iptables-legacy in the place of iptables. */
function legacy(make: () => Scenario): Scenario {
  const scenario = make();
  const link = (variant: string) =>
    execFileSync('mount', ['--bind', `/usr/sbin/xtables-${variant}-multi`, '/usr/sbin/xtables-nft-multi']);
  return {
    ...scenario,
    measure() {
      link('legacy');
      try {
        return scenario.measure();
      } finally {
        execFileSync('umount', ['/usr/sbin/xtables-nft-multi']);
      }
    },
  };
}

/** Other plugins that this kernel can run, each with its ADD and DEL: the last one of its chain is measured. */
function simplePlugins(rounds: number): Scenario[] {
  const ipam = { type: 'host-local', subnet };
  const networks: Network[] = [
    { name: 'bench', plugins: [{ type: 'ptp', ipMasq: true, ipam }] },
    { name: 'bench', plugins: [{ type: 'macvlan', master: 'wire', ipam }] },
    { name: 'bench', plugins: [{ type: 'host-device', device: 'wired', ipam }] },
    { name: 'bench', plugins: [{ type: 'ptp', ipam }, { type: 'sbr' }] },
    {
      name: 'bench',
      plugins: [{ type: 'bridge', ipam: { type: 'static', addresses: [{ address: '10.78.0.5/16' }] } }],
    },
    { name: 'bench', plugins: [{ type: 'loopback' }] },
  ];
  return networks.map((network) => ({
    name: labelOf(network),
    unit: 'ms',
    measure() {
      execFileSync('ip', ['-batch', '-'], {
        input:
          'link add wire type veth peer name wired\nlink set wire up\nlink set wired up\nlink add cni0 type bridge',
      });
      const type = labelOf(network);
      const add: Samples & { reference: number[] } = { ours: [], reference: [] };
      const del: Samples & { reference: number[] } = { ours: [], reference: [] };
      for (let round = -warmUp; round < rounds; round++)
        for (const suite of bothSuites) {
          const { added, deleted } = once(network, suite, round);
          if (round < 0) continue;
          add[suite].push(added.at(-1)!);
          del[suite].push(deleted.at(-1)!);
        }
      execFileSync('ip', ['link', 'del', 'wire']);
      clear();
      return [
        { name: `${type}: ADD`, ...add },
        { name: `${type}: DEL`, ...del },
      ];
    },
  }));
}

/** "bridge with static" where the IPAM plugin is what makes the difference. */
function labelOf({ plugins }: Network): string {
  const { type, ipam } = plugins.at(-1)! as { type: string; ipam?: { type: string } };
  return ipam && ipam.type !== 'host-local' ? `${type} with ${ipam.type}` : type;
}

/** Many pods at once: how many come and go in a second. */
function atOnce(count: number): Scenario {
  const network = podNetwork();
  network.plugins = network.plugins.slice(0, 1);
  return {
    name: `${count} at once`,
    unit: '/s',
    async measure() {
      const add: Samples & { reference: number[] } = { ours: [], reference: [], rate: true };
      const del: Samples & { reference: number[] } = { ours: [], reference: [], rate: true };
      for (let round = 0; round < 3; round++)
        for (const suite of bothSuites) {
          const containers = Array.from({ length: count }, (_, i) => ({
            ...addNamespace(),
            containerId: `at-once-${i}`,
          }));
          const timed = async (work: () => Promise<unknown>) => {
            const start = performance.now();
            await work();
            return count / ((performance.now() - start) / 1000);
          };
          const attached: Attached[] = [];
          add[suite].push(
            await timed(() =>
              Promise.all(
                containers.map(async ({ containerId, netns }) => {
                  const result = await runChainAsync(network, 'ADD', suite, { containerId, netns });
                  attached.push({ containerId, netns, result: result! });
                }),
              ),
            ),
          );
          del[suite].push(
            await timed(() => Promise.all(attached.map((one) => runChainAsync(network, 'DEL', suite, one)))),
          );
          for (const { name } of containers) removeNamespace(name);
        }
      clear();
      return [
        { name: `${count} at once: ADD`, ...add },
        { name: `${count} at once: DEL`, ...del },
      ];
    },
  };
}

/** GC, which the reference has not: there a runtime can only DEL what is stale, one by one. */
function collection(count: number): Scenario {
  const name = `GC of ${count.toLocaleString('en')}, half stale`;
  return {
    name,
    unit: 'ms',
    measure() {
      const network = podNetwork();
      once(network, 'ours', 0);
      populate(count);
      const valid = Array.from({ length: count / 2 }, (_, i) => ({
        containerID: `present${i}`,
        ifname: 'eth0',
      }));
      const ours = network.plugins
        .toReversed()
        .reduce(
          (total, plugin) =>
            total +
            call(
              plugin.type,
              { suite: 'ours', command: 'GC' },
              { name: network.name, ...plugin, 'cni.dev/valid-attachments': valid },
            ).time,
          0,
        );
      const left =
        execFileSync('iptables-save', ['-t', 'nat'], { encoding: 'utf8' }).match(/^:CNI-[0-9a-f]{24} /gm) ??
        [];
      if (left.length !== count / 2) throw new Error(`GC left ${left.length} of ${count / 2} chains`);
      clear();
      once(network, 'reference', 0);
      populate(count);
      // A few of them tell what all would take.
      const sample = Math.min(5, count / 2);
      const start = performance.now();
      for (let i = 0; i < sample; i++)
        delChain(network, 'reference', {
          containerId: `present${i}`,
          netns: '',
          result: { cniVersion: '1.0.0', ips: [{ address: `10.77.128.${i}/16` }] },
        });
      const reference = ((performance.now() - start) / sample) * (count / 2);
      clear();
      return [{ name, ours: [ours], reference: [reference] }];
    },
  };
}
