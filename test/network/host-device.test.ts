import test from 'ava';
import {
  Attachment,
  attach,
  liveWithBoth,
  remember,
  runNetworkVerb,
  sample,
  suitePairs,
} from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import { addresses, link, ping, snapshot } from '../support/observe.ts';
import { changed, joinedTo } from '../support/outside.ts';

const name = '66-host-device.conflist';

/** A device "eth1" of the host, at the other end of which a neighbour answers. */
async function addDevice(host: Host) {
  const outside = await joinedTo(host, 'eth1', 'wire');
  await host.run(['ip', 'link', 'set', 'eth1', 'address', '0a:00:00:00:00:11']);
  await outside.run(['ip', 'link', 'set', 'wire', 'up']);
  await outside.run(['ip', 'addr', 'add', '10.114.255.254/16', 'dev', 'wire']);
  return outside;
}

test('the device goes into the pod and comes back under its name', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  const pod = await host.addPod();
  await (await attach(host, sample(name), { pod })).del();
  const before = await snapshot(host);
  for (const keys of [
    {},
    { device: undefined, hwaddr: '0A:00:00:00:00:11' },
    { device: undefined, hwaddr: '0A00.0000.0011' },
  ]) {
    const one = await attach(host, changed(name, keys), { pod, ifname: 'net0' });
    t.is(await link(host, 'eth1'), undefined);
    t.deepEqual(await addresses(pod, 'net0'), [`${one.ip}/16`]);
    t.is(one.result!.interfaces![0]!.mac, '0a:00:00:00:00:11');
    t.true(await ping(pod, '10.114.255.254'));
    t.is((await pod.run(['cat', '/proc/net/dev'])).includes('eth1'), false);
    await one.check();
    await one.del();
    await one.del();
    t.deepEqual(await snapshot(host), before);
    t.notRegex(await host.run(['ip', 'link', 'show', 'eth1']), /alias/);
  }
});

/** A sysfs of a host's own, with these directories, and with vfio-pci, the driver for user space. */
async function makeSysfs(host: Host, ...directories: string[]): Promise<void> {
  await host.run(['mount', '-t', 'tmpfs', 'tmpfs', '/sys']);
  await host.run(['mkdir', '-p', '/sys/bus/pci/drivers/vfio-pci', ...directories]);
}

test('a device is found by its PCI address, whoever gives that, and by its directory', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  const directory = '/sys/devices/pci0000:00/0000:00:02.0';
  await makeSysfs(host, '/sys/bus/pci/devices/0000:00:02.0/net/eth1', `${directory}/net/eth1`);
  for (const keys of [
    { pciBusID: '0000:00:02.0' },
    { kernelpath: directory },
    { runtimeConfig: { deviceID: '0000:00:02.0' } },
  ]) {
    const one = await attach(host, changed(name, { device: undefined, ...keys }));
    t.is((await link(one.pod, 'eth0'))?.address, '0a:00:00:00:00:11');
    t.is(await link(host, 'eth1'), undefined);
    await one.del();
    t.truthy(await link(host, 'eth1'));
  }
});

test('a device that a program in user space drives is named in the result, and nothing moves', async (t) => {
  const host = await makeHost(t);
  const device = '/sys/bus/pci/devices/0000:00:1f.6';
  await makeSysfs(host, device);
  await host.run(['ln', '-s', '../../drivers/vfio-pci', `${device}/driver`]);
  const keys = { device: undefined, pciBusID: '0000:00:1f.6', ipam: undefined };
  const one = await attach(host, changed(name, keys));
  t.deepEqual(one.result!.interfaces, [{ name: 'eth0', sandbox: one.pod.netns, pciID: '0000:00:1f.6' }]);
  t.is(await link(one.pod, 'eth0'), undefined);
  await one.check();
  await one.del();
});

