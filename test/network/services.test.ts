/**
 * Services on top: pods of each network under kube-proxy's rules, in its iptables and its nftables mode. The
 * tables in docs/services.md say what works under which conditions; here that is tried, with this suite and
 * with the reference plugins.
 * Runs once: no agent takes part.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Namespace } from '../support/host.ts';
import { type ProxyMode, proxyModes } from '../support/kube-proxy.ts';
import { askAll, type Echo } from '../support/observe.ts';
import type { Suite } from '../support/plugin.ts';
import {
  firewallTopologies,
  makeServiceNode,
  outsideAddress,
  plainTopologies,
  type Site,
  servicePort,
  type Topologies,
  topologiesOf,
} from '../support/services.ts';

type Target = readonly [address: string, port: number];
type Answers = readonly (Echo | undefined)[];

/** One use of Services. */
interface Way {
  from: 'pod' | 'node' | 'outside';
  /** None where there is nothing to try in this family. */
  targets(site: Site): Target[];
  works(answers: Answers, site: Site): boolean;
}

/** By the names in docs/services.md. */
const ways: Record<string, Way> = {
  'pod → Service → another pod, which sees the first': {
    from: 'pod',
    targets: (site) => [[site.clusterIP('toOther'), servicePort]],
    works: (answers, site) => bySecond(answers, site) && answers[0]!.peer === site.ipOf(site.first),
  },
  'pod → Service → itself': {
    from: 'pod',
    targets: (site) => [[site.clusterIP('toItself'), servicePort]],
    works: ([answer], site) => answer?.label === site.first.pod.containerId,
  },
  'pod → Service → another node': {
    from: 'pod',
    targets: (site) => [[site.clusterIP('remote'), servicePort]],
    works: ([answer]) => answer?.label === 'outside',
  },
  'pod → load balancer or external IP': {
    from: 'pod',
    targets: (site) => [[site.externalIP('toOther'), servicePort]],
    works: bySecond,
  },
  'pod → node port, on every address of the node': { from: 'pod', targets: nodePorts, works: bySecond },
  'node → Service': {
    from: 'node',
    targets: (site) => [[site.clusterIP('toOther'), servicePort]],
    works: bySecond,
  },
  'node → node port, on every address of the node': { from: 'node', targets: nodePorts, works: bySecond },
  'node → node port, on 127.0.0.1': {
    from: 'node',
    targets: (site) => (site.family === 4 ? [['127.0.0.1', site.nodePort('toOther')]] : []),
    works: bySecond,
  },
  'outside → node port, on every address of the node': {
    from: 'outside',
    targets: nodePorts,
    works: bySecond,
  },
  'outside → load balancer or external IP': {
    from: 'outside',
    targets: (site) => times(24, [site.externalIP('toBoth'), servicePort]),
    // By chance alone, one of the two will not get all 24.
    works: (answers, { first, second }) =>
      [first, second].every(({ pod }) => answers.some((answer) => answer?.label === pod.containerId)) &&
      !answers.includes(undefined),
  },
  'outside → `externalTrafficPolicy: Local`: a pod of the node, which sees the client': {
    from: 'outside',
    targets: (site) => [
      ...times(5, [site.externalIP('local'), servicePort]),
      ...times(5, [site.nodeAddresses[0]!, site.nodePort('local')]),
    ],
    works: (answers, site) =>
      bySecond(answers, site) && answers.every((answer) => answer?.peer === outsideAddress(site.family)),
  },
  'outside → `sessionAffinity: ClientIP`: always the same pod': {
    from: 'outside',
    targets: (site) => times(12, [site.externalIP('sticky'), servicePort]),
    works: ([first, ...others]) =>
      first !== undefined && others.every((answer) => answer?.label === first.label),
  },
};

function times(count: number, target: Target): Target[] {
  return Array.from({ length: count }, () => target);
}

function nodePorts(site: Site): Target[] {
  return site.nodeAddresses.map((address) => [address, site.nodePort('toOther')]);
}

function bySecond(answers: Answers, site: Site): boolean {
  return answers.every((answer) => answer?.label === site.second.pod.containerId);
}

/** One table of docs/services.md, and how to reproduce it. */
interface Table {
  heading: string;
  topologies: Topologies;
  /** Conditions, each with the command that brings it about after the ones before it. */
  conditions: readonly (readonly [name: string, command: string])[];
}

const setBridgeCalls = (value: 0 | 1) =>
  `cd /proc/sys/net/bridge && echo ${value} | tee bridge-nf-call-iptables bridge-nf-call-ip6tables`;
