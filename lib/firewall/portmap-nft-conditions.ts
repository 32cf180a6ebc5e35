/**
 * Conditions of port mappings in nftables. They are in nft's own language, which only nft can read: it writes
 * them into a chain that nothing leads to, from where they are copied to each mapping of the network.
 */

import type { AttachmentId } from '../attachment.ts';
import { type Family, families } from '../ip.ts';
import { ProgramMissingError, type Programs } from '../kernel/programs.ts';
import type { Attribute, Request } from '../netlink/message.ts';
import { copyExpression } from '../netlink/nftables/expressions.ts';
import { addChain, addTable, deleteChain, hasChain, listChains } from '../netlink/nftables/objects.ts';
import { flushChain, listRules } from '../netlink/nftables/rules.ts';
import type { NftTable } from '../netlink/nftables/wire.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { attachmentTag, networkTag } from './names.ts';
import { changeNftables, withNftables } from './nftables.ts';
import type { PortMapOptions } from './portmap-backend.ts';
import { tableComment, tables } from './portmap-nft-rules.ts';

/** What a packet must meet, for each family. */
export type Conditions = Readonly<Record<Family, readonly Attribute[]>>;

/** What the names of these chains start with. */
const prefix = 'conditions-';
/** Expressions that the rule has after the conditions: "fib daddr type local return". */
const behind = ['fib', 'cmp', 'immediate'];

/**
 * Has nft read the conditions of a network.
 * @param wanted families whose conditions are needed; the others get none.
 * @throws Error when nft is missing, or refuses them.
 */
export async function readConditions(
  programs: Programs,
  attachment: AttachmentId,
  { conditions }: PortMapOptions,
  wanted: readonly Family[],
): Promise<Conditions> {
  const read: Record<Family, readonly Attribute[]> = { 4: [], 6: [] };
  for (const family of families)
    if (wanted.includes(family) && conditions[family].length > 0)
      read[family] = await readFamily(programs, attachment, family, conditions[family]);
  return read;
}

async function readFamily(
  programs: Programs,
  attachment: AttachmentId,
  family: Family,
  words: readonly string[],
): Promise<Attribute[]> {
  if (words.some((word) => /[;{}\n\r\0]/.test(word)))
    throw new Error(
      `"conditionsV${family}" holds ";", "{", "}" or a line break. Write one match of nft there, word by word`,
    );
  const table = tables[family];
  const chain = chainOf(attachment);
  try {
    changeNftables(() => [addTable(table, tableComment), addChain(table, chain), flushChain(table, chain)]);
    const rule = `${table.family} ${table.name} ${chain} ${words.join(' ')} fib daddr type local return`;
    const { status, stderr } = await programs
      .run('nft', ['-f', '-'], `add rule ${rule}\n`)
      .catch((error: Error) => {
        if (!(error instanceof ProgramMissingError)) throw error;
        throw new Error(
          `"conditionsV${family}" needs the program "nft". Install the package "nftables" on the host`,
        );
      });
    if (status !== 0) throw new Error(`nft refuses "conditionsV${family}": ${stderr.trim().split('\n')[0]}`);
    const rules = withNftables((socket) => listRules(socket, table, chain));
    const expressions = rules.flatMap((one) => one.expressions);
    const own = expressions.slice(0, -behind.length);
    // Without them the ports would be open to everybody.
    if (own.length === 0 || expressions.slice(own.length).some(({ name }, i) => name !== behind[i]))
      throw new Error(
        `nft does not make rules of "conditionsV${family}" as they are wanted. Write matches there alone, such as ["ip", "saddr", "192.0.2.0/24"]`,
      );
    return own.map(copyExpression);
  } finally {
    changeNftables((socket) => removeConditions(socket, attachment));
  }
}

/** The requests that remove what a killed ADD of an attachment had nft read. @throws NetlinkError */
export function removeConditions(socket: NetlinkSocket, attachment: AttachmentId): Request[] {
  const chain = chainOf(attachment);
  return Object.values(tables)
    .filter((table) => hasChain(socket, table, chain))
    .flatMap((table) => removal(table, chain));
}

/** As {@link removeConditions}, for all attachments to a network but those that are valid. */
export function collectConditions(
  socket: NetlinkSocket,
  network: string,
  valid: readonly AttachmentId[],
): Request[] {
  const keep = new Set(valid.map(chainOf));
  return Object.values(tables).flatMap((table) =>
    listChains(socket, table)
      .filter((chain) => chain.startsWith(`${prefix}${networkTag(network)}-`) && !keep.has(chain))
      .flatMap((chain) => removal(table, chain)),
  );
}

function chainOf(attachment: AttachmentId): string {
  return prefix + attachmentTag(attachment);
}

function removal(table: NftTable, chain: string): Request[] {
  return [flushChain(table, chain), deleteChain(table, chain)];
}
