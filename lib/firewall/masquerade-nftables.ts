/** Masquerading by nftables, in the reference plugins' table. */

import { Prefix } from '../ip.ts';
import { masqueradeVerdict, verdict } from '../netlink/nftables/expressions.ts';
import { addChain, addTable } from '../netlink/nftables/objects.ts';
import { addRule, deleteRule, listRules, replaceRules, targetChain } from '../netlink/nftables/rules.ts';
import type { NftTable } from '../netlink/nftables/wire.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import type { MasqueradeBackend } from './masquerade-backend.ts';
import { attachmentComment, attachmentTag, networkTag } from './names.ts';
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
      ...deletion(socket, (comment) => comment.startsWith(attachmentTag(attachment))),
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
          attachmentComment(attachment),
        ),
      ),
    ]);
    undo(() => nftablesMasquerade.del(attachment, prefixes));
  },

  async del(attachment) {
    changeNftables((socket) => deletion(socket, (comment) => comment.startsWith(attachmentTag(attachment))));
  },

  async check(attachment, prefixes) {
    withNftables((socket) => {
      const own = listRules(socket, table, checks).filter(({ comment }) =>
        comment.startsWith(attachmentTag(attachment)),
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
    const keep = new Set(valid.map(attachmentComment));
    changeNftables((socket) =>
      deletion(socket, (comment) => comment.startsWith(`${networkTag(network)}-`) && !keep.has(comment)),
    );
  },
};

/**
 * The table with what all containers share: nothing when the base chain leads where it should.
 * @param whole even then.
 */
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
