import test from 'ava';
import { Attachment, attach, liveWithBoth, runNetworkVerb, sample, suitePairs } from '../support/chain.ts';
import { makeHost } from '../support/host.ts';
import { addresses, link, ping, snapshot, sysctl } from '../support/observe.ts';
import { addMaster, changed } from '../support/outside.ts';

const name = '61-macvlan.conflist';

test('pods reach one another and the neighbours of the node, and leave nothing', async (t) => {
  const host = await makeHost(t);
  const outside = await addMaster(host, '10.117');
  const pod = await host.addPod();
  await (await attach(host, sample(name), { pod })).del();
  const other = await attach(host, sample(name));
  const before = await snapshot(host);
  const one = await attach(host, sample(name), { pod });
  t.deepEqual(await addresses(pod, 'eth0'), [`${one.ip}/16`]);
  t.true(await ping(pod, '10.117.255.254'));
  t.true(await ping(outside, one.ip));
  t.true(await ping(pod, other.ip));
  const made = await link(pod, 'eth0');
  t.is(made?.linkinfo?.info_kind, 'macvlan');
  t.is(made?.linkinfo?.info_data?.mode, 'bridge');
  t.is(one.result!.interfaces![0]!.mac, made?.address);
  t.is(await sysctl(pod, 'net/ipv4/conf/eth0/arp_notify'), '1');
  await one.check();
  await one.del();
  await one.del();
  t.deepEqual(await snapshot(host), before);
});

test('modes, MTU and MAC address arrive in the kernel; the master may come from the default route', async (t) => {
  const host = await makeHost(t);
  await addMaster(host, '10.117');
  for (const mode of ['bridge', 'private', 'vepa', 'passthru']) {
    const keys = { master: undefined, mode, mtu: 1300, mac: '0a:58:0a:65:00:09', bcqueuelen: 2000 };
    const one = await attach(host, changed(name, keys));
    const made = await link(one.pod, 'eth0');
    t.is(made?.linkinfo?.info_data?.mode, mode);
    t.is(made?.mtu, 1300);
    t.is(made?.linkinfo?.info_data?.bcqueuelen, 2000);
    // In mode "passthru", it has its master's address.
    if (mode !== 'passthru') t.is(made?.address, '0a:58:0a:65:00:09');
    t.is(one.result!.interfaces![0]!.mac, made?.address);
    await one.check();
    await one.del();
  }
});

test('a master that is a port of a bridge, whose frames all go there, is refused', async (t) => {
  const host = await makeHost(t);
  await addMaster(host, '10.117');
  const { master } = sample(name).plugins[0] as { master?: string };
  await host.run(['ip', 'link', 'add', 'br0', 'type', 'bridge']);
  await host.run(['ip', 'link', 'set', `${master}`, 'master', 'br0']);
  const pod = await host.addPod();
  const before = await snapshot(host);
  const outcome = await new Attachment(host, pod, sample(name)).tryAdd();
  t.regex(outcome.error?.msg ?? '', /is a port of a bridge itself/);
  t.deepEqual(await snapshot(host), before);
});

test('no IPAM: the link is up and has no address', async (t) => {
  const host = await makeHost(t);
  await addMaster(host, '10.117');
  const one = await attach(host, changed(name, { ipam: undefined }));
  t.is(one.result!.ips, undefined);
  t.true((await link(one.pod, 'eth0'))?.flags.includes('UP'));
  await one.check();
});

test('the master may be in the sandbox', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  await pod.run(['ip', 'link', 'add', 'up0', 'type', 'veth', 'peer', 'name', 'up1']);
  await pod.run(['ip', 'link', 'set', 'up0', 'up']);
  const one = await attach(host, changed(name, { master: 'up0', linkInContainer: true }), { pod });
  t.is((await link(pod, 'eth0'))?.link, 'up0');
  await one.check();
  await one.del();
  t.is(await link(pod, 'eth0'), undefined);
});

test('on a master that is a macvlan itself, CHECK knows that the kernel puts it beside that', async (t) => {
  const host = await makeHost(t);
  await addMaster(host, '10.117');
  await host.run('ip link add shim link eth0 up type macvlan mode bridge'.split(' '));
  const one = await attach(host, changed(name, { master: 'shim' }));
  t.is((await link(one.pod, 'eth0'))?.link_index, (await link(host, 'eth0'))?.ifindex);
  await one.check();
});

test('DEL works when the master, the namespace or the interface is gone; the address is always released', async (t) => {
  const host = await makeHost(t);
  await addMaster(host, '10.117');
  const reserved = async () => (await host.run(['ls', '/var/lib/cni/networks/macnet'])).match(/10\.117\S+/g);
  for (const damage of [
    (one: Attachment) => one.pod.remove(),
    (one: Attachment) => one.pod.run(['ip', 'link', 'del', 'eth0']),
    () => host.run(['ip', 'link', 'del', 'eth0']),
  ]) {
    const one = await attach(host, sample(name));
    await damage(one);
    t.truthy((await one.tryCheck()).error);
    await one.del();
    t.is(await reserved(), null);
  }
});

