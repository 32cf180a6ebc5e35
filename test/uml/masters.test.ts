/** ipvlan, vlan and dummy, on a kernel that has them. */

import { Attachment, attach, liveWithBoth, runNetworkVerb, sample, suitePairs } from '../support/chain.ts';
import { makeHost } from '../support/host.ts';
import { addresses, link, ping } from '../support/observe.ts';
import { addMaster, changed } from '../support/outside.ts';
import { replace } from '../support/replace.ts';
import { guestTest as test } from '../support/uml.ts';

test('ipvlan: pods reach one another, in every mode', async (t) => {
  const host = await makeHost(t);
  const outside = await addMaster(host, '10.118');
  for (const mode of ['l2', 'l3', 'l3s']) {
    // The kernel accepts an MTU larger than the master's, and so does the reference plugin.
    const network = changed('62-ipvlan.conflist', { mode, mtu: 1600 });
    const one = await attach(host, network);
    const two = await attach(host, network);
    const made = await link(one.pod, 'eth0');
    t.is(made?.linkinfo?.info_kind, 'ipvlan');
    t.is(made?.linkinfo?.info_data?.mode, mode);
    t.true(await ping(one.pod, two.ip));
    if (mode === 'l2') t.true(await ping(outside, one.ip));
    await one.check();
    await one.del();
    await two.del();
    t.is(await link(one.pod, 'eth0'), undefined);
  }
});

test('ipvlan: behind another plugin it sits on what that one made, with its addresses', async (t) => {
  const host = await makeHost(t);
  await addMaster(host, '10.118');
  const pod = await host.addPod();
  const before = {
    cniVersion: '1.1.0',
    interfaces: [{ name: 'eth0' }],
    ips: [{ address: '10.118.7.7/16', interface: 0 }],
  };
  const network = changed('62-ipvlan.conflist', { master: undefined, ipam: undefined });
  const one = new Attachment(host, pod, network);
  const outcome = await one.tryAdd({}, before);
  t.is(outcome.exit, 0);
  t.deepEqual(await addresses(pod, 'eth0'), ['10.118.7.7/16']);
  t.is(one.result!.interfaces!.length, 1);
});

test('vlan: frames are tagged, and an interface of another VLAN is not reached', async (t) => {
  const host = await makeHost(t);
  const outside = await addMaster(host, '10.119');
  await outside.run(['ip', 'link', 'add', 'link', 'eth0', 'name', 'v100', 'type', 'vlan', 'id', '100']);
  await outside.run(['ip', 'link', 'set', 'v100', 'up']);
  await outside.run(['ip', 'addr', 'add', '10.119.0.200/16', 'dev', 'v100']);
  await outside.run(['ip', 'addr', 'del', '10.119.255.254/16', 'dev', 'eth0']);
  const one = await attach(host, changed('63-vlan.conflist', { mtu: 1400 }));
  const made = await link(one.pod, 'eth0');
  t.is(made?.linkinfo?.info_kind, 'vlan');
  t.is(made?.linkinfo?.info_data?.id, 100);
  t.is(made?.mtu, 1400);
  t.true(await ping(one.pod, '10.119.0.200'));
  await one.check();
  // The DEL of the reference plugin fails when the master is gone.
  await host.run(['ip', 'link', 'del', 'eth0']);
  await one.del();
  t.is((await host.run(['ls', '/var/lib/cni/networks/vlannet'])).match(/10\.119/), null);

  const host2 = await makeHost(t);
  const outside2 = await addMaster(host2, '10.119');
  await outside2.run(['ip', 'link', 'add', 'link', 'eth0', 'name', 'v101', 'type', 'vlan', 'id', '101']);
  await outside2.run(['ip', 'link', 'set', 'v101', 'up']);
  await outside2.run(['ip', 'addr', 'add', '10.119.0.200/16', 'dev', 'v101']);
  await outside2.run(['ip', 'addr', 'del', '10.119.255.254/16', 'dev', 'eth0']);
  const blocked = await attach(host2, sample('63-vlan.conflist'));
  t.false(await ping(blocked.pod, '10.119.0.200'));
});

