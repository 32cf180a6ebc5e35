/** Open vSwitch with its datapath in the kernel, which takes a module. */

import { capture } from '../support/capture.ts';
import { attach, type Conflist } from '../support/chain.ts';
import { makeHost } from '../support/host.ts';
import { links, ping, until } from '../support/observe.ts';
import { OpenVswitch } from '../support/open-vswitch.ts';
import { guestTest as test } from '../support/uml.ts';

const network = (keys: object = {}, ...others: Conflist['plugins']): Conflist => ({
  cniVersion: '1.1.0',
  name: 'ovsnet',
  plugins: [
    {
      ...{ type: 'ovs', bridge: 'br1', link_state_check_retries: 50 },
      ipam: { type: 'host-local', subnet: '10.61.0.0/24' },
      ...keys,
    },
    ...others,
  ],
});

// Comes first: the first ovs-vswitchd after the guest's start may receive none of the packets that the
// datapath misses, which "ovs-dpctl show" then has as lost; the next one receives all of them.
test('the datapath is that of the kernel', async (t) => {
  const host = await makeHost(t);
  await OpenVswitch.start(t, host, { datapath: 'system' });
  t.regex(await host.run(['ovs-dpctl', 'show']), /^system@ovs-system:/);
  const one = await attach(host, network());
  const two = await attach(host, network());
  await ping(one.pod, two.ip);
  for (const pod of [one, two]) await pod.del();
});

test('pods of one VLAN reach one another, and no other; a trunk passes tagged frames', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host, { datapath: 'system' });
  const one = await attach(host, network({ vlan: 100 }));
  const two = await attach(host, network({ vlan: 100 }));
  const other = await attach(host, network({ vlan: 200 }));
  const trunk = await attach(host, network({ trunk: [{ id: 100 }] }));
  const captured = await capture(t, host, trunk.pod, 'vlan 100 and arp');
  await until('it answers', () => ping(one.pod, two.ip));
  t.false(await ping(one.pod, other.ip));
  // One's broadcasts go to the trunk as well, with its tag.
  await until('the trunk gets tagged frames', async () =>
    (await captured()).includes(
      `vlan 100, p 0, ethertype ARP (0x0806), Request who-has ${two.ip} tell ${one.ip}`,
    ),
  );
  const port = (await links(host)).find(({ ifname }) => ifname === one.result!.interfaces![0]!.name);
  t.is(port?.master, 'ovs-system');
  for (const pod of [one, two, other, trunk]) {
    await pod.check();
    await pod.del();
  }
  t.deepEqual(await ovs.ports(), []);
});

test('a consumer sees what a producer sends and receives', async (t) => {
  const host = await makeHost(t);
  const ovs = await OpenVswitch.start(t, host, { datapath: 'system' });
  const mirror = (role: string, keys: object) => ({
    ...{ type: `ovs-mirror-${role}`, bridge: 'br1' },
    mirrors: [{ name: 'm1', ...keys }],
  });
  const watcher = await attach(host, network({}, mirror('consumer', {})));
  const one = await attach(host, network({}, mirror('producer', { ingress: true, egress: true })));
  const other = await attach(host, network());
  const captured = await capture(t, host, watcher.pod, 'icmp');
  await until('it answers', () => ping(one.pod, other.ip));
  for (const packet of [
    `${one.ip} > ${other.ip}: ICMP echo request`,
    `${other.ip} > ${one.ip}: ICMP echo reply`,
  ])
    await until(`there is a copy of ${packet}`, async () => (await captured()).includes(packet));
  for (const pod of [one, watcher, other]) await pod.del();
  t.is(await ovs.vsctl('list', 'Mirror'), '');
});
