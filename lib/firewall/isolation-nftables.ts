/**
 * Keeping bridges, and the containers of a bridge, apart by nftables, in tables of our own: a drop is final
 * wherever it is. The family "inet" sees what the host routes; what the bridge itself forwards is in the
 * family "bridge". A kernel that cannot tell bridges apart there (without CONFIG_NFT_BRIDGE_META) must show
 * bridged packets to the family "inet", as br_netfilter does.
 */

import type { Family } from '../ip.ts';
import { readSysctl } from '../kernel/sysctl.ts';
import type { Attribute, Request } from '../netlink/message.ts';
import { meta, metaIn, verdict } from '../netlink/nftables/expressions.ts';
import { addChain, addTable } from '../netlink/nftables/objects.ts';
import { addRule, listRules } from '../netlink/nftables/rules.ts';
import { addElement, addSet, getElement, type NftSet } from '../netlink/nftables/sets.ts';
import type { NftTable } from '../netlink/nftables/wire.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import type { Isolation } from './forward.ts';
import { changeNftables, Hook, interfaceName, NftablesError, Priority, withNftables } from './nftables.ts';

export const isolationTable: NftTable = { family: 'inet', name: 'cni_firewall' };
const bridgeTable: NftTable = { family: 'bridge', name: 'cni_firewall' };
const tableComment = 'Isolation of bridges, from the CNI firewall plugin';
const chain = 'forward';
const isolatedBridges: NftSet = { table: isolationTable, name: 'isolated_bridges' };
/** Of linux/if_ether.h, in network byte order. */
const etherTypes = { 4: Uint8Array.of(0x08, 0x00), 6: Uint8Array.of(0x86, 0xdd) } as const;

interface IsolationRule {
  readonly table: NftTable;
  readonly expressions: readonly Attribute[];
  readonly comment: string;
}

/**
 * Isolates a bridge. Doing it twice is no error, and what is there stays: it is the bridge's, not a
 * container's.
 */
export function isolate(isolation: Isolation, families: readonly Family[]): void {
  changeNftables((socket) => ({ exclusive: composeIsolation(socket, isolation) }));
  if (isolation.policy !== 'isolated') return;
  try {
    changeNftables((socket) => ({ exclusive: composeRules(socket, bridgedRules(isolation)) }));
  } catch (error) {
    const isUnsupported = error instanceof NftablesError && ['EOPNOTSUPP', 'ENOENT'].includes(error.errno);
    if (!isUnsupported) throw error;
    if (showsBridgedPackets(families)) return;
    throw new Error(
      `The kernel cannot keep containers on bridge "${isolation.bridge}" from one another. Load the module "nft_meta_bridge", or "br_netfilter" and set net.bridge.bridge-nf-call-iptables and net.bridge.bridge-nf-call-ip6tables to 1`,
      { cause: error },
    );
  }
}

/** Whether a bridge is isolated. */
export function isIsolated(isolation: Isolation, families: readonly Family[]): boolean {
  return withNftables((socket) => {
    if (composeIsolation(socket, isolation).length > 0) return false;
    if (isolation.policy !== 'isolated' || showsBridgedPackets(families)) return true;
    return composeRules(socket, bridgedRules(isolation)).length === 0;
  });
}

function composeIsolation(socket: NetlinkSocket, isolation: Isolation): Request[] {
  const name = interfaceName(isolation.bridge);
  const [element] = socket.attempt(getElement(isolatedBridges, name));
  const rules = composeRules(socket, routedRules(isolation));
  if (rules.length === 0 && Array.isArray(element)) return [];
  // The set comes before the rules that look things up in it.
  return [
    addTable(isolationTable, tableComment),
    addSet(isolatedBridges, 'ifname', 1),
    addElement(isolatedBridges, name),
    ...rules,
  ];
}

/** Adds the rules that are missing from a table. */
function composeRules(socket: NetlinkSocket, wanted: readonly IsolationRule[]): Request[] {
  return wanted
    .filter(({ table, comment }) => !listRules(socket, table, chain).some((rule) => rule.comment === comment))
    .flatMap(({ table, expressions, comment }) => [
      addTable(table, tableComment),
      addChain(table, chain, { hook: { type: 'filter', hook: Hook.forward, priority: Priority.filter } }),
      addRule(table, chain, expressions, comment),
    ]);
}

/** True when the family "inet" sees what bridges forward. */
function showsBridgedPackets(families: readonly Family[]): boolean {
  return families.every(
    (family) => readSysctl(['bridge', `bridge-nf-call-${family === 4 ? 'iptables' : 'ip6tables'}`]) === '1',
  );
}

/** Rules for what the host routes. */
function routedRules({ bridge, policy }: Isolation): IsolationRule[] {
  const name = interfaceName(bridge);
  const table = isolationTable;
  const others = [
    ...meta('iifname', name),
    ...meta('oifname', name, '!='),
    ...metaIn('oifname', isolatedBridges.name),
    verdict('drop'),
  ];
  const within = [...meta('iifname', name), ...meta('oifname', name), verdict('drop')];
  return [
    { table, expressions: others, comment: `Not from ${bridge} to other isolated bridges` },
    ...(policy === 'isolated'
      ? [{ table, expressions: within, comment: `Not from ${bridge} to itself` }]
      : []),
  ];
}

/** Rules for what a bridge forwards. */
function bridgedRules({ bridge }: Isolation): IsolationRule[] {
  const name = interfaceName(bridge);
  return ([4, 6] as const).map((family) => ({
    table: bridgeTable,
    expressions: [
      ...meta('ibrname', name),
      ...meta('obrname', name),
      ...meta('protocol', etherTypes[family]),
      verdict('drop'),
    ],
    comment: `No IPv${family} from ${bridge} to itself`,
  }));
}
