/** Tables and chains of nf_tables. */

import { isKernelError } from '../libc.ts';
import {
  Attributes,
  be32Attr,
  bytesAttr,
  Flag,
  nestedAttr,
  type Message as ReceivedMessage,
  type Request,
  stringAttr,
} from '../message.ts';
import type { NetlinkSocket } from '../socket.ts';
import {
  absent,
  dumpIfPresent,
  familyOf,
  Message,
  type NftFamily,
  type NftTable,
  request,
  userComment,
} from './wire.ts';

const Table = { Name: 1, Flags: 2, Userdata: 6 } as const;
const Chain = { Table: 1, Name: 3, Hook: 4, Policy: 5, Type: 7, Userdata: 12 } as const;
const Hook = { Number: 1, Priority: 2 } as const;
const NFT_TABLE_F_OWNER = 2;
const NF_DROP = 0;
const NF_ACCEPT = 1;

/** Where in the kernel a base chain sits. */
export interface NftHook {
  /** "filter", "nat" or "route". */
  readonly type: string;
  /** NF_INET_* or NF_BR_*: prerouting 0, input 1, forward 2, output 3, postrouting 4. */
  readonly hook: number;
  readonly priority: number;
}

/** Creates a table unless it is there. */
export function addTable({ family, name }: NftTable, comment?: string): Request {
  return request(`create nftables table "${family} ${name}"`, Message.NewTable, Flag.Create, family, [
    stringAttr(Table.Name, name),
    be32Attr(Table.Flags, 0),
    ...(comment ? [bytesAttr(Table.Userdata, userComment(comment))] : []),
  ]);
}

/**
 * Creates a chain unless it is there.
 * @param options.hook for a base chain, which accepts what it does not drop.
 */
export function addChain(
  table: NftTable,
  name: string,
  options: { hook?: NftHook; comment?: string } = {},
): Request {
  const { hook, comment } = options;
  return request(
    `create nftables chain "${table.name} ${name}"`,
    Message.NewChain,
    Flag.Create,
    table.family,
    [
      stringAttr(Chain.Table, table.name),
      stringAttr(Chain.Name, name),
      ...(hook
        ? [
            nestedAttr(Chain.Hook, [
              be32Attr(Hook.Number, hook.hook),
              be32Attr(Hook.Priority, hook.priority >>> 0),
            ]),
            be32Attr(Chain.Policy, NF_ACCEPT),
            stringAttr(Chain.Type, hook.type),
          ]
        : []),
      ...(comment ? [bytesAttr(Chain.Userdata, userComment(comment))] : []),
    ],
  );
}

/** Removes a chain, which must be empty and unused. */
export function deleteChain(table: NftTable, name: string): Request {
  return request(`remove nftables chain "${table.name} ${name}"`, Message.DelChain, 0, table.family, [
    stringAttr(Chain.Table, table.name),
    stringAttr(Chain.Name, name),
  ]);
}

/** A base chain as the kernel has it. */
export interface NftBaseChain extends NftHook {
  readonly table: NftTable;
  readonly name: string;
  /** It drops packets that none of its rules decides on. */
  readonly drops: boolean;
}

/** The names of a table's chains; none when there is no such table. @throws NetlinkError */
export function listChains(socket: NetlinkSocket, { family, name }: NftTable): string[] {
  const dump = request('list nftables chains', Message.GetChain, 0, family, []);
  return dumpIfPresent(socket, dump, Chain.Name).flatMap(({ payload }) => {
    const attributes = new Attributes(payload.subarray(4));
    return attributes.string(Chain.Table) === name ? (attributes.string(Chain.Name) ?? []) : [];
  });
}

/** The base chains of a family; none when the kernel has no nf_tables. @throws NetlinkError */
export function listBaseChains(socket: NetlinkSocket, family: NftFamily): NftBaseChain[] {
  const dump = request('list nftables chains', Message.GetChain, 0, family, []);
  return dumpIfPresent(socket, dump, Chain.Name).flatMap((message) => readBaseChain(message) ?? []);
}

/** Reads a chain. @returns undefined for one that is not a base chain. */
function readBaseChain({ payload }: ReceivedMessage): NftBaseChain | undefined {
  const family = familyOf(payload[0]!);
  const attributes = new Attributes(payload.subarray(4));
  const hook = attributes.nested(Chain.Hook);
  if (!family || !hook) return undefined;
  return {
    table: { family, name: attributes.string(Chain.Table) ?? '' },
    name: attributes.string(Chain.Name) ?? '',
    type: attributes.string(Chain.Type) ?? '',
    hook: hook.be32(Hook.Number) ?? 0,
    priority: (hook.be32(Hook.Priority) ?? 0) | 0,
    drops: attributes.be32(Chain.Policy) === NF_DROP,
  };
}

/** True when a table has a chain of that name. @throws NetlinkError */
export function hasChain(socket: NetlinkSocket, table: NftTable, name: string): boolean {
  const get = request(`look up nftables chain "${table.name} ${name}"`, Message.GetChain, 0, table.family, [
    stringAttr(Chain.Table, table.name),
    stringAttr(Chain.Name, name),
  ]);
  const [outcome] = socket.attempt(get);
  if (Array.isArray(outcome)) return true;
  if (isKernelError(outcome, ...absent)) return false;
  throw outcome;
}

/** True when a table belongs to a running program, which alone may change it. @throws NetlinkError */
export function isOwnedTable(socket: NetlinkSocket, { family, name }: NftTable): boolean {
  const get = request(`look up nftables table "${family} ${name}"`, Message.GetTable, 0, family, [
    stringAttr(Table.Name, name),
  ]);
  const [answers] = socket.execute(get);
  return (answers ?? []).some(({ payload }) =>
    Boolean((new Attributes(payload.subarray(4)).be32(Table.Flags) ?? 0) & NFT_TABLE_F_OWNER),
  );
}
