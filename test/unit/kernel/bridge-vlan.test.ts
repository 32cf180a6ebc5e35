import test from 'ava';
import { ensureVlanInterface } from '../../../lib/kernel/bridge-vlan.ts';
import { createLink, listLinks, requireLink } from '../../../lib/kernel/link.ts';
import { vethKind } from '../../../lib/kernel/link-kinds.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import { openRouteSocket } from '../../../lib/kernel/route-socket.ts';

test('an interface in a VLAN that cannot be joined to the bridge does not stay', (t) => {
  using netns = Netns.create();
  using socket = openRouteSocket(netns);
  // No bridge, so that nothing becomes a port of it.
  socket.execute(createLink(vethKind({ name: 'peer' }), { name: 'none' }));
  const before = listLinks(socket).map(({ name }) => name);
  const port = { vlan: 7, trunk: [], preserveDefaultVlan: false };
  const join = () =>
    netns.run(() => ensureVlanInterface(socket, requireLink(socket, 'none'), port, () => {}));
  t.throws(join, { message: /veth/ });
  t.deepEqual(
    listLinks(socket).map(({ name }) => name),
    before,
  );
});