test('what such a program has made in the pod is not given to the host', async (t) => {
  const host = await makeHost(t);
  const device = '/sys/bus/pci/devices/0000:00:1f.6';
  await makeSysfs(host, device);
  await host.run(['ln', '-s', '../../drivers/vfio-pci', `${device}/driver`]);
  const one = await attach(host, changed(name, { device: undefined, pciBusID: '0000:00:1f.6' }));
  await one.pod.run('ip tuntap add mode tap eth0'.split(' '));
  await one.pod.run(['ip', 'address', 'add', one.result!.ips![0]!.address, 'dev', 'eth0']);
  // Also when the driver has changed meanwhile.
  await host.run(['rm', `${device}/driver`]);
  await one.del();
  t.truthy(await link(one.pod, 'eth0'));
  t.is(await link(host, 'eth0'), undefined);
});

test('a device without a MAC address comes back, too', async (t) => {
  const host = await makeHost(t);
  await host.run('ip tuntap add mode tun tun9'.split(' '));
  const readdressed = 'ip address flush dev eth0; ip address add 198.51.100.7/24 dev eth0';
  for (const [keys, inPod] of [
    [{}, 'true'],
    [{}, readdressed],
    [{ ipam: undefined }, 'true'],
  ] as const) {
    const one = await attach(host, changed(name, { device: 'tun9', ...keys }));
    t.is(one.result!.interfaces![0]!.mac, undefined);
    t.is(await link(host, 'tun9'), undefined);
    await one.check();
    remember(host, one);
    await one.pod.run(['sh', '-ec', inPod]);
    await one.del();
    t.truthy(await link(host, 'tun9'), inPod);
    t.is(await link(one.pod, 'eth0'), undefined);
  }
});

test('the name in the configuration counts before the device that the runtime names', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  await host.run('ip link add eth2 type veth peer peer2'.split(' '));
  await makeSysfs(host, '/sys/bus/pci/devices/0000:00:03.0/net/eth2');
  const one = await attach(host, changed(name, { runtimeConfig: { deviceID: '0000:00:03.0' } }));
  t.is((await link(one.pod, 'eth0'))?.address, '0a:00:00:00:00:11');
  t.truthy(await link(host, 'eth2'));
});

test('a device comes back though the pod has changed its addresses', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  for (const address of ['10.5.9.9/16', '198.51.100.7/24']) {
    const one = await attach(host, changed(name, {}));
    const own = one.result!.ips![0]!.address;
    remember(host, one);
    await one.pod.run(['ip', 'address', 'del', own, 'dev', 'eth0']);
    await one.pod.run(['ip', 'address', 'add', address, 'dev', 'eth0']);
    await one.del();
    t.is((await link(host, 'eth1'))?.address, '0a:00:00:00:00:11', address);
  }
  const one = await attach(host, changed(name, {}));
  const [own] = one.result!.ips![0]!.address.split('/');
  await one.pod.run('ip address flush dev eth0'.split(' '));
  await one.pod.run(['ip', 'address', 'add', `${own}/30`, 'dev', 'eth0']);
  await one.del();
  t.truthy(await link(host, 'eth1'));
});

test('without IPAM only the link moves', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  const one = await attach(host, changed(name, { ipam: undefined }));
  t.true((await link(one.pod, 'eth0'))?.flags.includes('UP'));
  await one.check();
  await one.del();
  t.truthy(await link(host, 'eth1'));
});

test('names that are taken at either end do no harm', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  const pod = await host.addPod();
  await pod.run(['ip', 'link', 'add', 'eth1', 'type', 'veth', 'peer', 'name', 'eth1p']);
  await host.run(['ip', 'link', 'add', 'net0', 'type', 'veth', 'peer', 'name', 'net0p']);
  const one = await attach(host, sample(name), { pod, ifname: 'net0' });
  await one.check();
  await one.del();
  t.is((await link(host, 'eth1'))?.address, '0a:00:00:00:00:11');
  t.truthy(await link(pod, 'eth1'));
});

