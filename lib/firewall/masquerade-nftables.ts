/** Masquerading by nftables, in the reference plugins' table. */

import type { AttachmentId } from '../attachment.ts';
import { Prefix } from '../ip.ts';
import {
  addChain,
  addRule,
  addTable,
  deleteRule,
  listRules,
  masqueradeVerdict,
  type NftTable,
  replaceRules,
  targetChain,
  verdict,
} from '../netlink/nftables.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import type { MasqueradeBackend } from './masquerade-backend.ts';
import { hashName } from './names.ts';
import {
  addressMatch,
  changeNftables,
  Hook,
  isFamily,
  Priority,
  requireNftables,
  withNftables,
} from './nftables.ts';

const table: NftTable = { family: 'inet', name: 'cni_plugins_masquerade' };
const tableComment = 'Masquerading for plugins from github.com/containernetworking/plugins';
const checks = 'masq_checks';
const checksComment = 'Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet';
const multicast = [Prefix.parse('224.0.0.0/4'), Prefix.parse('ff00::/8')];

export const nftablesMasquerade: MasqueradeBackend = {
  async add(attachment, prefixes, undo) {
    changeNftables((socket, again) => [
      ...setUp(socket, again),
      ...deletion(socket, (comment) => comment.startsWith(instanceHash(attachment))),
      ...prefixes.map((prefix) =>
        addRule(
          table,
          checks,
          [
            ...isFamily(prefix.family),
            ...addressMatch('saddr', '==', prefix.address.toPrefix()),
            ...addressMatch('daddr', '!=', prefix),
            masqueradeVerdict(),
          ],
          commentOf(attachment),
        ),
      ),
    ]);
    undo(() => nftablesMasquerade.del(attachment, prefixes));
  },

  async del(attachment) {
    changeNftables((socket) => deletion(socket, (comment) => comment.startsWith(instanceHash(attachment))));
  },

  async check(attachment, prefixes) {
    withNftables((socket) => {
      const own = listRules(socket, table, checks).filter(({ comment }) =>
        comment.startsWith(instanceHash(attachment)),
      );
      if (own.length < prefixes.length)
        throw new Error(
          `Table "${table.family} ${table.name}" has ${own.length} rules for the container where ${prefixes.length} are wanted. Delete the container and add it again`,
        );
      if (!listRules(socket, table, 'postrouting').some((rule) => targetChain(rule) === checks))
        throw new Error(
          `Table "${table.family} ${table.name}" masquerades nothing: chain "postrouting" does not lead to "masq_checks". Add any container to set it up again`,
        );
    });
  },

  probe() {
    requireNftables();
  },

  async gc(network, valid) {
    const keep = new Set(valid.map(commentOf));
    changeNftables((socket) =>
      deletion(socket, (comment) => comment.startsWith(`${networkHash(network)}-`) && !keep.has(comment)),
    );
  },
};

/** The table with what all containers share: nothing when the base chain leads where it should. @param whole even then. */
function setUp(socket: NetlinkSocket, whole: boolean) {
  const rules = replaceRules(socket, table, 'postrouting', [
    ...multicast.map((prefix) => [
      ...isFamily(prefix.family),
      ...addressMatch('daddr', '==', prefix),
      verdict('return'),
    ]),
    [verdict('goto', checks)],
  ]);
  if (rules.length === 0 && !whole) return [];
  return [
    addTable(table, tableComment),
    addChain(table, checks, { comment: checksComment }),
    addChain(table, 'postrouting', {
      hook: { type: 'nat', hook: Hook.postrouting, priority: Priority.srcnat },
    }),
    ...rules,
  ];
}

function deletion(socket: NetlinkSocket, isStale: (comment: string) => boolean) {
  return listRules(socket, table, checks)
    .filter(({ comment }) => isStale(comment))
    .map(({ handle }) => deleteRule(table, checks, handle));
}

function networkHash(network: string): string {
  return hashName(16, '', network);
}

function instanceHash({ network, containerId, ifname }: AttachmentId): string {
  return `${networkHash(network)}-${hashName(16, '', `${ifname}:${containerId}`)}`;
}

/** The reference plugins' comment; at 128 bytes nft(8) takes no more. */
function commentOf(attachment: AttachmentId): string {
  const { network, containerId, ifname } = attachment;
  const text = `${instanceHash(attachment)}, net: ${network}, if: ${ifname}, id: ${containerId}`;
  return Buffer.from(text.replaceAll('"', '')).subarray(0, 128).toString('utf8');
}
