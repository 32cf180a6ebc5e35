/**
 * Letting queries through by nftables, in the very chains of the operator that drop: see forward-nftables.ts.
 */

import type { Attribute, Request } from '../netlink/message.ts';
import { verdict } from '../netlink/nftables/expressions.ts';
import { addChain, type NftBaseChain } from '../netlink/nftables/objects.ts';
import { addRule, deleteRule, insertRule, listRules, targetChain } from '../netlink/nftables/rules.ts';
import type { NftTable } from '../netlink/nftables/wire.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { chainsThatDrop, type DroppingChain, filterChains, requireChangeable } from './forward-chains.ts';
import { networkTag } from './names.ts';
import { addressMatch, changeNftables, isFamily, portMatch, withNftables } from './nftables.ts';
import type { Queries } from './queries-backend.ts';

const chain = 'cni_dnsname';
const chainComment = 'Look-ups of containers, from the CNI dnsname plugin';
const jumpComment = 'CNI dnsname plugin rules';

/** A rule for one query, in one table. */
interface Wanted {
  readonly expressions: readonly Attribute[];
  /** It is unique to the rule, which is found again by it. */
  readonly comment: string;
}

/** See allowQueries in queries.ts. */
export function allowByNftables(queries: readonly Queries[], onChange: () => void): void {
  changeNftables((socket) => {
    const requests = chainsThatDrop(socket, 'input').flatMap((target) =>
      setUp(socket, target, missingIn(socket, target, queries)),
    );
    // A jump that two calls insert at once would exist twice.
    return { exclusive: requests };
  }, onChange);
}

/** Whether every query is let through. */
export function isAllowedByNftables(queries: readonly Queries[]): boolean {
  return withNftables((socket) =>
    chainsThatDrop(socket, 'input').every((target) => {
      const { rules, jump } = missingIn(socket, target, queries);
      return rules.length === 0 && !jump;
    }),
  );
}

/** Removes the rules of a network. */
export function withdrawFromNftables(network: string): void {
  changeNftables((socket) => {
    const tables = new Map(
      filterChains(socket, 'input').map(({ table }) => [`${table.family} ${table.name}`, table]),
    );
    return [...tables.values()].flatMap((table) =>
      listRules(socket, table, chain)
        .filter(({ comment }) => comment.startsWith(`${networkTag(network)} `))
        .map(({ handle }) => deleteRule(table, chain, handle)),
    );
  });
}

/** What a base chain needs so that it lets queries through. */
interface Missing {
  readonly rules: readonly Wanted[];
  readonly jump: boolean;
}

function missingIn(
  socket: NetlinkSocket,
  { table, name, families }: DroppingChain,
  queries: readonly Queries[],
): Missing {
  const own = queries.filter(({ to }) => families.includes(to.family));
  const wanted = rulesFor(table, own);
  const present = new Set(listRules(socket, table, chain).map(({ comment }) => comment));
  return {
    rules: wanted.filter(({ comment }) => !present.has(comment)),
    jump: wanted.length > 0 && !listRules(socket, table, name).some((rule) => targetChain(rule) === chain),
  };
}

function setUp(socket: NetlinkSocket, target: NftBaseChain, { rules, jump }: Missing): Request[] {
  if (rules.length === 0 && !jump) return [];
  requireChangeable(socket, target);
  const { table, name } = target;
  return [
    addChain(table, chain, { comment: chainComment }),
    ...rules.map(({ expressions, comment }) => addRule(table, chain, expressions, comment)),
    ...(jump ? [insertRule(table, name, [verdict('jump', chain)], jumpComment)] : []),
  ];
}

function rulesFor(table: NftTable, queries: readonly Queries[]): Wanted[] {
  return queries.flatMap(({ network, from, to }) =>
    ['udp', 'tcp'].map((protocol) => ({
      expressions: [
        ...(table.family === 'inet' ? isFamily(to.family) : []),
        ...(from.length > 0 ? addressMatch('saddr', '==', from) : []),
        ...addressMatch('daddr', '==', to.toPrefix()),
        ...portMatch(protocol, 53),
        verdict('accept'),
      ],
      comment: `${networkTag(network)} ${protocol} ${from.network} ${to}`,
    })),
  );
}
