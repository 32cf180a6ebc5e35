/** Routing policy rules: which table packets are routed by. Source: ip-rule(8), linux/fib_rules.h. */

import { type Family, Prefix } from '../ip.ts';
import { attributes, layout } from '../netlink/attributes.ts';
import { isKernelError } from '../netlink/libc.ts';
import { Flag, type Request } from '../netlink/message.ts';
import { each, struct, u8, u32 } from '../netlink/struct.ts';
import { addressFamily, ipAddress } from './family.ts';
import type { RouteSocket } from './route-socket.ts';

const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTM_GETRULE = 34;
const FR_ACT_TO_TBL = 1;

/** struct fib_rule_hdr. */
const ruleHeader = struct({
  ...each(u8, 'family', 'dstLength', 'srcLength', 'tos', 'table', 'reserved1', 'reserved2', 'action'),
  flags: u32,
});
const ruleLayout = layout(
  ruleHeader,
  attributes({
    src: [2, ipAddress, 'source address'],
    priority: [6, u32, 'priority'],
    table: [15, u32, 'table'],
  }),
);

/** A rule that sends packets from some addresses to a table. */
export interface SourceRule {
  src: Prefix;
  table: number;
  /**
   * Rules are tried from low to high; when it is left out, the kernel puts a rule before all others but the
   * one for table "local".
   */
  priority?: number | undefined;
}

/** A rule as the kernel has it. */
export interface Rule extends Omit<SourceRule, 'src'> {
  family: Family;
  /** Absent when it is for packets from everywhere. */
  src?: Prefix;
}

/** Adds a rule. */
export function addRoutingRule(rule: SourceRule): Request {
  return ruleRequest('add', RTM_NEWRULE, Flag.Create | Flag.Exclusive, rule);
}

/** Removes a rule. */
export function deleteRoutingRule(rule: SourceRule): Request {
  return ruleRequest('remove', RTM_DELRULE, 0, rule);
}

/** The rules of both families, or of IPv4 alone where the kernel has no IPv6. */
export function listRoutingRules(socket: RouteSocket): Rule[] {
  return ([4, 6] as const).flatMap((family) => {
    const payload = ruleHeader.encode({ family: addressFamily[family] });
    try {
      return socket
        .dump({ action: 'list routing rules', type: RTM_GETRULE, flags: 0, payload })
        .map((message) => readRule(family, message.payload));
    } catch (error) {
      if (isKernelError(error, 'EAFNOSUPPORT')) return [];
      throw error;
    }
  });
}

function readRule(family: Family, payload: Uint8Array): Rule {
  const { srcLength, ...header } = ruleHeader.decode(payload);
  const { src, table = header.table, priority } = ruleLayout.decode(payload);
  return { family, ...(src && { src: new Prefix(src, srcLength) }), table, priority };
}

function ruleRequest(verb: string, type: number, flags: number, rule: SourceRule): Request {
  const { src, table, priority } = rule;
  return {
    action: `${verb} rule "from ${src} lookup ${table}"`,
    type,
    flags,
    payload: ruleLayout.encode(
      {
        family: addressFamily[src.family],
        srcLength: src.length,
        table: table < 256 ? table : 0,
        action: FR_ACT_TO_TBL,
      },
      { src: src.address, table, priority },
    ),
    names: ruleLayout,
  };
}
