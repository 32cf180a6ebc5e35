/** Compared with what ip(8) sends, and what the kernel answers it. */

import test from 'ava';
import { Prefix } from '../../../lib/ip.ts';
import type { RouteSocket } from '../../../lib/kernel/route-socket.ts';
import { addRoutingRule, listRoutingRules } from '../../../lib/kernel/rule.ts';
import { KernelError } from '../../../lib/netlink/libc.ts';
import type { Request } from '../../../lib/netlink/message.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

test('the request for a rule is that of ip, with the table spelled out', (t) => {
  const { payload } = addRoutingRule({ src: Prefix.parse('10.93.0.2/32'), table: 100 });
  t.is(
    hex(payload),
    '02002000' + '64000001' + '00000000' + '08000200' + '0a5d0002' + '08000f00' + '64000000',
  );
});

test('a table above 255 has no room in the header', (t) => {
  const { payload } = addRoutingRule({ src: Prefix.parse('fd00::2/128'), table: 4000 });
  t.is(
    hex(payload),
    '0a008000' +
      '00000001' +
      '00000000' +
      '14000200' +
      'fd000000000000000000000000000002' +
      '08000f00' +
      'a00f0000',
  );
});

test('rules are read from the answers of the kernel', (t) => {
  const answers = [
    // 0: from all lookup local
    '02000000' +
      'ff000001' +
      '00000000' +
      '08000f00' +
      'ff000000' +
      '08000e00' +
      'ffffffff' +
      '05001500' +
      '02000000',
    // 32765: from 10.93.0.2 lookup 100
    '02002000' +
      '64000001' +
      '00000000' +
      '08000f00' +
      '64000000' +
      '08000e00' +
      'ffffffff' +
      '05001500' +
      '00000000' +
      '08000600' +
      'fd7f0000' +
      '08000200' +
      '0a5d0002',
  ].map((text) => ({ type: 32, flags: 2, sequence: 1, payload: Uint8Array.from(Buffer.from(text, 'hex')) }));
  const dumps = [answers, []];
  const socket = { dump: () => dumps.shift() } as unknown as RouteSocket;
  t.deepEqual(listRoutingRules(socket), [
    { family: 4, table: 255, priority: undefined },
    { family: 4, table: 100, priority: 32765, src: Prefix.parse('10.93.0.2/32') },
  ]);
});

test('a kernel without IPv6 has the rules of IPv4', (t) => {
  const local = Uint8Array.from(Buffer.from('02000000ff0000010000000008000f00ff000000', 'hex'));
  const socket = {
    dump({ payload }: Request) {
      if (payload[0] === 10) throw new KernelError('list routing rules', 97);
      return [{ type: 32, flags: 2, sequence: 1, payload: local }];
    },
  } as unknown as RouteSocket;
  t.deepEqual(listRoutingRules(socket), [{ family: 4, table: 255, priority: undefined }]);
});
