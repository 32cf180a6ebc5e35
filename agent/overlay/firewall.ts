/**
 * The rules that flanneld writes for --ip-masq and --iptables-forward-rules, in chains of the same names.
 * Source: flannel's pkg/trafficmngr/iptables.
 */

import { ensureRules, missingRules, type RuleSet } from '../../lib/firewall/ensure.ts';
import { commentWords, type Rule } from '../../lib/firewall/rules.ts';
import type { Programs } from '../../lib/kernel/programs.ts';
import { familiesOf } from './dataplane.ts';
import type { NetworkConfig } from './network-config.ts';
import type { Subnets } from './node.ts';

const multicast = { 4: '224.0.0.0/4', 6: 'ff00::/8' } as const;
/** The mark of packets that kube-proxy will masquerade itself. */
const kubeProxyMark = '0x4000/0x4000';

/** Which rules are wanted. */
export interface FirewallOptions {
  readonly masquerade: boolean;
  readonly forward: boolean;
}

/**
 * Makes sure that the rules exist, and removes those of a subnet that the node had before.
 * @throws IptablesError when iptables refuses them; ProgramMissingError without iptables.
 */
export async function ensureFirewall(
  programs: Programs,
  config: NetworkConfig,
  subnets: Subnets,
  { masquerade, forward }: FirewallOptions,
): Promise<void> {
  for (const family of familiesOf(config)) {
    const network = `${config.ranges[family]!.network}`;
    const subnet = `${subnets[family]}`;
    if (masquerade) await ensure('nat', masqueradeRules(network, subnet, multicast[family]));
    if (forward) await ensure('filter', forwardRules(network));

    async function ensure(table: string, own: RuleSet['own']): Promise<void> {
      const set = { chains: [], shared: [], own };
      if ((await missingRules(programs, family, table, set)).length > 0)
        await ensureRules(programs, family, table, set);
    }
  }
}

function masqueradeRules(network: string, subnet: string, groups: string): RuleSet['own'] {
  const chain = 'FLANNEL-POSTRTG';
  const words = (match: readonly string[], ...target: string[]): Rule => ({
    chain,
    words: [...match, ...commentWords('flanneld masq'), '-j', ...target],
  });
  return {
    chain,
    outdated: (found) => found,
    rules: [
      { chain: 'POSTROUTING', words: [...commentWords('flanneld masq'), '-j', chain] },
      words(['-m', 'mark', '--mark', kubeProxyMark], 'RETURN'),
      words(['-s', subnet, '-d', network], 'RETURN'),
      words(['-s', network, '-d', subnet], 'RETURN'),
      words(['!', '-s', network, '-d', subnet], 'RETURN'),
      words(['-s', network, '!', '-d', groups], 'MASQUERADE', '--random-fully'),
      words(['!', '-s', network, '-d', network], 'MASQUERADE', '--random-fully'),
    ],
  };
}

function forwardRules(network: string): RuleSet['own'] {
  const chain = 'FLANNEL-FWD';
  const comment = commentWords('flanneld forward');
  return {
    chain,
    outdated: (found) => found,
    rules: [
      { chain: 'FORWARD', words: [...comment, '-j', chain] },
      { chain, words: ['-s', network, ...comment, '-j', 'ACCEPT'] },
      { chain, words: ['-d', network, ...comment, '-j', 'ACCEPT'] },
    ],
  };
}