test('ipvlan and vlan: DEL leaves the interface of the next pod, although its MAC address is the same', async (t) => {
  for (const name of ['62-ipvlan.conflist', '63-vlan.conflist']) {
    const host = await makeHost(t);
    await addMaster(host, '10.119');
    const one = await attach(host, sample(name));
    const pod = await replace(host, one.pod);
    const next = await attach(host, sample(name), { pod, containerId: 'next' });
    t.is(next.result!.interfaces![0]!.mac, one.result!.interfaces![0]!.mac);
    await one.del();
    await next.check();
    await next.del();
    t.is(await link(next.pod, 'eth0'), undefined);
  }
});

test('vlan: the master may be a port of a bridge, which does not get the frames of the VLAN', async (t) => {
  const host = await makeHost(t);
  const outside = await addMaster(host, '10.119');
  await outside.run(['ip', 'link', 'add', 'link', 'eth0', 'name', 'v100', 'up', 'type', 'vlan', 'id', '100']);
  await outside.run(['ip', 'addr', 'add', '10.119.0.200/24', 'dev', 'v100']);
  await host.run(['ip', 'link', 'add', 'br0', 'up', 'type', 'bridge']);
  await host.run(['ip', 'link', 'set', 'eth0', 'master', 'br0']);
  const ipam = { type: 'host-local', subnet: '10.119.0.0/24' };
  const network = { ...changed('63-vlan.conflist', { master: 'eth0', ipam }), cniVersion: '1.1.0' };
  t.is((await runNetworkVerb(host, network, 'STATUS')).exit, 0);
  const one = await attach(host, network);
  t.true(await ping(one.pod, '10.119.0.200'));
  const outcome = await new Attachment(
    host,
    await host.addPod(),
    changed('62-ipvlan.conflist', { master: 'eth0' }),
  ).tryAdd();
  t.regex(outcome.error?.msg ?? '', /is a port of a bridge itself/);
});

test('vlan: the same VLAN twice in one sandbox, a wrong VLAN and a missing master are refused', async (t) => {
  const host = await makeHost(t);
  await addMaster(host, '10.119');
  const one = await attach(host, sample('63-vlan.conflist'));
  const fail = async (keys: object, ifname = 'eth1') =>
    (
      await new Attachment(host, one.pod, changed('63-vlan.conflist', keys), {
        ifname,
        containerId: 'x',
      }).tryAdd()
    ).error?.msg ?? '';
  t.regex(await fail({}, 'eth0'), /already/);
  t.regex(await fail({ vlanId: 4095 }), /between 0 and 4094/);
  t.regex(await fail({ master: 'none0' }), /does not exist/);
  t.regex(await fail({ master: undefined }), /"master" is not set/);
  t.regex(await fail({ ipam: undefined }), /needs addresses/);
  t.is(await link(one.pod, 'eth1'), undefined);
});

test('dummy: has its addresses, and goes', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, sample('64-dummy.conflist'));
  t.is((await link(one.pod, 'eth0'))?.linkinfo?.info_kind, 'dummy');
  await one.pod.run(['ip', 'link', 'set', 'lo', 'up']);
  t.true(await ping(one.pod, one.ip));
  await one.check();
  await one.del();
  await one.del();
  t.is(await link(one.pod, 'eth0'), undefined);
});

test('the reference plugins check and delete what we added, and the other way round', async (t) => {
  for (const [name, subnet] of [
    ['62-ipvlan.conflist', '10.118'],
    ['63-vlan.conflist', '10.119'],
  ] as const)
    for (const suites of suitePairs) {
      const host = await makeHost(t);
      await addMaster(host, subnet);
      const one = await liveWithBoth(host, sample(name), suites);
      t.is(await link(one.pod, 'eth0'), undefined);
    }
});
