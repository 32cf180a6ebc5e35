import test from 'ava';
import { Prefix } from '../../../lib/ip.ts';
import { addAddress, deleteAddress, listAddresses } from '../../../lib/kernel/address.ts';
import { ensureBridge, ensureGatewayAddress } from '../../../lib/kernel/bridge.ts';
import { deleteUnusedVlanInterface } from '../../../lib/kernel/bridge-vlan.ts';
import { createLink, getLink, LinkMessage, listPorts, requireLink } from '../../../lib/kernel/link.ts';
import { bridgeKind, vethKind } from '../../../lib/kernel/link-kinds.ts';
import { Netns } from '../../../lib/kernel/netns.ts';
import { openRouteSocket, type RouteSocket } from '../../../lib/kernel/route-socket.ts';
import type { Request } from '../../../lib/netlink/message.ts';

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

test('an interface that another call deletes first counts as deleted', (t) => {
  using netns = Netns.create();
  using socket = openRouteSocket(netns);
  const beaten = new Proxy(socket, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key);
      if (typeof value !== 'function') return value;
      return (...requests: Request[]) => {
        const deletions = requests.filter(({ type }) => type === LinkMessage.Delete);
        if (deletions.length > 0) socket.execute(...deletions);
        return value.apply(target, requests);
      };
    },
  }) as RouteSocket;
  const steps: (() => void)[] = [];
  const owner = { host: beaten, undo: (_: string, step: () => void) => void steps.push(step), warn: t.log };
  const { index } = netns.run(() => ensureBridge(owner, 'br0'));
  socket.execute(createLink(vethKind({ name: 'br0.7' }), { name: 'port0', master: index }));
  t.notThrows(() => deleteUnusedVlanInterface(beaten, 'br0', 7));
  t.is(getLink(socket, 'br0.7'), undefined);
  for (const step of steps) t.notThrows(step);
  t.is(getLink(socket, 'br0'), undefined);
});

test('the kernel lists only the ports of that bridge', (t) => {
  using netns = Netns.create();
  using socket = openRouteSocket(netns);
  for (const name of ['br0', 'br1']) socket.execute(createLink(bridgeKind({}), { name }));
  const { index } = requireLink(socket, 'br0');
  socket.execute(createLink(vethKind({ name: 'peer0' }), { name: 'port0', master: index }));
  let listed = 0;
  const counting = new Proxy(socket, {
    get: (target, key) =>
      key === 'dump'
        ? (request: Request) => {
            const messages = target.dump(request);
            listed += messages.length;
            return messages;
          }
        : Reflect.get(target, key),
  });
  t.deepEqual(
    listPorts(counting, index).map(({ name }) => name),
    ['port0'],
  );
  t.is(listed, 1);
  t.deepEqual(listPorts(socket, requireLink(socket, 'br1').index), []);
});
