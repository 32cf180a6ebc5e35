/**
 * What is said when the kernel refuses a request: the words are the user's, and the attribute is the one at
 * fault.
 */

import test from 'ava';
import { Address, Prefix } from '../../../lib/ip.ts';
import { createLink, requireLink, setLink } from '../../../lib/kernel/link.ts';
import { macvlanKind, vethKind, vrfKind } from '../../../lib/kernel/link-kinds.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import { addRoute } from '../../../lib/kernel/route.ts';
import { openRouteSocket } from '../../../lib/kernel/route-socket.ts';
import { attributes } from '../../../lib/netlink/attributes.ts';
import { NetlinkError, readError } from '../../../lib/netlink/error.ts';
import { concat, type Request } from '../../../lib/netlink/message.ts';
import { struct, u32, u64 } from '../../../lib/netlink/struct.ts';

/** An acknowledgement with an error number and what the kernel says besides it. */
function refusal(errno: number, said: Parameters<typeof ack.encode>[0]): Parameters<typeof readError>[0] {
  const head = struct({ errno: u32, length: u32, type: u32, sequence: u32, port: u32 });
  const payload = concat([head.encode({ errno: 2 ** 32 - errno, length: 16 }), ack.encode(said)]);
  return { type: 2, flags: 0x300, sequence: 1, payload };
}
const ack = attributes({
  offset: [2, u32],
  policy: [4, attributes({ min: [4, u64], max: [5, u64] })],
});

/** Offset of an attribute in the message of a request. */
function offsetOf({ payload }: Request, attribute: string): number {
  return 16 + Buffer.from(payload).indexOf(Buffer.from(attribute, 'hex'));
}

test('the attribute at fault is found by its offset, with the range of its values', (t) => {
  const request = createLink(vrfKind(0), { name: 'red', mtu: 1500 });
  const offset = offsetOf(request, '0800010000000000');
  const error = readError(refusal(34, { offset, policy: { min: 1n, max: 4294967295n } }), request, 0);
  t.is(
    error?.message,
    'Cannot create vrf interface "red": the kernel does not accept table 0, which must be between 1 and 4294967295 (ERANGE)',
  );
  t.deepEqual(error?.attribute, { label: 'table', value: '0' });
});

test('it is found within attributes within attributes, as in the settings of a peer', (t) => {
  const request = createLink(vethKind({ name: 'eth0', mtu: 20 }), { name: 'veth1' });
  const error = readError(refusal(22, { offset: offsetOf(request, '0800040014000000') }), request, 0);
  t.deepEqual(error?.attribute, { label: 'MTU', value: '20' });
  t.is(
    error?.message,
    'Cannot create veth interface "veth1": the kernel does not accept MTU 20, which must be between 68 and 65535 (EINVAL)',
  );
});

test('without an offset, a value is at fault that no interface can have, and none that one can', (t) => {
  for (const [mtu, value] of [
    [67, '67'],
    [68, undefined],
    [65_535, undefined],
    [65_536, '65536'],
  ] as const) {
    const error = readError(refusal(22, {}), createLink(vrfKind(1), { name: 'red', mtu }), 0);
    t.is(error?.attribute?.value, value, `${mtu}`);
  }
});

test('an offset that leads nowhere names nothing', (t) => {
  const request = createLink(macvlanKind('bridge', 7), { name: 'm0' });
  for (const offset of [0, 15, 16, 31, 10_000, 2 ** 32 - 1]) {
    const error = readError(refusal(34, { offset }), request, 0);
    t.is(error?.attribute, undefined);
    t.regex(error!.message, /^Cannot create macvlan interface "m0": .*\(ERANGE\)$/);
  }
});

test('the kernel of this machine: every refusal says which value it does not accept', (t) => {
  using netns = Netns.create();
  using socket = openRouteSocket(netns);
  socket.execute(createLink(vethKind({ name: 'b' }), { name: 'a', up: true }));
  const { index } = requireLink(socket, 'a');
  for (const [request, label, value] of [
    [createLink(vethKind({ name: 'd', mtu: 20 }), { name: 'c', mtu: 20 }), 'MTU', '20'],
    [createLink(vethKind({ name: 'd', mtu: 70_000 }), { name: 'c' }), 'MTU', '70000'],
    [setLink(index, { mtu: 20 }, 'a'), 'MTU', '20'],
    [
      addRoute({ dst: Prefix.parse('10.9.0.0/16'), gw: Address.parse('10.8.0.1'), link: index, advmss: 0 }),
      undefined,
      undefined,
    ],
  ] as const) {
    const error = t.throws(() => socket.execute(request), { instanceOf: NetlinkError })!;
    t.is(error.attribute?.label, label, error.message);
    t.is(error.attribute?.value, value);
  }
});
