/** Expressions of nftables as the kernel lists them, and what reads them. */

import { concat } from '../../lib/netlink/message.ts';
import {
  expressionValue,
  lookedUpSet,
  meta,
  readExpressions,
  verdict,
  verdictIn,
} from '../../lib/netlink/nftables/expressions.ts';
import { readUserText, UserText } from '../../lib/netlink/nftables/wire.ts';

/** The expressions of one rule. */
export const counter = concat([meta('iifname', Buffer.from('eth0\0')), verdict('jump', 'cni')].flat());

export const nftExpressionReaders: readonly ((data: Uint8Array) => unknown)[] = [
  (data) => {
    const expressions = readExpressions(data);
    return expressions.map((one) => [expressionValue(one), lookedUpSet(one), verdictIn(one)]);
  },
  (data) => readUserText(data, UserText.Comment),
];
