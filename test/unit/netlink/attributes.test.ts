/**
 * Descriptions of structures and attributes: what they write is what C writes, and what they read is what was
 * written.
 */

import test from 'ava';
import { attributes, layout, list, raw, repeated, text, word } from '../../../lib/netlink/attributes.ts';
import { be16, byteArray, each, i32, struct, u8, u16, u32, u64 } from '../../../lib/netlink/struct.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

test('fields are aligned as a C compiler aligns them', (t) => {
  // Sizes of linux/if_link.h, rtnetlink.h, pkt_sched.h and if_packet.h.
  t.is(struct({ family: u8, type: u16, index: i32, flags: u32, change: u32 }).size, 16);
  t.is(struct({ ...each(u8, 'a', 'b', 'c', 'd'), index: u32 }).size, 8);
  const rate = struct({ cellLog: u8, linkLayer: u8, overhead: u16, cellAlign: u16, mpu: u16, rate: u32 });
  t.is(struct({ rate, peakRate: rate, limit: u32, buffer: u32, mtu: u32 }).size, 36);
  t.is(struct({ small: u8, wide: u64, end: u8 }).size, 24);
  const ll = struct({
    ...each(u16, 'a', 'b'),
    index: i32,
    type: u16,
    ...each(u8, 'c', 'd'),
    mac: byteArray(8),
  });
  t.is(ll.size, 20);
});

test('a structure is written and read, and what is left out is zero', (t) => {
  const inner = struct({ port: be16, weight: u8 });
  const outer = struct({ kind: u8, inner, index: i32, wide: u64, mac: byteArray(4) });
  const written = outer.encode({ kind: 7, inner: { port: 0x0102 }, index: -2, mac: Uint8Array.of(9, 8) });
  t.is(hex(written), `07000102${'0000'}0000feffffff${'00000000'}${'00'.repeat(8)}${'09080000'}${'00000000'}`);
  t.deepEqual(outer.decode(written), {
    kind: 7,
    inner: { port: 0x0102, weight: 0 },
    index: -2,
    wide: 0n,
    mac: Uint8Array.of(9, 8, 0, 0),
  });
});

test('a structure that is cut short is an error, never read past its end', (t) => {
  const shape = struct({ a: u32, b: u32 });
  for (let length = 0; length < shape.size; length++)
    t.throws(() => shape.decode(new Uint8Array(length)), { instanceOf: RangeError });
  t.throws(() => u32.decode(new Uint8Array(3)), { message: /3 bytes where 4 are needed/ });
});

const table = attributes({
  name: [3, text],
  mtu: [4, u32, 'MTU'],
  info: [18, attributes({ kind: [1, word], data: [2, raw] })],
  vlans: [2, repeated(struct({ flags: u16, vid: u16 }))],
  actions: [7, list(attributes({ kind: [1, text] }))],
});

test('attributes are written as netlink has them', (t) => {
  t.is(
    hex(table.encode({ mtu: 1500, name: 'ab', vlans: undefined })),
    '08000400dc050000' + '0700030061620000',
  );
  t.is(hex(table.encode({ info: { kind: 'veth' } })), '0c001280' + '0800010076657468');
  t.is(hex(table.encode({ vlans: [{ vid: 5 }, { vid: 6, flags: 2 }] })), '08000200000005000800020002000600');
  t.is(hex(table.encode({})), '');
});

test('attributes are read, and those that nobody described are passed over', (t) => {
  const values = {
    name: 'eth0',
    mtu: 1400,
    info: { kind: 'ifb', data: Uint8Array.of(1, 2, 3) },
    vlans: [{ flags: 0, vid: 5 }],
    actions: [{ kind: 'mirred' }, { kind: 'gact' }],
  };
  const unknown = Uint8Array.from(Buffer.from('08006300ffffffff', 'hex'));
  const bytes = Uint8Array.from([...unknown, ...table.encode(values)]);
  t.deepEqual(table.decode(bytes), values);
  const message = layout(struct({ index: u32 }), table);
  const payload = message.encode({ index: 3 }, values);
  t.deepEqual(message.decode(payload), values);
  t.is(message.header.decode(payload).index, 3);
  for (let length = 5; length < payload.length; length++)
    t.notThrows(() => {
      try {
        message.decode(payload.subarray(0, length));
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
      }
    });
});