test('a failing ADD gives the device back', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  const pod = await host.addPod();
  await pod.run(['ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0p']);
  const before = await snapshot(host);
  const fail = async (keys: object, ifname = 'net0') =>
    (await new Attachment(host, pod, changed(name, keys), { ifname }).tryAdd()).error?.msg ?? 'no error';
  t.regex(await fail({ ipam: { type: 'none-such' } }), /not in CNI_PATH/);
  t.regex(await fail({ ipam: { type: 'host-local', subnet: '10.0.0.1/8' } }), /host bits/);
  t.regex(await fail({}, 'eth0'), /already/);
  t.regex(await fail({ device: 'none0' }), /no interface for device "none0"/);
  t.regex(await fail({ device: 'lo' }), /cannot leave the host/);
  t.regex(await fail({ device: undefined }), /No device is named/);
  t.regex(await fail({ device: undefined, pciBusID: '../../net' }), /"pciBusID"/);
  t.regex(
    await fail({ device: undefined, runtimeConfig: { deviceID: '0000:ff:1f.7' } }),
    /no interface for device "0000:ff:1f.7"/,
  );
  t.deepEqual(await snapshot(host), before);
});

test('a failing ADD gives a device back that was up, up', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  await host.run(['ip', 'link', 'set', 'eth1', 'up']);
  const pod = await host.addPod();
  const outcome = await new Attachment(host, pod, changed(name, { ipam: { type: 'none-such' } })).tryAdd();
  t.regex(outcome.error?.msg ?? '', /not in CNI_PATH/);
  t.true((await link(host, 'eth1'))!.flags.includes('UP'));
});

test('a device that the runtime names is missing only to ADD', async (t) => {
  const host = await makeHost(t);
  const network = changed(name, { device: undefined, capabilities: { deviceID: true } });
  t.is((await runNetworkVerb(host, { ...network, cniVersion: '1.1.0' }, 'STATUS')).exit, 0);
  const outcome = await new Attachment(host, await host.addPod(), network).tryAdd();
  t.regex(outcome.error?.msg ?? '', /No device is named/);
});

test('the alias that a pod gives its device keeps it from nothing, and names nothing that has a name', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  for (const [keys, alias, wanted] of [
    [{}, 'my uplink port', 'eth1'],
    [{}, 'eth9', 'eth1'],
    [{ device: undefined, hwaddr: '0a:00:00:00:00:11' }, 'my uplink port', 'net0'],
  ] as const) {
    const one = await attach(host, changed(name, keys), { ifname: 'net0' });
    await one.pod.run(['ip', 'link', 'set', 'net0', 'alias', alias]);
    await one.del();
    t.is((await link(host, wanted))?.address, '0a:00:00:00:00:11');
  }
});

test('a device comes back whichever of its names the configuration has, and whatever the pod calls it', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  await host.run(['ip', 'link', 'property', 'add', 'dev', 'eth1', 'altname', 'enp9s0']);
  await host.run(['ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'dev0']);
  await host.run(['ip', 'link', 'property', 'add', 'dev', 'eth0', 'altname', 'enp8s0']);
  const byMac = { device: undefined, hwaddr: '0a:00:00:00:00:11' };
  const nameOf = async () =>
    (JSON.parse(await host.run(['ip', '-j', 'link'])) as { ifname: string; address: string }[]).find(
      ({ address }) => address === byMac.hwaddr,
    )?.ifname;
  for (const [keys, ifname, inPod, wanted] of [
    [{ device: 'enp9s0' }, 'net0', 'true', 'eth1'],
    [{ device: 'enp9s0' }, 'net0', 'ip link property add dev net0 altname eth0 altname enp8s0', 'eth1'],
    [{ device: 'enp9s0' }, 'net0', 'ip link set net0 alias eth0', 'net0'],
    [byMac, 'net0', 'ip link set net0 alias enp9s0', 'net0'],
    [byMac, 'net0', 'ip link set net0 alias enp8s0', 'net0'],
    [byMac, 'eth0', 'ip link set eth0 alias enp8s0', ''],
    [byMac, 'net1', 'ip link set net1 name x alias eth0; ip link property add dev x altname net1', ''],
  ] as const) {
    const one = await attach(host, changed(name, keys), { ifname });
    await one.pod.run(['sh', '-ec', inPod]);
    await one.del();
    const back = await nameOf();
    if (wanted) t.is(back, wanted, inPod);
    else t.regex(back ?? '', /^dev\d+$/, inPod);
    t.is(await link(one.pod, ifname), undefined);
    if (back !== 'eth1') await host.run(['ip', 'link', 'set', back!, 'name', 'eth1']);
  }

  // The kernel gives it back with the name from the container, and with its alternative name.
  const one = await attach(host, changed(name, { device: 'enp9s0' }), { ifname: 'net0' });
  await one.pod.run(['ip', 'link', 'set', 'net0', 'down']);
  await one.pod.run(['ip', 'link', 'set', 'net0', 'netns', String(host.pid)]);
  await one.del({ netns: '' });
  t.is(await nameOf(), 'eth1');
});

test('DEL releases the address when namespace or device are gone, and renames what the kernel gave back', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  const reserved = async () =>
    (await host.run(['ls', '/var/lib/cni/networks/devicenet'])).match(/10\.114\S+/g);
  const one = await attach(host, sample(name));
  // As the kernel does with a physical device: it is back on the node, but with the name from the container.
  await one.pod.run(['ip', 'link', 'set', 'eth0', 'down']);
  await one.pod.run(['ip', 'link', 'set', 'eth0', 'netns', String(host.pid)]);
  await one.del({ netns: '' });
  t.is(await reserved(), null);
  t.is((await link(host, 'eth1'))?.address, '0a:00:00:00:00:11');

  const two = await attach(host, sample(name));
  await two.pod.remove();
  await two.del();
  t.is(await reserved(), null);
});