const forBoth = (rule: string) => `iptables ${rule} && ip6tables ${rule}`;

const tables: readonly Table[] = [
  {
    heading: 'What works',
    topologies: plainTopologies,
    conditions: [
      ['with br_netfilter', setBridgeCalls(1)],
      ['without br_netfilter', setBridgeCalls(0)],
    ],
  },
  {
    heading: 'Behind a firewall that drops forwarded packets',
    topologies: firewallTopologies,
    conditions: [
      ['without the rule', `${setBridgeCalls(1)} && ${forBoth('-P FORWARD DROP')}`],
      ['with the rule', forBoth('-A CNI-ADMIN -m conntrack --ctstate DNAT -j ACCEPT')],
    ],
  },
];

/** A cell of a table has the outcomes under all conditions, in both modes and over both families. */
interface Outcome {
  way: string;
  topology: string;
  mode: ProxyMode;
  condition: string;
  works: boolean;
}

/** Tries all ways, with one client process for each namespace. */
async function tryAll(
  t: ExecutionContext,
  suite: Suite,
  { topologies, conditions }: Table,
  mode: ProxyMode,
): Promise<Outcome[]> {
  const { host, outside, sites } = await makeServiceNode(t, suite, mode, topologiesOf(suite, topologies));
  const outcomes: Outcome[] = [];
  for (const [condition, command] of conditions) {
    await host.run(['sh', '-c', command]);
    const trials = Object.entries(ways).flatMap(([way, { from, targets }]) =>
      sites.map((site) => ({
        way,
        site,
        client: { pod: site.first.pod, node: host, outside }[from] as Namespace,
        targets: targets(site),
      })),
    );
    const tryFrom = async ([client, own]: [Namespace, typeof trials]) => {
      const answers = await askAll(
        client,
        own.flatMap(({ targets }) => targets),
      );
      for (const { way, site, targets } of own) {
        const works = ways[way]!.works(answers.splice(0, targets.length), site);
        if (targets.length > 0) outcomes.push({ way, topology: site.topology, mode, condition, works });
      }
    };
    await Promise.all([...Map.groupBy(trials, ({ client }) => client)].map(tryFrom));
  }
  return outcomes;
}

/** When something works, in the words of docs/services.md. */
function inWords(outcomes: readonly Outcome[]): string {
  const words: Record<string, (outcome: Outcome) => boolean> = {
    yes: () => true,
    no: () => false,
    'iptables mode': ({ mode }) => mode === 'iptables',
    ...Object.fromEntries(
      outcomes.map(({ condition }) => [condition, (outcome: Outcome) => outcome.condition === condition]),
    ),
    'iptables mode, or with the rule': ({ mode, condition }) =>
      mode === 'iptables' || condition === 'with the rule',
  };
  const fits = (property: (outcome: Outcome) => boolean) =>
    outcomes.every((outcome) => outcome.works === property(outcome));
  const [found] = Object.entries(words).find(([, property]) => fits(property)) ?? [];
  return found ?? JSON.stringify(outcomes.filter(({ works }) => works));
}

/** A table of docs/services.md by row and column, with those columns that a suite has plugins for. */
function documented(suite: Suite, { heading, topologies }: Table): Record<string, Record<string, string>> {
  const page = readFileSync(join(import.meta.dirname, '../../docs/services.md'), 'utf8');
  const section = page.split(/^## /m).find((text) => text.startsWith(heading));
  const [header, ...rows] = section!
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) => line.slice(1, -1).split('|'))
    .map((cells) => cells.map((cell) => cell.trim()));
  const named = (cells: string[]) =>
    Object.fromEntries(
      cells
        .map((cell, i) => [header![i + 1]!, cell] as const)
        .filter(([topology]) => topology in topologiesOf(suite, topologies)),
    );
  return Object.fromEntries(rows.map(([way, ...cells]) => [way, named(cells)]));
}

for (const table of tables)
  for (const suite of ['ours', 'reference'] as const)
    test(`${table.heading}: as documented, with the ${suite === 'ours' ? 'plugins' : 'reference plugins'}`, async (t) => {
      const outcomes = (await Promise.all(proxyModes.map((mode) => tryAll(t, suite, table, mode)))).flat();
      const seen: Record<string, Record<string, string>> = {};
      for (const way of Object.keys(ways)) {
        const ofWay = Map.groupBy(
          outcomes.filter((outcome) => outcome.way === way),
          ({ topology }) => topology,
        );
        seen[way] = Object.fromEntries([...ofWay].map(([topology, own]) => [topology, inWords(own)]));
      }
      t.deepEqual(seen, documented(suite, table));
    });
