/**
 * Letting forwarded packets through by nftables.
 *
 * An accept in one base chain does not overrule a drop in another, so the rules for containers must be in the
 * very chains of the operator that drop. Each of these gets a jump to a chain of ours in its table, which
 * looks addresses up in sets: however many containers there are, a packet costs one lookup, and adding,
 * checking or removing an address is one request about one element.
 */

import type { Address, Family } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { eachTime } from '../kernel/sharing.ts';
import type { Attribute, Request } from '../netlink/message.ts';
import { isEstablished, verdict } from '../netlink/nftables/expressions.ts';
import { addChain, type NftBaseChain } from '../netlink/nftables/objects.ts';
import { insertRule, listRules, replaceRules, targetChain } from '../netlink/nftables/rules.ts';
import {
  addElement,
  addSet,
  deleteElement,
  findSets,
  getElement,
  type NftSet,
} from '../netlink/nftables/sets.ts';
import type { NftTable } from '../netlink/nftables/wire.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { type ForwardBackend, type ForwardRequest, familiesOf } from './forward.ts';
import {
  type DroppingChain,
  droppingChains,
  familiesOfTable,
  nameOf,
  requireChangeable,
} from './forward-chains.ts';
import { isIsolated, isolate } from './isolation-nftables.ts';
import { attachmentComment } from './names.ts';
import { addressIn, changeNftables, isFamily, requireNftables, withNftables } from './nftables.ts';

const forwardChain = 'cni_forward';
const forwardComment = 'Connections of containers, from the CNI firewall plugin';
const adminChain = 'cni_admin';
const adminComment = 'Rules of the operator, which come before those of the CNI firewall plugin';
const jumpComment = 'CNI firewall plugin rules';
const setNames = { 4: 'cni_forward_ipv4', 6: 'cni_forward_ipv6' } as const;

/** What the nftables backend works on. */
export interface NftablesForwardOptions {
  readonly programs: Programs;
  /**
   * The base chain to change, as in "inet filter forward"; when left out, every one that drops all packets of
   * a family that none of its rules lets through.
   */
  readonly chain: string | undefined;
  /** Addresses that were let through before, in case somebody has reloaded the ruleset without them. */
  readonly known: () => readonly { address: Address; comment: string }[];
}

/** The backend that lets packets through by nftables. */
export function nftablesForward({ programs, chain, known }: NftablesForwardOptions): ForwardBackend {
  const look = programs.once ?? eachTime;
  const droppingIn = (socket: NetlinkSocket) =>
    look(`nftables chains that drop ${chain}`, () => droppingChains(socket, programs, chain));
  const ofFamilies = (chains: readonly DroppingChain[], wanted: readonly Family[]) =>
    chains.filter(({ families }) => families.some((family) => wanted.includes(family)));

  return {
    async allow(request, _isNew, undo) {
      const { attachment, addresses, families, isolation } = request;
      const comment = attachmentComment(attachment);
      let added: { set: NftSet; address: Address }[] = [];
      const takeBack = () =>
        undo('take back the rules that let traffic through', () => removeElements(added));
      changeNftables((socket) => {
        const dropping = droppingIn(socket);
        const targets = ofFamilies(dropping, familiesOf(addresses));
        const created: NftSet[] = [];
        const changes = targets.flatMap((target) => setUp(socket, target, created));
        const places = placesOf(targets, addresses);
        added = places.filter((place) => isNamed(created, place.set) || !find(socket, place));
        const back = created.length > 0 ? known() : [];
        const requests = [
          ...changes,
          ...back.flatMap((one) =>
            placesOf(dropping, [one.address])
              .filter(({ set }) => isNamed(created, set))
              .map(({ set, address }) => addElement(set, address.toBytes(), one.comment)),
          ),
          ...added.map(({ set, address }) => addElement(set, address.toBytes(), comment)),
        ];
        // A jump that two calls insert at once would exist twice; an element cannot.
        return changes.length > 0 ? { exclusive: requests } : requests;
      }, takeBack);
      if (isolation) isolate(isolation, families);
    },

    async missing({ addresses, families, isolation }: ForwardRequest) {
      const missing = withNftables((socket) =>
        ofFamilies(droppingIn(socket), familiesOf(addresses)).flatMap((target) => [
          ...(look(`nftables rules of ${nameOf(target)}`, () => setUp(socket, target, []).length > 0)
            ? [`jump from chain "${nameOf(target)}" to the rules for containers`]
            : []),
          ...placesOf([target], addresses)
            .filter((place) => !find(socket, place))
            .map(
              ({ address, set }) => `${address} in set "${set.table.family} ${set.table.name} ${set.name}"`,
            ),
        ]),
      );
      const isLost = isolation && !isIsolated(isolation, families);
      return isLost ? [...missing, `isolation of bridge "${isolation.bridge}"`] : missing;
    },

    async remove(addresses) {
      changeNftables((socket) =>
        familiesOf(addresses)
          .flatMap((family) => findSets(socket, setNames[family]).map((set) => ({ family, set })))
          .flatMap(({ family, set }) =>
            addresses
              .filter((address) => address.family === family && find(socket, { set, address }))
              .map((address) => deleteElement(set, address.toBytes())),
          ),
      );
    },

    async probe() {
      requireNftables();
      withNftables((socket) => {
        for (const target of droppingChains(socket, programs, chain)) requireChangeable(socket, target);
      });
    },
  };
}

