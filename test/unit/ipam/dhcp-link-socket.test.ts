import { execFileSync } from 'node:child_process';
import { closeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { hasAddress, isInUse, openBroadcastChannel, waitFor } from '../../../ipam/dhcp/link-socket.ts';
import { Address } from '../../../lib/ip.ts';
import { msSinceBoot } from '../../../lib/kernel/boot.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import { broadcastMac, EtherType, openPacketSocket, sendPacket } from '../../../lib/kernel/packet.ts';
import { libc } from '../../../lib/netlink/libc.ts';

const own = Uint8Array.of(2, 0, 0, 0, 0, 1);
const address = Address.parse('10.99.0.5');

/** What has arrived at a packet socket. @returns how many bytes; -1 for none. */
function receive(fd: number, buffer: Buffer): number {
  const MSG_DONTWAIT = 0x40;
  try {
    return libc('receive', 'recv', fd, buffer, buffer.length, MSG_DONTWAIT);
  } catch {
    return -1;
  }
}

/** An ARP reply as RFC 826 has it. */
function reply(mac: readonly number[], sender: Address): Uint8Array {
  return Uint8Array.from([0, 1, 8, 0, 6, 4, 0, 2, ...mac, ...sender.toBytes(), ...own, 0, 0, 0, 0]);
}

/** A namespace of its own. @returns it, and a function that runs ip(8) there. */
function makeNetns(t: ExecutionContext): { netns: Netns; ip: (...args: string[]) => string } {
  const netns = Netns.create();
  t.teardown(() => netns.close());
  const ip = (...args: string[]) =>
    execFileSync('nsenter', [`--net=/proc/${process.pid}/fd/${netns.fd}`, 'ip', ...args], {
      encoding: 'utf8',
    });
  return { netns, ip };
}

/** A veth pair. @returns a client at one end, and a function that sends an ARP packet from the other. */
async function makeLink(t: ExecutionContext) {
  const { netns, ip } = makeNetns(t);
  const show = (name: string) =>
    (JSON.parse(ip('-j', 'link', 'show', name)) as { ifindex: number; operstate: string }[])[0]!;
  ip('link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'two');
  for (const name of ['one', 'two']) ip('link', 'set', name, 'up');
  // Until they are up, what is sent is lost.
  while (['one', 'two'].some((name) => show(name).operstate !== 'UP')) await sleep(10);
  const [{ ifindex: index }, { ifindex: other }] = [show('one'), show('two')];
  const fd = openPacketSocket(netns, other, EtherType.ARP);
  t.teardown(() => closeSync(fd));
  return {
    client: { netns, index, name: 'one', mac: own },
    send: (packet: Uint8Array, protocol: number = EtherType.ARP) =>
      sendPacket(fd, other, protocol, broadcastMac, packet),
  };
}

/** Probes for the address at one end of a link while the other sends a packet again and again. */
async function makeProbe(t: ExecutionContext): Promise<(packet: Uint8Array) => Promise<boolean>> {
  const { client, send } = await makeLink(t);
  return async (packet) => {
    const answer = isInUse(client, address);
    const ended = answer.then(() => true);
    do send(packet);
    while (!(await Promise.race([ended, sleep(10, false)])));
    return answer;
  };
}

test('an address is in use when another station says so', async (t) => {
  const probe = await makeProbe(t);
  for (const i of own.keys())
    t.true(await probe(reply([...own].with(i, 0x0a), address)), `MAC address that differs in byte ${i}`);
});

test('an answer counts that has come in time and is read too late', async (t) => {
  const { client, send } = await makeLink(t);
  const answer = isInUse(client, address);
  send(reply([2, 0, 0, 0, 0, 2], address));
  for (const end = performance.now() + 400; performance.now() < end; );
  t.true(await answer);
});

test('neither what one said oneself counts, nor who has another address', async (t) => {
  const probe = await makeProbe(t);
  t.false(await probe(reply([...own], address)));
  t.false(await probe(reply([2, 0, 0, 0, 0, 2], Address.parse('10.99.0.6'))));
  t.false(await probe(reply([2, 0, 0, 0, 0, 2], address).subarray(0, 27)), 'cut off');
});

test('packets without end keep neither the rest of the process waiting nor the wait from its end', async (t) => {
  let left = 1_000_000;
  const channel = {
    receive() {
      if (left-- === 0) throw new Error('All of them were read');
      return new Uint8Array(1);
    },
  };
  const wait = (until: number, signal?: AbortSignal) => waitFor(channel, () => undefined, until, signal);
  t.is(await wait(msSinceBoot() + 50), undefined);
  const ending = new AbortController();
  setTimeout(() => ending.abort(), 50);
  t.is(await wait(msSinceBoot() + 600_000, ending.signal), undefined);
  t.is(await waitFor(channel, () => (left % 1000 === 0 ? left : undefined), Infinity), left);
});

test('packets that are no DHCP messages are read one by one', async (t) => {
  const { client, send } = await makeLink(t);
  const channel = openBroadcastChannel(client);
  t.teardown(() => channel.close());
  for (let i = 0; i < 3; i++) send(Uint8Array.of(0x45, 0, 0, 20), EtherType.IPv4);
  const lengths: number[] = [];
  for (const end = msSinceBoot() + 10_000; lengths.length < 3 && msSinceBoot() < end; ) {
    const packet = channel.receive();
    if (packet) lengths.push(packet.length);
    else await sleep(10);
  }
  t.deepEqual(lengths, [0, 0, 0]);
  t.is(channel.receive(), undefined);
});

test('an interface has each of its addresses, and none of another', (t) => {
  const { netns, ip } = makeNetns(t);
  ip('link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'two');
  for (const text of ['10.99.0.5/16', '10.99.0.6/16', '192.0.2.1/24']) ip('addr', 'add', text, 'dev', 'one');
  ip('addr', 'add', '10.99.0.7/16', 'dev', 'lo');
  const [{ ifindex: index }] = JSON.parse(ip('-j', 'link', 'show', 'one')) as [{ ifindex: number }];
  const has = (text: string) => hasAddress({ netns, index, name: 'one', mac: own }, Address.parse(text));
  for (const text of ['10.99.0.5', '10.99.0.6', '192.0.2.1']) t.true(has(text), text);
  for (const text of ['10.99.0.7', '10.99.0.1', '127.0.0.1']) t.false(has(text), text);
});

test('a client speaks from its address to everybody on the link', async (t) => {
  const { netns, ip } = makeNetns(t);
  ip('link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'two');
  for (const name of ['one', 'two']) ip('link', 'set', name, 'up');
  ip('addr', 'add', '10.99.0.5/16', 'dev', 'one');
  const indexes = JSON.parse(ip('-j', 'link')) as { ifname: string; ifindex: number }[];
  const indexOf = (name: string) => indexes.find(({ ifname }) => ifname === name)!.ifindex;
  const packets = openPacketSocket(netns, indexOf('two'), EtherType.IPv4);
  const client = openBroadcastChannel({ netns, index: indexOf('one'), name: 'one', mac: own }, address);
  t.teardown(() => {
    closeSync(packets);
    client.close();
  });
  const buffer = Buffer.alloc(100);
  let length = 0;
  while (length <= 0) {
    client.send(Uint8Array.of(1, 2, 3));
    await sleep(10);
    length = receive(packets, buffer);
  }
  // RFC 791 and RFC 768: addresses, ports, length and data.
  t.is(buffer.subarray(12, 20).toString('hex'), '0a630005ffffffff');
  t.is(buffer.subarray(20, 26).toString('hex'), '00440043000b');
  t.is(buffer.subarray(28, length).toString('hex'), '010203');
});
