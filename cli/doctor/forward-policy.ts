/** Whether a firewall drops what pods send through the host. */

import { chainsThatDrop, chainsThatDropSome } from '../../lib/firewall/forward-chains.ts';
import { withNftables } from '../../lib/firewall/nftables.ts';
import type { Family } from '../../lib/ip.ts';
import { ProgramMissingError } from '../../lib/kernel/programs.ts';
import type { NftBaseChain } from '../../lib/netlink/nftables/objects.ts';
import { ingressOf, isRouted, type RunningAttachment } from '../inventory/running.ts';
import { type Check, type Finding, shellWord } from './check.ts';
import type { Context } from './context.ts';
import { iptablesChains, nftChains } from './firewall-rules.ts';
import type { SavedRules } from './iptables.ts';
import { type Chains, verdictOn } from './lets-through.ts';

/** A base chain that drops packets. */
interface DroppingChain {
  readonly title: string;
  /** Whether it drops whatever no rule accepts, rather than only what some rules match. */
  readonly isClosed: boolean;
  readonly families: readonly Family[];
  /** Its name, and all chains of its table, as a family's packets see them. */
  readonly name: string;
  chains(family: Family): Chains;
  /** Whether the plugins' own rules are in its table. */
  readonly isOfPlugins: boolean;
  /** Commands that let an interface or, without one, an address through. */
  allow(link: string | undefined, ip: string): string[];
}

export const forwardPolicy: Check = {
  id: 'forward-policy',
  title: 'Firewall',
  async run(context) {
    const chains = [...context.rules.flatMap(iptablesChain), ...(await nftablesChains(context))];
    const findings = chains.flatMap((chain) => findingsOf(chain, context));
    const closed = chains.filter(({ isClosed }) => isClosed);
    const seen =
      closed.length === 0
        ? 'no chain drops what is forwarded'
        : `${closed.map(({ title }) => title).join(', ')} drops what is forwarded, but lets pods through`;
    return { findings, seen };
  },
};

/** An address of an attachment whose packets a chain drops. */
interface Dropped {
  readonly one: RunningAttachment;
  readonly ip: string;
  readonly link: string | undefined;
  /** Whether a rule for these drops them, rather than the policy, or a rule for all packets. */
  readonly isByRule: boolean;
}

/** One finding for each network whose packets a chain drops, by a rule for them or for want of one. */
function findingsOf(chain: DroppingChain, context: Context): Finding[] {
  const dropped = context.running.filter(isRouted).flatMap((one) => droppedOf(chain, one, context));
  const groups = Map.groupBy(dropped, ({ one, isByRule }) =>
    JSON.stringify([one.attachment.network, isByRule]),
  );
  return [...groups.values()].map((all) => {
    const { one, isByRule } = all[0]!;
    const { network } = one.attachment;
    const commands = new Set(all.flatMap(({ ip, link }) => chain.allow(link, ip)));
    const cause = isByRule
      ? 'An operator, or another program, drops them on purpose; the plugin "firewall" leaves such rules alone'
      : causeOf(
          chain,
          network,
          all.some((each) => hasFirewall(each.one)),
        );
    return {
      severity: 'error',
      subject: `network "${network}"`,
      message: `${chain.title} drops what pods send through the host, and has ${isByRule ? 'a rule for these' : 'no rule that lets these through'}: ${all.map((each) => `${each.one.name} (${each.ip})`).join(', ')}`,
      cause,
      fix: [...commands].join(' && '),
    };
  });
}

/** The addresses of an attachment whose packets a chain drops. */
function droppedOf(chain: DroppingChain, one: RunningAttachment, { inventory }: Context): Dropped[] {
  const ingress = ingressOf(one, inventory.links);
  const link = ingress?.kind === 'bridge' ? ingress.name : undefined;
  return one.attachment.ips.flatMap((ip) => {
    const family = ip.includes(':') ? 6 : 4;
    if (!chain.families.includes(family)) return [];
    const outcome = verdictOn(chain.chains(family), chain.name, { ip, link: ingress?.name });
    if (outcome === 'accept' || (!chain.isClosed && outcome === undefined)) return [];
    return [{ one, ip, link, isByRule: !chain.isClosed || outcome === 'drop' }];
  });
}

function hasFirewall({ network }: RunningAttachment): boolean {
  return network?.plugins.some(({ type }) => type === 'firewall') ?? false;
}

/**
 * Why no rule of a chain lets the packets of a network through.
 * @param isGuarded whether the network has the plugin "firewall".
 */
