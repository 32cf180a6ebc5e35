/** A pod's life on a chain of plugins, on hosts with few and many pods, and with each firewall backend. */

import { execFileSync } from 'node:child_process';
import { bothSuites, type Network, type Suite } from './call.ts';
import { clear, liveOnce, podNetwork, populate } from './host.ts';
import { alternate, emptySamples, type Line, type Scenario, sum } from './scenario.ts';

/** ADD and DEL of each plugin, of the chain, and both together. @param pods that the host has already. */
export function life(
  name: string,
  network: Network,
  pods: number,
  rounds: number,
  suites: readonly Suite[] = bothSuites,
): Scenario {
  return {
    name,
    measure() {
      const labels = network.plugins.map(({ type }) => type);
      const add = labels.map(emptySamples);
      const del = labels.map(emptySamples);
      const [addAll, delAll, whole] = [emptySamples(), emptySamples(), emptySamples()];
      // The first pod makes what all share; then the others come.
      liveOnce(network, suites.at(-1)!, 'first');
      populate(pods);
      alternate(rounds, (suite, round, counts) => {
        if (!suites.includes(suite)) return;
        const { added, deleted } = liveOnce(network, suite, `round${round}${suite}`);
        if (!counts) return;
        for (const i of labels.keys()) {
          add[i]![suite].push(added[i]!);
          del[i]![suite].push(deleted[i]!);
        }
        addAll[suite].push(sum(added));
        delAll[suite].push(sum(deleted));
        whole[suite].push(sum(added) + sum(deleted));
      });
      clear();
      const line = (what: string, samples: ReturnType<typeof emptySamples>, starts: number): Line => ({
        name: `${name}: ${what}`,
        unit: 'ms',
        starts,
        ours: samples.ours,
        ...(samples.reference.length > 0 && { reference: samples.reference }),
      });
      return [
        ...labels.flatMap((label, i) => [line(`${label} ADD`, add[i]!, 1), line(`${label} DEL`, del[i]!, 1)]),
        line('chain ADD', addAll, labels.length),
        line('chain DEL', delAll, labels.length),
        line('whole life', whole, 2 * labels.length),
      ];
    },
  };
}

/** A chain of all the plugins that a pod network may have. */
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

/** The pod network with nftables, which the reference plugins have not before 1.6. */
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

/** Runs a scenario with iptables-legacy in the place of iptables. */
export function withLegacy(scenario: Scenario): Scenario {
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
