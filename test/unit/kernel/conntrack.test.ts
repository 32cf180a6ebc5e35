/** Tracked connections, in a namespace whose kernel is told of them. */

import test from 'ava';
import { forgetUdp } from '../../../lib/kernel/conntrack.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import {
  Attributes,
  be32Attr,
  bytesAttr,
  concat,
  nestedAttr,
  type Request,
} from '../../../lib/netlink/message.ts';
import { NetlinkProtocol, NetlinkSocket } from '../../../lib/netlink/socket.ts';
import { be16 } from '../../../lib/netlink/struct.ts';

/** Message types of connection tracking: IPCTNL_MSG_CT_NEW and IPCTNL_MSG_CT_GET. */
const Type = { create: 0x100, list: 0x101 } as const;
const [tcp, udp] = [6, 17];

/** Addresses and ports of one direction. Source: linux/netfilter/nfnetlink_conntrack.h. */
function tuple(type: number, from: Uint8Array, to: Uint8Array, protocol: number, ports: [number, number]) {
  const addresses =
    from.length === 4 ? [bytesAttr(1, from), bytesAttr(2, to)] : [bytesAttr(3, from), bytesAttr(4, to)];
  const [source, target] = ports.map((port) => be16.encode(port)) as [Uint8Array, Uint8Array];
  const numbers = [bytesAttr(1, Uint8Array.of(protocol)), bytesAttr(2, source), bytesAttr(3, target)];
  return nestedAttr(type, [nestedAttr(1, addresses), nestedAttr(2, numbers)]);
}

/** A connection from this host to a port of it. */
function connection(family: 4 | 6, protocol: number, port: number, client: number): Request {
  const loopback = family === 4 ? Uint8Array.of(127, 0, 0, 1) : new Uint8Array(16).fill(1, 15);
  // The header of the attribute of a port as an address, which is not to be mistaken for it.
  const from = family === 4 ? Uint8Array.of(6, 0, 3, 0) : new Uint8Array(16).fill(6);
  return {
    ...{ action: 'track a connection', type: Type.create, flags: 0x600 },
    payload: concat([
      Uint8Array.of(family === 4 ? 2 : 10, 0, 0, 0),
      tuple(1, from, loopback, protocol, [client, port]),
      tuple(2, loopback, from, protocol, [port, client]),
      be32Attr(7, 600),
      ...(protocol === tcp ? [nestedAttr(4, [nestedAttr(1, [bytesAttr(1, Uint8Array.of(3))])])] : []),
    ]),
  };
}

/** What is tracked, as in "udp4 53". */
function tracked(socket: NetlinkSocket): string[] {
  const list = { action: 'list', type: Type.list, flags: 0, payload: new Uint8Array(4) };
  return socket
    .dump(list)
    .map(({ payload }) => {
      const numbers = new Attributes(payload.subarray(4)).nested(1)!.nested(2)!;
      const protocol = numbers.u8(1) === udp ? 'udp' : 'tcp';
      return `${protocol}${payload[0] === 2 ? 4 : 6} ${numbers.be16(3)}`;
    })
    .sort();
}

/**
 * Tracks connections, and has those to UDP ports of IPv4 forgotten.
 * @param change of the request for the list.
 * @returns how many the kernel listed, and what is left.
 */
function forget(ports: readonly number[], change = (request: Request) => request) {
  using netns = Netns.create();
  using socket = netns.run(() => new NetlinkSocket(NetlinkProtocol.Netfilter));
  socket.execute(
    ...[53, 53, 5353, 8053].map((port, i) => connection(4, udp, port, 4000 + i)),
    connection(4, tcp, 53, 4000),
    connection(6, udp, 53, 4000),
    // Only the client's port is wanted, which is that of the answer.
    connection(4, udp, 9, 53),
  );
  let listed = 0;
  const { search } = NetlinkSocket.prototype;
  NetlinkSocket.prototype.search = function (request, visit) {
    search.call(this, request.type === Type.list ? change(request) : request, (...message) => {
      if (request.type === Type.list) listed++;
      visit(...message);
    });
  };
  try {
    netns.run(() => forgetUdp(ports.map((port) => ({ family: 4, port }))));
  } finally {
    Object.assign(NetlinkSocket.prototype, { search });
  }
  return { listed, left: tracked(socket) };
}

test('the kernel lists only what goes to the port', (t) => {
  t.deepEqual(forget([53]), {
    listed: 2,
    left: ['tcp4 53', 'udp4 5353', 'udp4 8053', 'udp4 9', 'udp6 53'],
  });
});

test('of several ports, each one is found', (t) => {
  t.deepEqual(forget([53, 8053]), { listed: 5, left: ['tcp4 53', 'udp4 5353', 'udp4 9', 'udp6 53'] });
});

test('kernels that list everything are no obstacle', (t) => {
  const everything = (request: Request) => ({ ...request, payload: request.payload.subarray(0, 4) });
  t.deepEqual(forget([53], everything), {
    listed: 6,
    left: ['tcp4 53', 'udp4 5353', 'udp4 8053', 'udp4 9', 'udp6 53'],
  });
});