test('GC gives the name back of a device whose container is gone without DEL, and lets others be', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  await joinedTo(host, 'spare', 'spare');
  await host.run(['ip', 'link', 'set', 'spare', 'alias', 'uplink']);
  await joinedTo(host, 'eth9', 'peer9');
  await host.run(['ip', 'link', 'set', 'eth9', 'alias', 'eth1']);
  const collect = () => runNetworkVerb(host, sample(name), 'GC', { valid: [] });
  const one = await attach(host, sample(name));
  const valid = [{ containerID: one.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, sample(name), 'GC', { valid })).exit, 0);
  t.is(await link(host, 'eth1'), undefined, 'what bears its name as an alias is something else');
  await host.run(['ip', 'link', 'set', 'eth9', 'name', 'spare9']);
  t.is((await collect()).exit, 0);
  t.is(await link(host, 'eth1'), undefined);
  // As the kernel does with a physical device.
  await one.pod.run(['ip', 'link', 'set', 'eth0', 'netns', String(host.pid)]);
  await one.pod.remove();
  t.is((await collect()).exit, 0);
  t.is((await link(host, 'eth1'))?.address, '0a:00:00:00:00:11');
  t.regex(await host.run(['ip', 'link', 'show', 'spare']), /alias uplink/);
  await (await attach(host, sample(name))).del();
});

test('the reference plugin gives back what we moved, and we what it moved', async (t) => {
  for (const suites of suitePairs) {
    const host = await makeHost(t);
    await addDevice(host);
    await liveWithBoth(host, sample(name), suites);
    t.is((await link(host, 'eth1'))?.address, '0a:00:00:00:00:11');
  }
});

test('a device is found by an alternative name, and comes back under its own', async (t) => {
  const host = await makeHost(t);
  await addDevice(host);
  for (const device of ['enP2p1s0f1np1v255', 'uplink']) {
    await host.run(['ip', 'link', 'property', 'add', 'dev', 'eth1', 'altname', device]);
    const network = changed(name, { device });
    const one = await attach(host, network, { ifname: 'net0' });
    t.is(await link(host, 'eth1'), undefined);
    await one.check();
    await one.del();
    t.truthy(await link(host, 'eth1'));
    // As the kernel gives it back when the sandbox is gone.
    await host.run(['ip', 'link', 'set', 'eth1', 'alias', 'eth1', 'down']);
    await host.run(['ip', 'link', 'set', 'eth1', 'name', 'net0']);
    await one.del({ netns: '/run/netns/gone' });
    t.truthy(await link(host, 'eth1'));
  }
});