function causeOf({ isOfPlugins }: DroppingChain, network: string, isGuarded: boolean): string {
  if (!isGuarded)
    return `Network "${network}" has no plugin "firewall", which lets its pods through. Add it to the network for pods to come`;
  if (isOfPlugins) return 'Something has removed the rules of the plugin "firewall"';
  return 'The plugin "firewall" lets them through another firewall of this host, and this one drops them all the same';
}

function iptablesChain(saved: SavedRules): DroppingChain[] {
  const { family, tables } = saved;
  const lines = tables.get('filter');
  if (!lines) return [];
  const drops = lines.some((line) => /^:FORWARD DROP\b|^-A FORWARD -j (?:DROP|REJECT)\b/.test(line));
  const chains = iptablesChains(lines);
  return [
    {
      ...forwardOf(saved),
      isClosed: drops && !lines.includes('-A FORWARD -j ACCEPT'),
      families: [family],
      chains: () => chains,
    },
  ];
}

/** How a chain FORWARD of iptables is called and changed; iptables changes even one that it cannot list. */
function forwardOf({ program, variant, isInUse }: SavedRules) {
  const connections = '-m conntrack --ctstate RELATED,ESTABLISHED,DNAT';
  return {
    title: `Chain FORWARD of ${program} (${variant === 'nft' ? 'nf_tables' : 'legacy'})`,
    name: 'FORWARD',
    isOfPlugins: isInUse,
    allow: (link: string | undefined, ip: string) => {
      const [from, to] = link ? [`-i ${shellWord(link)}`, `-o ${shellWord(link)}`] : [`-s ${ip}`, `-d ${ip}`];
      return [
        `${program} -I FORWARD ${from} -j ACCEPT`,
        `${program} -I FORWARD ${to} ${connections} -j ACCEPT`,
      ];
    },
  };
}

/** Chains of nftables, except those that iptables keeps there and can list. */
async function nftablesChains({ programs, rules }: Context): Promise<DroppingChain[]> {
  const ofIptables = new Map(
    rules
      .filter(({ variant }) => variant === 'nft')
      .map((saved): [string, SavedRules] => [saved.family === 4 ? 'ip' : 'ip6', saved]),
  );
  const ownerOf = ({ table, name }: NftBaseChain) =>
    name === 'FORWARD' && table.name === 'filter' ? ofIptables.get(table.family) : undefined;
  const found = withNftables((socket) => [
    ...chainsThatDrop(socket, 'forward').map((chain) => ({ ...chain, isClosed: true })),
    ...chainsThatDropSome(socket, 'forward').map((chain) => ({ ...chain, isClosed: false })),
  ]).filter((chain) => !ownerOf(chain)?.tables.has('filter'));
  const chains: DroppingChain[] = [];
  for (const chain of found) {
    const { table, name, isClosed, families } = chain;
    const owner = ownerOf(chain);
    const full = `${table.family} ${table.name} ${name}`;
    const insert = `nft insert rule ${full}`;
    const lines = await nftLines(programs, table);
    const byFamily = new Map(families.map((one) => [one, nftChains(lines, one)]));
    chains.push({
      title: `Chain "${full}" of nftables`,
      isClosed,
      families,
      name,
      chains: (family) => byFamily.get(family)!,
      isOfPlugins: false,
      allow: (link, ip) => {
        if (table.name === 'firewalld')
          return [
            `firewall-cmd --zone=trusted --add-${link ? `interface=${shellWord(link)}` : `source=${ip}`}`,
          ];
        const family = ip.includes(':') ? 'ip6' : 'ip';
        const [from, to] = link
          ? [`iifname ${shellWord(`"${link}"`)}`, `oifname ${shellWord(`"${link}"`)}`]
          : [`${family} saddr ${ip}`, `${family} daddr ${ip}`];
        return [
          `${insert} ${from} accept`,
          `${insert} ${to} ct state established,related accept`,
          `${insert} ${to} ct status dnat accept`,
        ];
      },
      ...(owner && forwardOf(owner)),
    });
  }
  return chains;
}

async function nftLines(
  programs: Context['programs'],
  table: { family: string; name: string },
): Promise<string[]> {
  try {
    const { stdout } = await programs.run('nft', ['list', 'table', table.family, table.name]);
    return stdout.split('\n');
  } catch (error) {
    if (!(error instanceof ProgramMissingError)) throw error;
    throw new Error(
      `Table "${table.family} ${table.name}" drops what is forwarded, and "nft" is not installed to list its rules with. Install the package "nftables"`,
    );
  }
}
