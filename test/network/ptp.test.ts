import test from 'ava';
import { Attachment, attach, type Conflist, sample } from '../support/chain.ts';
import { makeHost } from '../support/host.ts';
import { addresses, iptablesSave, link, ping, routes, snapshot } from '../support/observe.ts';

/** The sample network without what comes after its first plugin. */
function only(name: string): Conflist {
  const network = sample(name);
  return { ...network, plugins: network.plugins.slice(0, 1) };
}

test('a pod reaches the node and other pods by its gateway, and leaves nothing behind', async (t) => {
  const host = await makeHost(t);
  const network = only('20-ptp.conflist');
  const [first, second] = [await host.addPod(), await host.addPod()];
  await (await attach(host, network, { pod: first })).del();
  const before = await snapshot(host);

  const one = await attach(host, network, { pod: first });
  const two = await attach(host, network, { pod: second });
  t.deepEqual(await addresses(one.pod, 'eth0'), [`${one.ip}/16`]);
  t.true(await ping(one.pod, '10.89.0.1'));
  t.true(await ping(one.pod, two.ip));
  t.true(await ping(host, two.ip));
  const found = (await routes(one.pod)).map(({ dst, gateway, dev, prefsrc }) => [dst, gateway, dev, prefsrc]);
  t.deepEqual(found.sort(), [
    ['10.89.0.0/16', '10.89.0.1', 'eth0', one.ip],
    ['10.89.0.1', undefined, 'eth0', one.ip],
    ['default', '10.89.0.1', 'eth0', undefined],
  ]);
  t.true((await iptablesSave(host)).some((rule) => rule.startsWith(`-A POSTROUTING -s ${one.ip}/32`)));
  await one.check();
  await one.del();
  await two.del();
  await two.del();
  t.is(await link(one.pod, 'eth0'), undefined);
  t.deepEqual(await snapshot(host), before);
});

test('an address that leads to another container is refused, and stays with it', async (t) => {
  const host = await makeHost(t);
  const networkWith = (address: string, name: string): Conflist => ({
    cniVersion: '1.0.0',
    name,
    plugins: [
      {
        type: 'ptp',
        ipam: {
          type: 'static',
          addresses: [
            { address, gateway: '10.8.0.1' },
            { address: 'fd00:8::5/64', gateway: 'fd00:8::1' },
          ],
        },
      },
    ],
  });
  const one = await attach(host, networkWith('10.8.0.5/24', 'first'));
  const before = await snapshot(host);
  const hostLink = one.result!.interfaces![0]!.name;
  for (const address of ['10.8.0.5/24', '10.8.0.6/24']) {
    const pod = await host.addPod();
    const outcome = await new Attachment(host, pod, networkWith(address, 'second')).tryAdd();
    t.regex(
      outcome.error?.msg ?? '',
      new RegExp(
        `${address.startsWith('10.8.0.5') ? '10.8.0.5' : 'fd00:8::5'} leads to interface "${hostLink}"`,
      ),
    );
    await pod.remove();
  }
  t.deepEqual(await snapshot(host), before);
  t.true(await ping(host, '10.8.0.5'));
});

test('ADD waits for the interface to go of a pod that has given its address back', async (t) => {
  const host = await makeHost(t);
  const ipam = { type: 'static', addresses: [{ address: '10.8.0.5/24', gateway: '10.8.0.1' }] };
  const network: Conflist = { cniVersion: '1.0.0', name: 'next', plugins: [{ type: 'ptp', ipam }] };
  await host.run(['ip', 'link', 'add', 'going', 'up', 'type', 'veth', 'peer', 'name', 'gone']);
  await host.run(['ip', 'route', 'add', '10.8.0.5/32', 'dev', 'going', 'scope', 'host']);
  // The route is added right after the gateway's address: a little after that can be seen, the route has been
  // refused.
  const removal = `echo ready
    until ip -o -4 addr | grep -q 'inet 10\\.8\\.0\\.1/'; do sleep 0.05; done
    sleep 0.2
    ip link delete going`;
  await host.start(t, ['sh', '-c', removal]);
  await attach(host, network);
  t.is(await link(host, 'going'), undefined);
  t.true(await ping(host, '10.8.0.5'));
});

test('IPv6 works where new interfaces of the host begin without it', async (t) => {
  const host = await makeHost(t);
  await host.run(['sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1']);
  const ipam = { type: 'host-local', ranges: [[{ subnet: 'fd00:5::/64' }]], routes: [{ dst: '::/0' }] };
  const network: Conflist = { cniVersion: '1.1.0', name: 'six', plugins: [{ type: 'ptp', ipam }] };
  const one = await attach(host, network);
  t.true(await ping(one.pod, 'fd00:5::1'));
  await one.check();
  await one.del();
});
