import { execFileSync } from 'node:child_process';
import { closeSync, readdirSync } from 'node:fs';
import test from 'ava';
import { Address } from '../../../lib/ip.ts';
import { addAddress, deleteAddress, listAddresses } from '../../../lib/kernel/address.ts';
import { encodeLink, getLink } from '../../../lib/kernel/link.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import { openRouteSocket } from '../../../lib/kernel/route-socket.ts';
import { NetlinkError } from '../../../lib/netlink/error.ts';
import { libc } from '../../../lib/netlink/libc.ts';
import { concat, encodeMessage, Flag } from '../../../lib/netlink/message.ts';
import { addTable } from '../../../lib/netlink/nftables/objects.ts';
import { addElement, addSet, deleteElement } from '../../../lib/netlink/nftables/sets.ts';
import { transaction } from '../../../lib/netlink/nftables/wire.ts';
import { NetlinkProtocol, NetlinkSocket } from '../../../lib/netlink/socket.ts';
import { struct, u16, u32 } from '../../../lib/netlink/struct.ts';

const descriptors = () => readdirSync('/proc/self/fd').length;

test('a socket that cannot be made ready leaves no descriptor open', (t) => {
  new NetlinkSocket(NetlinkProtocol.Netfilter).close();
  const before = descriptors();
  // Without privileges, nobody may listen to reports of this protocol.
  process.seteuid!(65534);
  try {
    t.throws(() => new NetlinkSocket(NetlinkProtocol.Netfilter, { groups: 1 }), {
      message: /listen to reports of the kernel.*EPERM/,
    });
  } finally {
    process.seteuid!(0);
  }
  t.is(descriptors(), before);
});

test('a late answer to an earlier request is not taken for one to the next', (t) => {
  using netns = Netns.create();
  using socket = openRouteSocket(netns);
  const RTM_DELLINK = 17;
  const request = { action: 'delete nothing', type: RTM_DELLINK, flags: 0, payload: new Uint8Array(16) };
  // As after a call that was given up: sent under an earlier number, and its refusal not read.
  const inner = socket as unknown as { send(messages: Uint8Array[]): void; sequence: number };
  inner.send([encodeMessage(request, inner.sequence++, Flag.Ack)]);
  t.is(getLink(socket, 'lo')?.name, 'lo');
  t.is(getLink(socket, 'none'), undefined);
});

const [AF_NETLINK, SOCK_RAW] = [16, 3];
/** struct sockaddr_nl. */
const sockaddrNl = struct({ family: u16, port: u32, groups: u32 });

/** Opens a netlink socket as any process can. @param port 0 for any. */
function openBare(port: number): number {
  const fd = libc('open a socket', 'socket', AF_NETLINK, SOCK_RAW, NetlinkProtocol.Route);
  const address = sockaddrNl.encode({ family: AF_NETLINK, port });
  libc('bind a socket', 'bind', fd, address, address.length);
  return fd;
}

/** What a process sends that poses as the kernel: an interface, and the acknowledgement of the first request. */
const forged = concat([
  encodeMessage({ action: 'forge', type: 16, flags: 0, payload: encodeLink(7, { name: 'forged' }) }, 1),
  encodeMessage({ action: 'acknowledge', type: 2, flags: 0, payload: new Uint8Array(20) }, 1),
]);

/** Sends it to the port of a socket in the same namespace, from another socket there. */
function forge(port: number): void {
  const fd = openBare(0);
  const address = sockaddrNl.encode({ family: AF_NETLINK, port });
  try {
    libc('forge an answer', 'sendto', fd, forged, forged.length, 0, address, address.length);
  } finally {
    closeSync(fd);
  }
}

test('processes in the namespace cannot send anything to a socket there', (t) => {
  using netns = Netns.create();
  using socket = openRouteSocket(netns);
  // The first socket of a process in a namespace has the process ID for a port.
  t.throws(() => netns.run(() => forge(process.pid)), { message: /ECONNREFUSED/ });
  t.is(getLink(socket, 'lo')?.name, 'lo');
});

test('what a process sent before the socket was connected is not taken for an answer', (t) => {
  using netns = Netns.create();
  const port = 12_345;
  const fd = netns.run(() => openBare(port));
  using socket = Object.assign(Object.create(NetlinkSocket.prototype) as NetlinkSocket, { fd, sequence: 0 });
  netns.run(() => forge(port));
  t.is(getLink(socket, 'lo')?.name, 'lo');
});

const set = { table: { family: 'inet', name: 'many' }, name: 'addresses' } as const;
const addressOf = (i: number) => Uint8Array.of(10, 0, i >> 8, i & 0xff);
const everyAddress = Array.from({ length: 5000 }, (_, i) => addressOf(i));
test('a transaction may be of any size, and says at once what the kernel refuses', (t) => {
  using netns = Netns.create();
  using socket = netns.run(() => new NetlinkSocket(NetlinkProtocol.Netfilter));
  transaction(socket, [
    addTable(set.table, 'many'),
    addSet(set, 'ipv4_addr', 1),
    ...everyAddress.map((address) => addElement(set, address, 'with a comment that takes some room')),
  ]);
  const list = () =>
    execFileSync('/usr/sbin/nft', ['list', 'set', 'inet', 'many', 'addresses'], { encoding: 'utf8' });
  const elements = () => netns.run(list).match(/10\.0\.\d+\.\d+/g)?.length;
  t.is(elements(), 5000);
  // Only the last one is refused, then most of them: either way nothing is done.
  const absent = addressOf(5000);
  const error = t.throws(
    () =>
      transaction(
        socket,
        [...everyAddress, absent].map((address) => deleteElement(set, address)),
      ),
    { instanceOf: NetlinkError },
  );
  t.is(error.code, 'ENOENT');
  t.is(error.index, 5000);
  t.is(elements(), 5000);
  const refused = t.throws(
    () =>
      transaction(
        socket,
        everyAddress.map((_, i) => deleteElement(set, addressOf(i + 4000))),
      ),
    { instanceOf: NetlinkError },
  );
  t.is(refused.index, 1000);
  t.is(elements(), 5000);
  transaction(
    socket,
    everyAddress.slice(1).map((address) => deleteElement(set, address)),
  );
  t.is(elements(), 1);
});

test('any number of requests are answered, each one', (t) => {
  using netns = Netns.create();
  using socket = openRouteSocket(netns);
  const lo = getLink(socket, 'lo')!;
  const prefixes = everyAddress.slice(0, 2000).map((address) => Address.fromBytes(address).toPrefix());
  socket.execute(...prefixes.map((prefix) => addAddress(lo.index, prefix)));
  t.is(listAddresses(socket, lo.index).length, 2000);
  const error = t.throws(() => socket.execute(...prefixes.map((prefix) => addAddress(lo.index, prefix))), {
    instanceOf: NetlinkError,
  });
  t.is(error.index, 0);
  const absent = Address.fromBytes(addressOf(2000)).toPrefix();
  const outcomes = socket.attempt(...[...prefixes, absent].map((prefix) => deleteAddress(lo.index, prefix)));
  t.deepEqual(
    outcomes.flatMap((outcome) => (outcome instanceof NetlinkError ? [outcome.index] : [])),
    [2000],
  );
  t.is(listAddresses(socket, lo.index).length, 0);
});
