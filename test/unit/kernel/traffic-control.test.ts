/** Compared with what tc(8) sends for the same. */

import test from 'ava';
import type { RouteSocket } from '../../../lib/kernel/route-socket.ts';
import {
  addIngress,
  addTokenBucket,
  getTokenBucket,
  ingressRedirections,
  redirectIngress,
  tokenBucket,
  wrap,
} from '../../../lib/kernel/traffic-control.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

test("a token bucket has the reference plugin's burst and limit", (t) => {
  t.deepEqual(tokenBucket(1_000_000, 100_000, 0.025), { rate: 1_000_000, buffer: 1_562_500, limit: 125_000 });
  t.deepEqual(tokenBucket(1_500_000, 10_000, 0.025), { rate: 1_500_000, buffer: 104_156, limit: 47_500 });
});

test('numbers that the kernel has no room for stay at the highest that it has', (t) => {
  const { buffer, limit } = tokenBucket(1e12, 4e9, 0.025);
  t.is(limit, 0xffffffff);
  t.is(buffer, 62_500);
  t.is(tokenBucket(1, 4e9, 0.025).buffer, 0xffffffff);
});

test('the reference leaves out what does not fit, at each step', (t) => {
  t.deepEqual(tokenBucket(1_250_000, 536_870_911, 0.025, wrap), {
    rate: 1_250_000,
    buffer: 2_415_919_079,
    limit: 536_902_161,
  });
  t.is(tokenBucket(125_000, 2 ** 32 - 2, 0.025, wrap).limit, 3123);
});

test('the request for an ingress queue is that of tc', (t) => {
  t.is(
    hex(addIngress(2, 'ifb9').payload),
    '00000000' + '02000000' + '0000ffff' + 'f1ffffff' + '00000000' + '0c000100' + '696e677265737300',
  );
});

test('the redirection is that of tc', (t) => {
  const sent = hex(redirectIngress(2, 2, 'ifb9').payload);
  const action =
    '0b000100' +
    '6d69727265640000' +
    '24000280' +
    '20000200' +
    '00000000000000000400000000000000' +
    '000000000100000002000000';
  const selector = `2400050001000100${'00000000'.repeat(7)}`;
  t.true(sent.includes(action));
  t.true(sent.includes(selector));
  // Protocol "all" and priority 1.
  t.is(sent.slice(32, 40), '00030100');
});

test('what was set is read back, also above 32 bits', (t) => {
  for (const wanted of [tokenBucket(1_000_000, 100_000, 0.025), tokenBucket(10_000_000_000, 1e9, 0.025)]) {
    const { payload } = addTokenBucket(2, wanted, 'ifb9');
    const reply = { type: 36, flags: 0, sequence: 1, payload };
    const socket = { execute: () => [[reply]] } as unknown as RouteSocket;
    t.deepEqual(getTokenBucket(socket, 2), wanted);
  }
});

test('filters of other kinds, whose options have other meanings, are passed over', (t) => {
  /** An attribute of netlink: its length, its type, and its value up to a multiple of four bytes. */
  const attribute = (type: number, value: Uint8Array) => {
    const bytes = Buffer.alloc(4 + Math.ceil(value.length / 4) * 4);
    bytes.writeUInt16LE(4 + value.length, 0);
    bytes.writeUInt16LE(type, 2);
    bytes.set(value, 4);
    return bytes;
  };
  const filter = (kind: string, ...options: Uint8Array[]) => ({
    payload: Buffer.concat([
      Buffer.alloc(20),
      attribute(1, Buffer.from(`${kind}\0`)),
      attribute(2, Buffer.concat(options)),
    ]),
  });
  const redirect = { payload: redirectIngress(2, 7, 'one').payload };
  const messages = [
    // TCA_BPF_NAME, and the masks of TCA_FLOWER_KEY_ETH_DST and _SRC. Source: include/uapi/linux/pkt_cls.h.
    filter('bpf', attribute(7, Buffer.from('cil_from_container\0'))),
    filter('flower', attribute(5, Buffer.alloc(6, 0xff)), attribute(7, Buffer.alloc(6, 0xff))),
    filter('matchall'),
    redirect,
  ];
  const socket = { dump: () => messages } as unknown as RouteSocket;
  t.deepEqual(ingressRedirections(socket, 2), [{ to: 7, takesAll: true, payload: redirect.payload }]);
});
