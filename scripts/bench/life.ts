/** A pod's life on a chain of plugins, on hosts with few and many pods, and with each firewall backend. */

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { type Contender, contenders, type Network } from './call.ts';
import { clear, liveOnce, podNetwork, populate } from './host.ts';
import { alternate, emptySamples, type Line, type Scenario, sum } from './scenario.ts';

/** ADD and DEL of each plugin and of the chain, and both together. @param pods that the host already has. */
export function life(name: string, network: Network, pods: number, rounds: number): Scenario {
  return {
    name,
    async measure() {
      const labels = network.plugins.map(({ type }) => type);
      const add = labels.map(emptySamples);
      const del = labels.map(emptySamples);
      const [addAll, delAll, whole] = [emptySamples(), emptySamples(), emptySamples()];
      // The first pods create what all pods share; then come the others.
      const among: Contender[] = [];
      for (const contender of contenders) if (await canRun(name, network, contender)) among.push(contender);
      populate(pods);
      await alternate(rounds, async (contender, round, counts) => {
        if (!among.includes(contender)) return;
        const { added, deleted } = await liveOnce(network, contender, `round${round}${contender}`);
        if (!counts) return;
        for (const i of labels.keys()) {
          add[i]![contender].push(added[i]!);
          del[i]![contender].push(deleted[i]!);
        }
        addAll[contender].push(sum(added));
        delAll[contender].push(sum(deleted));
        whole[contender].push(sum(added) + sum(deleted));
      });
      clear();
      const line = (what: string, samples: Line['samples']): Line => ({
        name: `${name}: ${what}`,
        unit: 'ms',
        samples,
      });
      return [
        ...labels.flatMap((label, i) => [line(`${label} ADD`, add[i]!), line(`${label} DEL`, del[i]!)]),
        line('chain ADD', addAll),
        line('chain DEL', delAll),
        line('whole life', whole),
      ];
    },
  };
}

/** Has a first pod come and go. @returns false, after saying so, if the reference plugins fail at that. */
async function canRun(name: string, network: Network, contender: Contender): Promise<boolean> {
  try {
    await liveOnce(network, contender, `first-${contender}`);
    return true;
  } catch (error) {
    if (contender !== 'reference') throw error;
    console.log(`${name}: not compared, as the reference plugins fail here. ${(error as Error).message}`);
    clear();
    return false;
  }
}

/** A chain of all the plugins that a pod network is likely to have. */
export function longChain(): Network {
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

/** The pod network with nftables. */
export function nftablesNetwork(): Network {
  const [bridge, portmap] = podNetwork().plugins;
  return {
    name: 'bench',
    plugins: [
      { ...bridge!, ipMasqBackend: 'nftables' },
      { ...portmap!, backend: 'nftables' },
    ],
  };
}

/** Runs a scenario with iptables-legacy in place of iptables, as update-alternatives(1) arranges it. */
export function withLegacy(scenario: Scenario): Scenario {
  const [system, own] = ['/etc/alternatives', '/run/bench-alternatives'];
  return {
    ...scenario,
    async measure() {
      mkdirSync(own);
      cpSync(system, own, { recursive: true, verbatimSymlinks: true });
      for (const name of ['iptables', 'ip6tables'])
        for (const end of ['', '-save', '-restore']) {
          rmSync(`${own}/${name}${end}`);
          symlinkSync(`/usr/sbin/${name}-legacy${end}`, `${own}/${name}${end}`);
        }
      execFileSync('mount', ['--bind', own, system]);
      try {
        return await scenario.measure();
      } finally {
        execFileSync('umount', [system]);
      }
    },
  };
}
