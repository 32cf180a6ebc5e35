/** Masquerading by nftables, in the reference plugins' table. */

import type { AttachmentId } from '../attachment.ts';
import { Address, Prefix } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import type { Once } from '../kernel/sharing.ts';
import type { Attribute, Request } from '../netlink/message.ts';
import { expressionValue, masqueradeVerdict, verdict } from '../netlink/nftables/expressions.ts';
import { addChain, addTable } from '../netlink/nftables/objects.ts';
import {
  addAgain,
  addRule,
  deleteRule,
  listRules,
  type NftRule,
  replaceRules,
} from '../netlink/nftables/rules.ts';
import type { NftTable } from '../netlink/nftables/wire.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import type { MasqueradeBackend } from './masquerade-backend.ts';
import { attachmentComment, attachmentTag, networkTag, readAttachmentComment } from './names.ts';
import {
  addressMatch,
  changeNftables,
  Hook,
  isFamily,
  leadsTo,
  Priority,
  requireNftables,
  seenRules,
} from './nftables.ts';

const table: NftTable = { family: 'inet', name: 'cni_plugins_masquerade' };
const tableComment = 'Masquerading for plugins from github.com/containernetworking/plugins';
const checks = 'masq_checks';
const checksComment = 'Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet';
const multicast = [Prefix.parse('224.0.0.0/4'), Prefix.parse('ff00::/8')];

export const nftablesMasquerade = (programs: Programs): MasqueradeBackend => ({
  async add(attachment, prefixes, undo) {
    let replaced: readonly NftRule[] = [];
    const takeBack = () =>
      changeNftables((socket) => [
        ...deletion(rulesOf(attachment, listRules(socket, table, checks))),
        ...replaced.map((rule) => addAgain(table, checks, rule)),
      ]);
    changeNftables(
      (socket, again) => {
        replaced = rulesOf(attachment, listRules(socket, table, checks));
        return [
          ...setUp(socket, again),
          ...deletion(replaced),
          ...prefixes.map((prefix) =>
            addRule(table, checks, expressionsOf(prefix), attachmentComment(attachment)),
          ),
        ];
      },
      () => undo('take back the masquerading rules', takeBack),
    );
  },

  async del(attachment) {
    changeNftables((socket) => deletion(rulesOf(attachment, listRules(socket, table, checks))));
  },

  async missing(attachment, prefixes) {
    const look = programs.once;
    const sources = rulesOf(attachment, seenRules(table, checks, look)).map((rule) => sourceOf(rule));
    const lost = prefixes.filter(({ address }) => !sources.some((source) => address.equals(source)));
    const name = `table "${table.family} ${table.name}"`;
    return [
      ...(leadsTo(table, 'postrouting', checks, look) ? [] : [`rules of chain "postrouting" in ${name}`]),
      ...lost.map(({ address }) => `rule for ${address} in ${name}`),
    ];
  },

  async probe() {
    requireNftables();
  },

  async gc(network, valid) {
    const keep = new Set(valid.map(attachmentComment));
    const isStale = (comment: string) => comment.startsWith(`${networkTag(network)}-`) && !keep.has(comment);
    changeNftables((socket) =>
      deletion(listRules(socket, table, checks).filter(({ comment }) => isStale(comment))),
    );
  },
});

/**
 * The attachments that there are rules for, as their comments say. Comments that were cut for their length
 * name none.
 * @param look shares what it finds with other calls of a read-only process.
 */
export function masqueradedAttachments(look?: Once): AttachmentId[] {
  return seenRules(table, checks, look).flatMap(({ comment }) => readAttachmentComment(comment) ?? []);
}

/**
 * The requests that make the table with what all containers share: none when the base chain leads where it
 * should.
 * @param whole whether to make them even then.
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

function rulesOf(attachment: AttachmentId, rules: readonly NftRule[]): NftRule[] {
  const tag = attachmentTag(attachment);
  return rules.filter(({ comment }) => comment.startsWith(tag));
}

/** The rule that masquerades an address unless its packets stay within the subnet. */
function expressionsOf(prefix: Prefix): Attribute[] {
  return [
    ...isFamily(prefix.family),
    ...addressMatch('saddr', '==', prefix.address.toPrefix()),
    ...addressMatch('daddr', '!=', prefix),
    masqueradeVerdict(),
  ];
}

/** The address whose packets a rule masquerades: the first one that it compares with. */
function sourceOf({ expressions }: NftRule): Address | undefined {
  for (const expression of expressions) {
    const value = expression.name === 'cmp' ? expressionValue(expression) : undefined;
    if (value?.length === 4 || value?.length === 16) return Address.fromBytes(value);
  }
  return undefined;
}

function deletion(rules: readonly NftRule[]): Request[] {
  return rules.map(({ handle }) => deleteRule(table, checks, handle));
}
