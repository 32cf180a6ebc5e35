/** Tables and chains of nf_tables. */

import { be32Attr, bytesAttr, Flag, nestedAttr, type Request, stringAttr } from '../message.ts';
import { Message, type NftTable, request, userComment } from './wire.ts';

const Table = { Name: 1, Flags: 2, Userdata: 6 } as const;
const Chain = { Table: 1, Name: 3, Hook: 4, Policy: 5, Type: 7, Userdata: 12 } as const;
const NF_ACCEPT = 1;

/** Where in the kernel a base chain sits. */
export interface NftHook {
  readonly type: 'filter' | 'nat';
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

/** Creates a chain unless it is there. @param options.hook for a base chain, which accepts what it does not drop. */
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
            nestedAttr(Chain.Hook, [be32Attr(1, hook.hook), be32Attr(2, hook.priority >>> 0)]),
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
