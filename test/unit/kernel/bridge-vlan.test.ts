import test from 'ava';
import { ensureVlanInterface, resolveTrunk } from '../../../lib/kernel/bridge-vlan.ts';
import { createLink, listLinks, requireLink } from '../../../lib/kernel/link.ts';
import { vethKind } from '../../../lib/kernel/link-kinds.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import { openRouteSocket } from '../../../lib/kernel/route-socket.ts';

test('an interface in a VLAN that cannot be joined to the bridge does not stay', (t) => {
  using netns = Netns.create();
  using socket = openRouteSocket(netns);
  // Not a bridge, so that nothing becomes a port of it.
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

test('an entry of a trunk is one VLAN, a range, or both', (t) => {
  t.deepEqual(resolveTrunk([{ minID: 10, maxID: 12, id: 20 }, { id: 7 }, { minID: 3, maxID: 3 }]), [
    { first: 10, last: 12 },
    { first: 20, last: 20 },
    { first: 7, last: 7 },
    { first: 3, last: 3 },
  ]);
  for (const [entry, message] of [
    [{}, /names no VLAN/],
    [{ id: 5, minID: 3 }, /only one of "minID" and "maxID"/],
    [{ minID: 5, maxID: 3 }, /range 5 to 3/],
  ] as const)
    t.throws(() => resolveTrunk([entry]), { message });
});
