/** Our messages beside those that ip(8) and bridge(8) of iproute2 6.1 send, captured with strace(1). */

import test, { type ExecutionContext } from 'ava';
import { Address, Prefix } from '../../../lib/ip.ts';
import { addAddress } from '../../../lib/kernel/address.ts';
import { setBridgePort } from '../../../lib/kernel/bridge-port.ts';
import { createLink, deleteLink, setLink } from '../../../lib/kernel/link.ts';
import { bridgeKind, macvlanKind, vethKind } from '../../../lib/kernel/link-kinds.ts';
import { addRoute, RouteScope } from '../../../lib/kernel/route.ts';
import { concat, encodeMessage, listAttributes, type Request } from '../../../lib/netlink/message.ts';

const [d0, br0, d1] = [4, 2, 3];

/**
 * Attributes by type, down to nested ones; their order and NLA_F_NESTED mean nothing to the kernel.
 */
type Tree = { [type: string]: string | Tree };
/** Which attributes are nested, by type, with the size of what precedes those inside. */
type Holders = { [type: number]: { skip?: number; within?: Holders } };

function tree(data: Uint8Array, holders: Holders): Tree {
  return Object.fromEntries(
    listAttributes(data)
      .map(([type, value]): [number, string | Tree] => {
        const holder = holders[type];
        if (!holder) return [type, Buffer.from(value).toString('hex')];
        const { skip = 0, within = {} } = holder;
        const head = Buffer.from(value.subarray(0, skip)).toString('hex');
        return [type, { ...(skip && { head }), ...tree(value.subarray(skip), within) }];
      })
      .sort(([a], [b]) => a - b),
  );
}

interface Shape {
  /** Size of the protocol's own header. */
  header: number;
  holders?: Holders;
}

const link: Shape = { header: 16, holders: { 18: { within: { 2: {} } }, 12: {} } };
const vethLink: Shape = { header: 16, holders: { 18: { within: { 2: { within: { 1: { skip: 16 } } } } } } };
const address: Shape = { header: 8 };
const route: Shape = { header: 12, holders: { 8: {} } };

function same(
  t: ExecutionContext,
  ours: Request,
  captured: string,
  { header, holders = {} }: Shape,
  without: number[] = [],
): void {
  const bytes = Uint8Array.from(Buffer.from(captured, 'hex'));
  const own = encodeMessage(ours, 1);
  const read = (message: Uint8Array) => ({
    type: Buffer.from(message.subarray(4, 6)).toString('hex'),
    // NLM_F_ACK is the socket's to set.
    flags: (message[6]! | (message[7]! << 8)) & ~4,
    header: Buffer.from(message.subarray(16, 16 + header)).toString('hex'),
    attributes: tree(message.subarray(16 + header), holders),
  });
  const ip = read(bytes);
  const we = read(own);
  for (const type of without) delete we.attributes[type];
  t.deepEqual(we, ip);
}

test('a pair of interfaces', (t) => {
  same(
    t,
    createLink(vethKind({ name: 'eth0', mac: '0a:00:00:00:00:01' }), { name: 'veth1', mtu: 1400 }),
    '70000000100005060e72056b000000000000000000000000000000000000000008000400780500000a00030076657468310000003c0012000800010076657468300002002c000100000000000000000000000000000000000a0001000a00000000010000090003006574683000000000',
    vethLink,
  );
});

test('a bridge, and an interface on another one', (t) => {
  same(
    t,
    createLink(bridgeKind(), { name: 'br1' }),
    '38000000100005060e72056b00000000000000000000000000000000000000000800030062723100100012000a0001006272696467650000',
    link,
  );
  same(
    t,
    createLink(macvlanKind('vepa'), { name: 'm0', parent: d0 }),
    '4c000000100005060e72056b00000000000000000000000000000000000000000800050004000000070003006d3000001c0012000b0001006d6163766c616e000c0002000800010002000000',
    link,
  );
});

test('changes of an interface, and its end', (t) => {
  // ip sends RTM_NEWLINK for a change, which creates nothing without NLM_F_CREATE; RTM_SETLINK cannot at all.
  const asNew = (request: Request): Request => ({ ...request, type: 16 });
  same(
    t,
    asNew(setLink(d0, { master: br0 })),
    '28000000100005000e72056b000000000000000004000000000000000000000008000a0002000000',
    link,
  );
  same(
    t,
    asNew(setLink(d1, { up: true })),
    '20000000100005000e72056b0000000000000000030000000100000001000000',
    link,
  );
  same(
    t,
    asNew(setLink(d1, { mac: '0a:00:00:00:00:02' })),
    '2c000000100005000f72056b00000000000000000300000000000000000000000a0001000a00000000020000',
    link,
  );
  same(
    t,
    setBridgePort(d0, { hairpin: true, isolated: true }),
    '34000000130005000f72056b000000000700000004000000000000000000000014000c8005000400010000000500210001000000',
    link,
  );
  same(t, deleteLink(d0), '20000000110005000e72056b0000000000000000040000000000000000000000', link);
});

test('addresses', (t) => {
  same(
    t,
    addAddress(d0, Prefix.parse('10.1.0.5/24')),
    '30000000140005060e72056b000000000218000004000000080002000a010005080001000a010005080004000a0100ff',
    address,
  );
  // ip writes the flag into the header, where there is room for the first eight; we write the attribute for
  // all.
  const nodad = addAddress(d0, Prefix.parse('fd00::5/64'), { noDad: true });
  nodad.payload[2] = 2;
  same(
    t,
    nodad,
    '40000000140005060e72056b000000000a4002000400000014000200fd00000000000000000000000000000514000100fd000000000000000000000000000005',
    address,
    [8],
  );
});

test('routes', (t) => {
  const RTA_TABLE = 15;
  const exclusive = (request: Request): Request => ({ ...request, flags: request.flags | 0x200 });
  same(
    t,
    exclusive(
      addRoute({
        dst: Prefix.parse('10.9.0.0/16'),
        gw: Address.parse('10.1.0.1'),
        link: d0,
        mtu: 1300,
        advmss: 1200,
        priority: 5,
        table: 123,
      }),
    ),
    '50000000180005060e72056b00000000021000007b03000100000000080001000a090000080005000a0100010800060005000000080004000400000014000800080002001405000008000800b0040000',
    route,
    [RTA_TABLE],
  );
  same(
    t,
    exclusive(
      addRoute({
        dst: Prefix.parse('10.8.0.1/32'),
        link: d0,
        scope: RouteScope.Link,
        src: Address.parse('10.1.0.5'),
      }),
    ),
    '34000000180005060e72056b0000000002200000fe03fd0100000000080001000a080001080007000a0100050800040004000000',
    route,
    [RTA_TABLE],
  );
});

test('several requests are one send', (t) => {
  const both = concat([encodeMessage(setLink(d1, { up: true }), 7), encodeMessage(deleteLink(d0), 8)]);
  t.is(both.length, 64);
});
