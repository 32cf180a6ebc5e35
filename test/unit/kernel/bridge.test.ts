import test from 'ava';
import { Prefix } from '../../../lib/ip.ts';
import { addAddress, deleteAddress, listAddresses } from '../../../lib/kernel/address.ts';
import { ensureGatewayAddress } from '../../../lib/kernel/bridge.ts';
import { createLink, requireLink } from '../../../lib/kernel/link.ts';
import { bridgeKind } from '../../../lib/kernel/link-kinds.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import { openRouteSocket, type RouteSocket } from '../../../lib/kernel/route-socket.ts';

test('an address that is in the way of two may be taken away by either', (t) => {
  using netns = Netns.create();
  using socket = openRouteSocket(netns);
  socket.execute(createLink(bridgeKind({}), { name: 'br0', up: true }));
  const { index } = requireLink(socket, 'br0');
  const [old, wanted] = [Prefix.parse('10.5.0.1/24'), Prefix.parse('10.6.0.1/24')];
  socket.execute(addAddress(index, old, { label: 'br0' }));
  /** Another ADD gets in between our look and our change. */
  const beaten = new Proxy(socket, {
    get(target, key) {
      if (key === 'attempt')
        socket.execute(deleteAddress(index, old, 'br0'), addAddress(index, wanted, { label: 'br0' }));
      const value: unknown = Reflect.get(target, key);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  ensureGatewayAddress(beaten as RouteSocket, requireLink(socket, 'br0'), wanted, true);
  t.deepEqual(
    listAddresses(socket, index, 4).map(({ prefix }) => `${prefix}`),
    [`${wanted}`],
  );
});
