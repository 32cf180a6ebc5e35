import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { createLink, type Link, listLinks, setLink } from '../../../lib/kernel/link.ts';
import { deleteHostLinks, deleteLinkInBackground, peerOnHost } from '../../../lib/kernel/link-group.ts';
import { vethKind } from '../../../lib/kernel/link-kinds.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import { openRouteSocket } from '../../../lib/kernel/route-socket.ts';
import type { Sandbox } from '../../../lib/kernel/sandbox.ts';
import { bytesAttr, concat } from '../../../lib/netlink/message.ts';

test('interfaces are deleted together, whatever is gone already, and nothing else is', async (t) => {
  using netns = Netns.create();
  using socket = openRouteSocket(netns);
  for (const name of ['a', 'b', 'c', 'd'])
    socket.execute(createLink(vethKind({ name: `${name}-peer` }), { name }));
  const links = listLinks(socket);
  const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((name) => links.find((link) => link.name === name)!);
  // The groups of an operator, with the highest number there is among them.
  socket.execute(setLink(c!.index, { group: 0xffffffff }), setLink(d!.index, { group: 65536 }));
  await deleteHostLinks(socket, [a!, b!, { index: 9999, name: 'gone' }]);
  t.deepEqual(
    listLinks(socket)
      .map(({ name }) => name)
      .sort(),
    ['c', 'c-peer', 'd', 'd-peer', 'lo'],
  );
  await deleteHostLinks(socket, [a!, b!]);
  await deleteHostLinks(socket, [c!]);
  t.false(listLinks(socket).some(({ name }) => name === 'c'));
});

test('when the kernel refuses to delete an interface, nothing goes on waiting for it to go', async (t) => {
  const waiting = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
  using socket = openRouteSocket();
  const before = waiting();
  // The kernel never deletes "lo".
  const lo = listLinks(socket).find(({ name }) => name === 'lo')!;
  await t.throwsAsync(deleteLinkInBackground(socket, lo), { message: /"lo"/ });
  // What waits looks again after a second at the latest, and would give up after ten.
  for (let looks = 100; looks > 0 && waiting() > before; looks--) await sleep(50);
  t.is(waiting(), before);
});

test("a veth's other end is on the host when its namespace has the number that the sandbox gave the host's", (t) => {
  const peerOf = (change: Partial<Link>, answer: Uint8Array | undefined) => {
    // struct rtgenmsg, padded, and NETNSA_NSID of linux/net_namespace.h.
    const payload = answer && concat([new Uint8Array(4), bytesAttr(1, answer)]);
    const socket = { execute: () => [payload ? [{ payload }] : []] };
    const link = { name: 'eth0', kind: 'veth', parent: 7, parentNetnsId: 3, ...change } as Link;
    return peerOnHost({ socket } as unknown as Sandbox, link)?.index;
  };
  const three = Uint8Array.of(3, 0, 0, 0);
  t.is(peerOf({}, three), 7);
  t.is(peerOf({}, Uint8Array.of(4, 0, 0, 0)), undefined);
  t.is(peerOf({}, Uint8Array.of(255, 255, 255, 255)), undefined, 'no number was given');
  t.is(peerOf({}, undefined), undefined);
  t.is(peerOf({ kind: 'macvlan' }, three), undefined);
  t.is(peerOf({ parent: undefined }, three), undefined);
  t.is(peerOf({ parentNetnsId: undefined }, three), undefined, 'in the same namespace');
});