test('a master that is down is accepted with a warning, as on a host that boots', async (t) => {
  const host = await makeHost(t);
  await host.run(['ip', 'link', 'add', 'down0', 'type', 'veth', 'peer', 'name', 'peer0']);
  const pod = await host.addPod();
  const outcome = await new Attachment(host, pod, changed(name, { master: 'down0' })).tryAdd();
  t.is(outcome.exit, 0);
  t.regex(outcome.stderr, /Master "down0" is down\. Bring it up/);
  t.is((await link(pod, 'eth0'))?.linkinfo?.info_kind, 'macvlan');
});

test('what cannot be is refused with a way out, and nothing is left', async (t) => {
  const host = await makeHost(t);
  await addMaster(host, '10.117');
  await host.run(['ip', 'link', 'add', 'down0', 'type', 'veth', 'peer', 'name', 'port0']);
  await host.run(['ip', 'link', 'add', 'br0', 'type', 'bridge']);
  await host.run(['ip', 'link', 'set', 'port0', 'up', 'master', 'br0']);
  await (await attach(host, sample(name))).del();
  const cases: [object, RegExp][] = [
    [{ master: 'none0' }, /Master "none0" does not exist on the host/],
    [{ master: 'port0' }, /port of a bridge itself/],
    [{ mtu: 9000 }, /has only 1500/],
    [{ mtu: -1 }, /between 0 and/],
    [{ mode: 'router' }, /must be/],
    [{ mac: 'nonsense' }, /MAC address "nonsense"/],
    [{ ipam: { type: 'host-local', subnet: '10.117.0.0/33' } }, /prefix length/],
    [{ ipam: { type: 'none-such' } }, /not in CNI_PATH/],
    [{ linkInContainer: true }, /does not exist in sandbox/],
  ];
  for (const [keys, message] of cases) {
    const pod = await host.addPod();
    const before = await snapshot(host);
    const outcome = await new Attachment(host, pod, changed(name, keys)).tryAdd();
    t.regex(outcome.error?.msg ?? 'no error', message);
    t.deepEqual(await snapshot(host), before);
    t.is(await link(pod, 'eth0'), undefined, 'and a second try finds the name free');
  }
});

test('a MAC address that another interface on the master has is refused, and nothing is left', async (t) => {
  const host = await makeHost(t);
  await addMaster(host, '10.117');
  const ipam = { type: 'static', addresses: [{ address: '10.117.0.9/16' }] };
  const network = changed(name, { mac: '02:00:00:00:00:09', ipam });
  const one = await attach(host, network);
  const other = new Attachment(host, await host.addPod(), network);
  const before = await snapshot(host);
  t.regex(
    (await other.tryAdd()).error?.msg ?? 'no error',
    /^MAC address "02:00:00:00:00:09" belongs to another interface on the same master.* ask for another/,
  );
  t.deepEqual(await snapshot(host), before);
  t.is(await link(other.pod, 'eth0'), undefined);
  await one.del();
  await other.add();
});

test('STATUS tells that the master is missing', async (t) => {
  const host = await makeHost(t);
  const missing = await runNetworkVerb(host, sample(name), 'STATUS');
  t.is(missing.error?.code, 50);
  await addMaster(host, '10.117');
  t.is((await runNetworkVerb(host, sample(name), 'STATUS')).exit, 0);
});

test('either suite checks and deletes what the other added', async (t) => {
  for (const suites of suitePairs) {
    const host = await makeHost(t);
    await addMaster(host, '10.117');
    const one = await liveWithBoth(host, sample(name), suites);
    t.is(await link(one.pod, 'eth0'), undefined);
    t.is((await host.run(['ls', '/var/lib/cni/networks/macnet'])).match(/10\.117/), null);
  }
});

test('the master may be given by an alternative name, which may be longer than names', async (t) => {
  const host = await makeHost(t);
  await addMaster(host, '10.117');
  const network = changed(name, { master: 'enP2p1s0f1np1v255' });
  const status = async () => (await runNetworkVerb(host, network, 'STATUS')).error?.msg ?? '';
  t.regex(await status(), /^Master "enP2p1s0f1np1v255" does not exist on the host/);
  await host.run(['ip', 'link', 'property', 'add', 'dev', 'eth0', 'altname', 'enP2p1s0f1np1v255']);
  t.is(await status(), '');
  const one = await attach(host, network);
  t.true(await ping(one.pod, '10.117.255.254'));
  await one.check();
});

test('a later plugin may change the MTU', async (t) => {
  const host = await makeHost(t);
  await addMaster(host, '10.117');
  const network = changed(name, { master: 'eth0', mtu: 1500 });
  const tuned = { ...network, plugins: [...network.plugins, { type: 'tuning', mtu: 1400 }] };
  const one = await attach(host, tuned);
  t.is((await link(one.pod, 'eth0'))?.mtu, 1400);
  await one.check();
  await one.del();
});
