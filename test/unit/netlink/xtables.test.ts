import test from 'ava';
import {
  Attributes,
  be32Attr,
  be64Attr,
  bytesAttr,
  concat,
  encodeMessage,
  headerSize,
  nestedAttr,
  type Request,
  stringAttr,
} from '../../../lib/netlink/message.ts';
import { findChainsOfPorts, listRawRules } from '../../../lib/netlink/nftables/xtables.ts';
import { NetlinkSocket } from '../../../lib/netlink/socket.ts';

/** A match as NFTA_LIST_ELEM with NFTA_EXPR_NAME and NFTA_EXPR_DATA of linux/netfilter/nf_tables.h. */
function match(name: string, info: Uint8Array): Uint8Array {
  const data = [stringAttr(1, name), be32Attr(2, 1), bytesAttr(3, info)];
  return nestedAttr(1, [stringAttr(1, 'match'), nestedAttr(2, data)]);
}

/** struct xt_multiport_v1 of linux/netfilter/xt_multiport.h. @param ranges indices of their first ports. */
function multiport(
  ports: readonly number[],
  { ranges = [], invert = false }: { ranges?: readonly number[]; invert?: boolean } = {},
): Uint8Array {
  const info = Buffer.alloc(48);
  info.set([1, ports.length]);
  for (const [i, port] of ports.entries()) info.writeUInt16LE(port, 2 + 2 * i);
  for (const i of ranges) info[32 + i] = 1;
  info[47] = invert ? 1 : 0;
  return match('multiport', info);
}

/** A rule that jumps to a chain, as the kernel lists it: struct nfgenmsg, and NFTA_RULE_EXPRESSIONS. */
function rule(chain: string, ...matches: Uint8Array[]): Uint8Array {
  const verdict = nestedAttr(2, [nestedAttr(2, [be32Attr(1, -3 >>> 0), stringAttr(2, chain)])]);
  const jump = nestedAttr(1, [stringAttr(1, 'immediate'), nestedAttr(2, [be32Attr(1, 0), verdict])]);
  return concat([new Uint8Array(4), nestedAttr(4, [...matches, jump])]);
}

/** Searches rules for ports. @param interrupted how many times the list is said to have changed. */
function search(rules: readonly Uint8Array[], ports: readonly number[], interrupted = 0): string[] {
  let lists = 0;
  const socket: NetlinkSocket = Object.assign(Object.create(NetlinkSocket.prototype), {
    searchOnce({ payload }: Request, visit: (data: Buffer, from: number, to: number) => void) {
      // NFTA_RULE_TABLE and NFTA_RULE_CHAIN, without which the kernel lists the rules of every chain.
      const asked = new Attributes(payload.subarray(4));
      if (asked.string(1) !== 'nat' || asked.string(2) !== 'CNI-HOSTPORT-DNAT')
        throw new Error('Another chain');
      const data = Buffer.from(concat([new Uint8Array(16), ...rules]));
      let from = 16;
      for (const { length } of rules) {
        visit(data, from, from + length);
        from += length;
      }
      return ++lists > interrupted;
    },
  });
  return findChainsOfPorts(socket, { family: 'ip', name: 'nat' }, 'CNI-HOSTPORT-DNAT', ports);
}

test('rules are found by any of their ports', (t) => {
  const fifteen = Array.from({ length: 15 }, (_, i) => 5000 + i);
  const rules = [
    rule('A', multiport([80])),
    rule('B', multiport([443, 8080, 65_535])),
    rule('C', multiport(fifteen)),
  ];
  for (const [ports, chains] of [
    [[80], ['A']],
    [[443], ['B']],
    [[8080], ['B']],
    [[65_535], ['B']],
    [[5000], ['C']],
    [[5014], ['C']],
    [
      [80, 5007],
      ['A', 'C'],
    ],
    [[0], []],
    [[81, 20_480], []],
  ] as const)
    t.deepEqual(search(rules, ports), chains, ports.join());
});

test('a rule with a range, an inversion or no match of ports may be about any', (t) => {
  const rules = [
    rule('first', multiport([80, 90], { ranges: [0] })),
    rule('last', multiport([1, 80, 90], { ranges: [1] })),
    rule('inverted', multiport([80], { invert: true })),
    rule('none'),
    rule('other', match('tcp', Buffer.alloc(12))),
    rule('plain', multiport([80])),
  ];
  t.deepEqual(search(rules, [7]), ['first', 'last', 'inverted', 'none', 'other']);
});

test('the name of the match within a comment is only text', (t) => {
  const comment = match('comment', Buffer.from('multiport\0'.padEnd(256, '\x07')));
  t.deepEqual(search([rule('A', comment, multiport([80]))], [7]), []);
  t.deepEqual(search([rule('A', comment, multiport([80]))], [80]), ['A']);
});

test('a list that changes while it is read is read anew', (t) => {
  t.deepEqual(search([rule('A', multiport([80]))], [80], 2), ['A']);
  t.deepEqual(search([rule('A', multiport([80]))], [80], 1000), ['A'], 'but not for ever');
});

/** A socket whose lists are these, one reading after the other, from the last on always the same. */
function listing(readings: readonly { readonly rules: readonly Uint8Array[]; readonly isWhole: boolean }[]) {
  let lists = 0;
  const socket: NetlinkSocket = Object.assign(Object.create(NetlinkSocket.prototype), {
    searchOnce(request: Request, visit: (data: Buffer, from: number, to: number) => void) {
      const { rules, isWhole } = readings[Math.min(lists++, readings.length - 1)]!;
      for (const payload of rules)
        visit(
          Buffer.from(encodeMessage({ ...request, payload }, 1)),
          headerSize,
          headerSize + payload.length,
        );
      return isWhole;
    },
  });
  const list = () =>
    listRawRules(socket, { family: 'ip', name: 'nat' }, 'CNI-HOSTPORT-DNAT').map(({ target }) => target);
  return { list, lists: () => lists };
}

/** With NFTA_RULE_HANDLE. */
const numbered = (handle: number, chain: string) => concat([rule(chain), be64Attr(3, BigInt(handle))]);

test('the rules of a list that nothing interrupts are those of that list', (t) => {
  const { list, lists } = listing([
    { rules: [numbered(1, 'gone'), numbered(2, 'A')], isWhole: false },
    { rules: [numbered(2, 'A'), numbered(3, 'B')], isWhole: true },
  ]);
  t.deepEqual(list(), ['A', 'B']);
  t.is(lists(), 2);
});

test('a rule is missing from lists that are all interrupted only if it is from each', (t) => {
  const { list, lists } = listing([
    { rules: [numbered(1, 'A')], isWhole: false },
    { rules: [numbered(1, 'A'), numbered(3, 'C')], isWhole: false },
    { rules: [numbered(2, 'B'), numbered(3, 'C')], isWhole: false },
    { rules: [], isWhole: false },
  ]);
  t.deepEqual(list(), ['A', 'C', 'B']);
  t.is(lists(), 5, 'no call waits for ever');
});
