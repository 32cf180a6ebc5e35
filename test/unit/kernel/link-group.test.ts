import test from 'ava';
import { createLink, listLinks, setLink } from '../../../lib/kernel/link.ts';
import { deleteHostLinks } from '../../../lib/kernel/link-group.ts';
import { vethKind } from '../../../lib/kernel/link-kinds.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import { openRouteSocket } from '../../../lib/kernel/route-socket.ts';

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
