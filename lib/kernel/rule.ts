/** Routing policy rules: which table packets are routed by. Source: ip-rule(8), linux/fib_rules.h. */

import { Address, type Family, Prefix } from '../ip.ts';
import {
  Attributes,
  bytesAttr,
  concat,
  Flag,
  numberBytes,
  type Request,
  u32Attr,
  viewOf,
} from '../netlink/message.ts';
import { addressFamily } from './address.ts';
import type { RouteSocket } from './route-socket.ts';

const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTM_GETRULE = 34;
const FRA_SRC = 2;
const FRA_PRIORITY = 6;
const FRA_TABLE = 15;
const FR_ACT_TO_TBL = 1;

/** A rule that sends packets from some addresses to a table. */
export interface SourceRule {
  src: Prefix;
  table: number;
  /** Rules are tried from low to high; when it is left out, the kernel puts a rule before all others but the one for table "local". */
  priority?: number | undefined;
}

/** A rule as the kernel has it. */
export interface Rule extends Omit<SourceRule, 'src'> {
  family: Family;
  /** Absent when it is for packets from everywhere. */
  src?: Prefix;
}

/** Adds a rule. */
export function addRule(rule: SourceRule): Request {
  return ruleRequest('add', RTM_NEWRULE, Flag.Create | Flag.Exclusive, rule);
}

/** Removes a rule. */
export function deleteRule(rule: SourceRule): Request {
  return ruleRequest('remove', RTM_DELRULE, 0, rule);
}

/** The rules of both families. */
export function listRules(socket: RouteSocket): Rule[] {
  return ([4, 6] as const).flatMap((family) => {
    const payload = numberBytes(12, (view) => view.setUint8(0, addressFamily[family]));
    return socket
      .dump({ action: 'list routing rules', type: RTM_GETRULE, flags: 0, payload })
      .map((message) => readRule(family, message.payload));
  });
}

function readRule(family: Family, payload: Uint8Array): Rule {
  const view = viewOf(payload);
  const attributes = new Attributes(payload.subarray(12));
  const src = attributes.bytes(FRA_SRC);
  return {
    family,
    ...(src && { src: new Prefix(Address.fromBytes(src), view.getUint8(2)) }),
    table: attributes.u32(FRA_TABLE) ?? view.getUint8(4),
    priority: attributes.u32(FRA_PRIORITY),
  };
}

/** struct fib_rule_hdr and attributes. */
function ruleRequest(verb: string, type: number, flags: number, rule: SourceRule): Request {
  const { src, table, priority } = rule;
  const header = numberBytes(12, (view) => {
    view.setUint8(0, addressFamily[src.family]);
    view.setUint8(2, src.length);
    view.setUint8(4, table < 256 ? table : 0);
    view.setUint8(7, FR_ACT_TO_TBL);
  });
  const attributes = [bytesAttr(FRA_SRC, src.address.toBytes()), u32Attr(FRA_TABLE, table)];
  if (priority !== undefined) attributes.push(u32Attr(FRA_PRIORITY, priority));
  return {
    action: `${verb} rule "from ${src} lookup ${table}"`,
    type,
    flags,
    payload: concat([header, ...attributes]),
  };
}