/** Where an address has to be, so that a chain lets it through. */
interface Place {
  readonly set: NftSet;
  readonly address: Address;
}

function placesOf(targets: readonly DroppingChain[], addresses: readonly Address[]): Place[] {
  const places = new Map<string, Place>();
  for (const { table, families } of targets)
    for (const address of addresses)
      if (families.includes(address.family))
        places.set(`${table.family} ${table.name} ${address}`, {
          set: { table, name: setNames[address.family] },
          address,
        });
  return [...places.values()];
}

function find(socket: NetlinkSocket, { set, address }: Place): boolean {
  const [outcome] = socket.attempt(getElement(set, address.toBytes()));
  return Array.isArray(outcome);
}

function removeElements(places: readonly Place[]): void {
  changeNftables((socket) =>
    places
      .filter((place) => find(socket, place))
      .map(({ set, address }) => deleteElement(set, address.toBytes())),
  );
}

/**
 * The requests that make a base chain lead to our chain, which lets through what is in the sets: none when it
 * does already.
 * @param created is told of the sets that this creates.
 */
function setUp(socket: NetlinkSocket, target: NftBaseChain, created: NftSet[]): Request[] {
  const { table, name } = target;
  const sets = familiesOfTable(table).map((family) => ({ family, set: { table, name: setNames[family] } }));
  const isCreatedNow = sets.some(({ set }) => isNamed(created, set));
  const missing = sets.filter(
    ({ set }) => !isNamed(created, set) && !isNamed(findSets(socket, set.name), set),
  );
  const rules = isCreatedNow ? [] : replaceRules(socket, table, forwardChain, rulesFor(table));
  const leads = listRules(socket, table, name).some((rule) => targetChain(rule) === forwardChain);
  if (missing.length === 0 && rules.length === 0 && leads) return [];
  requireChangeable(socket, target);
  created.push(...missing.map(({ set }) => set));
  return [
    ...missing.map(({ family, set }) => addSet(set, family === 4 ? 'ipv4_addr' : 'ipv6_addr', family)),
    ...(rules.length > 0
      ? [
          addChain(table, adminChain, { comment: adminComment }),
          addChain(table, forwardChain, { comment: forwardComment }),
          ...rules,
        ]
      : []),
    ...(leads ? [] : [insertRule(table, name, [verdict('jump', forwardChain)], jumpComment)]),
  ];
}

/** The rules of our chain. */
function rulesFor(table: NftTable): Attribute[][] {
  return [
    [verdict('jump', adminChain)],
    ...familiesOfTable(table).flatMap((family) => {
      const only = table.family === 'inet' ? isFamily(family) : [];
      const set = setNames[family];
      return [
        [...only, ...addressIn('daddr', family, set), ...isEstablished(), verdict('accept')],
        [...only, ...addressIn('saddr', family, set), verdict('accept')],
      ];
    }),
  ];
}

function isNamed(sets: readonly NftSet[], { table, name }: NftSet): boolean {
  return sets.some(
    (set) => set.name === name && set.table.name === table.name && set.table.family === table.family,
  );
}
