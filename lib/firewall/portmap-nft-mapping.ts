/** A port mapping, read from a rule of nftables. */

import { Address } from '../ip.ts';
import { expressionValue, type NftExpression } from '../netlink/nftables/expressions.ts';
import type { NftRule } from '../netlink/nftables/rules.ts';
import { protocolNumber } from './nftables.ts';

/** A mapping, read from a rule. */
export interface ReadMapping {
  hostIP?: Address | undefined;
  protocol?: string;
  port?: number;
  container?: Address;
  containerPort?: number;
}

/**
 * The parts of a mapping that this module or the reference plugin wrote: what it compares up to the port,
 * then conditions, if it has any, and where the connection goes.
 */
function partsOf({ expressions }: NftRule): {
  matches: readonly NftExpression[];
  conditions: readonly NftExpression[];
  target: readonly NftExpression[];
} {
  const port = expressions.findIndex((one) => one.name === 'cmp' && expressionValue(one)?.length === 2);
  const behind = expressions.slice(port + 1);
  const isTarget = ({ name }: NftExpression) => name === 'immediate' || name === 'nat';
  return {
    matches: expressions.slice(0, port + 1),
    conditions: behind.filter((one) => !isTarget(one)),
    target: behind.filter(isTarget),
  };
}

/** Whether a mapping has conditions of its own. */
export function hasConditions(rule: NftRule): boolean {
  return partsOf(rule).conditions.length > 0;
}

/** Reads a rule that this module or the reference plugin wrote. */
export function readMapping(rule: NftRule): ReadMapping {
  const mapping: ReadMapping = {};
  const { matches, target } = partsOf(rule);
  for (const expression of [...matches, ...target]) {
    const value = expressionValue(expression);
    if (!value) continue;
    if (value.length === 4 || value.length === 16)
      mapping[expression.name === 'cmp' ? 'hostIP' : 'container'] = Address.fromBytes(value);
    else if (value.length === 2)
      mapping[expression.name === 'cmp' ? 'port' : 'containerPort'] = (value[0]! << 8) | value[1]!;
    else if (value.length === 1)
      mapping.protocol = Object.keys(protocolNumber).find((name) => protocolNumber[name] === value[0]) ?? '';
  }
  return mapping;
}
