/** Copies of routes, from what the kernel says of them. */

import test from 'ava';
import { copyRoute, listRoutes, listRoutesOver, removeRoute } from '../../../lib/kernel/route.ts';
import type { RouteSocket } from '../../../lib/kernel/route-socket.ts';
import { KernelError } from '../../../lib/netlink/libc.ts';

/** 192.0.2.0/24 with next hops 10.94.0.5 (weight 2, its link down) and 10.94.0.6, metric 7, MTU 1300. */
const answer =
  '02180000' +
  'fe030001' +
  '00000000' +
  '08000f00' +
  'fe000000' +
  '08000100' +
  'c0000200' +
  '08000600' +
  '07000000' +
  '0c000880' +
  '08000200' +
  '14050000' +
  '24000900' +
  '10001101' +
  '02000000' +
  '08000500' +
  '0a5e0005' +
  '10000000' +
  '02000000' +
  '08000500' +
  '0a5e0006' +
  '24000c00' +
  '00'.repeat(32);

function read() {
  const payload = Uint8Array.from(Buffer.from(answer, 'hex'));
  const socket = { dump: () => [{ type: 24, flags: 2, sequence: 1, payload }] } as unknown as RouteSocket;
  return listRoutes(socket)[0]!;
}

test('a route with several next hops is read', (t) => {
  const { dst, priority, mtu, table, hops } = read();
  t.deepEqual([String(dst), priority, mtu, table], ['192.0.2.0/24', 7, 1300, 254]);
  t.deepEqual(
    hops.map(({ link, gw, weight }) => [link, String(gw), weight]),
    [
      [2, '10.94.0.5', 2],
      [2, '10.94.0.6', 1],
    ],
  );
});

test('its copy has another table and no state, and all the rest', (t) => {
  const { payload } = copyRoute(read(), 1234);
  const copy = Buffer.from(payload).toString('hex');
  t.is(
    copy,
    '02180000' +
      '00030001' +
      '00000000' +
      '08000100' +
      'c0000200' +
      '08000600' +
      '07000000' +
      '0c000800' +
      '08000200' +
      '14050000' +
      '24000900' +
      '10000001' +
      '02000000' +
      '08000500' +
      '0a5e0005' +
      '10000000' +
      '02000000' +
      '08000500' +
      '0a5e0006' +
      '08000f00' +
      'd2040000',
  );
});

test('one next hop is copied without its state, and with all the rest, such as an encapsulation', (t) => {
  const header = '0a000000fe03000100000000';
  const gateway = (last: string) => `1400050020010db80000000000000000000000${last}`;
  const encapsulated = `${gateway('05')}06001500010000000c00160008000100000641ff`;
  const others = `1c00000003000000${gateway('06')}`;
  const payload = Uint8Array.from(
    Buffer.from(`${header}500009003000140202000000${encapsulated}${others}`, 'hex'),
  );
  const socket = { dump: () => [{ type: 24, flags: 2, sequence: 1, payload }] } as unknown as RouteSocket;
  const [route, ...more] = listRoutesOver(socket, 2);
  t.deepEqual([String(route?.gw), more.length], ['2001:db8::5', 0]);
  t.is(
    Buffer.from(copyRoute(route!, 1234).payload).toString('hex'),
    `0a0000000003000100000000340009003000040202000000${encapsulated}08000f00d2040000`,
  );
});

test('it is removed from its own table', (t) => {
  const { payload, type } = removeRoute(read());
  t.is(type, 25);
  t.is(payload[4], 254);
});

test('a kernel without IPv6 answers with the routes of IPv4, which are not taken for IPv6', (t) => {
  const payload = Uint8Array.from(Buffer.from(answer, 'hex'));
  const socket = { dump: () => [{ type: 24, flags: 2, sequence: 1, payload }] } as unknown as RouteSocket;
  t.deepEqual(listRoutes(socket, { family: 6 }), []);
  t.is(listRoutes(socket, { family: 4 }).length, 1);
});

test('a table or a family that the kernel does not have has no routes; any other error counts', (t) => {
  const [ENOENT, EPERM, EAFNOSUPPORT] = [2, 1, 97];
  const list = (errno: number, filter: Parameters<typeof listRoutes>[1]) => {
    const dump = () => {
      throw new KernelError('list routes', errno);
    };
    return listRoutes({ dump } as unknown as RouteSocket, filter);
  };
  t.deepEqual(list(ENOENT, { table: 100 }), []);
  t.deepEqual(list(EAFNOSUPPORT, { family: 6 }), []);
  t.throws(() => list(EPERM, { table: 100 }), { message: /EPERM/ });
  t.throws(() => list(ENOENT, { family: 4 }), { message: /ENOENT/ });
});
