/**
 * Keeping bridges, and the containers of a bridge, apart by nftables, in tables of our own: a drop counts wherever it is. In the
 * family "inet" is what the host routes; what the bridge itself passes on is in the family "bridge", where it is seen whether or not
 * the kernel shows bridged packets to iptables.
 */

import type { Attribute, Request } from '../netlink/message.ts';
import {
  addChain,
  addElement,
  addRule,
  addSet,
  addTable,
  getElement,
  listRules,
  meta,
  metaIn,
  type NftSet,
  type NftTable,
  verdict,
} from '../netlink/nftables.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import type { Isolation } from './forward.ts';
import { changeNftables, Hook, interfaceName, Priority, withNftables } from './nftables.ts';

export const isolationTable: NftTable = { family: 'inet', name: 'cni_firewall' };
const bridgeTable: NftTable = { family: 'bridge', name: 'cni_firewall' };
const tableComment = 'Isolation of bridges, from the CNI firewall plugin';
const chain = 'forward';
const isolatedBridges: NftSet = { table: isolationTable, name: 'isolated_bridges' };
/** Of linux/if_ether.h, in network byte order. */
const etherTypes = [Uint8Array.of(0x08, 0x00), Uint8Array.of(0x86, 0xdd)];

interface IsolationRule {
  readonly table: NftTable;
  readonly expressions: readonly Attribute[];
  readonly comment: string;
}

/** Isolates a bridge. Doing it twice is no error, and what is there stays: it is the bridge's, not a container's. */
export function isolate(isolation: Isolation): void {
  changeNftables((socket) => composeIsolation(socket, isolation));
}

/** @throws Error when a bridge is not isolated. */
export function checkIsolation(isolation: Isolation): void {
  const { bridge } = isolation;
  const missing = withNftables((socket) => composeIsolation(socket, isolation));
  if (missing.length > 0)
    throw new Error(
      `Bridge "${bridge}" is not isolated: rules are missing from table "${isolationTable.family} ${isolationTable.name}" or "${bridgeTable.family} ${bridgeTable.name}". Add any container to set them up again`,
    );
}

function composeIsolation(socket: NetlinkSocket, isolation: Isolation): Request[] {
  const wanted = rulesFor(isolation);
  const missing = wanted.filter(
    (rule) => !listRules(socket, rule.table, chain).some(({ comment }) => comment === rule.comment),
  );
  const [element] = socket.attempt(getElement(isolatedBridges, interfaceName(isolation.bridge)));
  const isElement = Array.isArray(element);
  if (missing.length === 0 && isElement) return [];
  const tables = new Set(missing.map(({ table }) => table)).add(isolationTable);
  return [
    ...[...tables].flatMap((table) => [
      addTable(table, tableComment),
      addChain(table, chain, { hook: { type: 'filter', hook: Hook.forward, priority: Priority.filter } }),
    ]),
    addSet(isolatedBridges, 'ifname', 1),
    ...(isElement ? [] : [addElement(isolatedBridges, interfaceName(isolation.bridge))]),
    ...missing.map(({ table, expressions, comment }) => addRule(table, chain, expressions, comment)),
  ];
}

function rulesFor({ bridge, policy }: Isolation): IsolationRule[] {
  const name = interfaceName(bridge);
  const fromOthers: IsolationRule = {
    table: isolationTable,
    expressions: [
      ...meta('iifname', name),
      ...meta('oifname', name, '!='),
      ...metaIn('oifname', isolatedBridges.name),
      verdict('drop'),
    ],
    comment: `ingressPolicy same-bridge, bridge ${bridge}: not to other isolated bridges`,
  };
  if (policy === 'same-bridge') return [fromOthers];
  return [
    fromOthers,
    {
      table: isolationTable,
      expressions: [...meta('iifname', name), ...meta('oifname', name), verdict('drop')],
      comment: `ingressPolicy isolated, bridge ${bridge}: not within it, by way of the host`,
    },
    ...etherTypes.map((type, i) => ({
      table: bridgeTable,
      expressions: [
        ...meta('ibrname', name),
        ...meta('obrname', name),
        ...meta('protocol', type),
        verdict('drop'),
      ],
      comment: `ingressPolicy isolated, bridge ${bridge}: not within it, IPv${i === 0 ? 4 : 6}`,
    })),
  ];
}
