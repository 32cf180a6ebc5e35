/** VLANs of a bridge's ports, on a kernel that filters them. */

import { Attachment, attach, type Conflist } from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import { ipJson, link, links, ping } from '../support/observe.ts';
import { operatorOf } from '../support/operator.ts';
import { guestTest as test } from '../support/uml.ts';

const vlanNet = (keys: object): Conflist => ({
  cniVersion: '1.1.0',
  name: 'net',
  plugins: [{ type: 'bridge', bridge: 'br0', ipam: { type: 'host-local', subnet: '10.5.0.0/24' }, ...keys }],
});

interface PortVlans {
  ifname: string;
  vlans: { vlan: number; vlanEnd?: number; flags?: string[] }[];
}

/** What bridge(8) reports about a port. */
async function vlansOf(host: Host, port: string): Promise<PortVlans['vlans']> {
  const ports = JSON.parse(await host.run(['bridge', '-j', 'vlan', 'show'])) as PortVlans[];
  return ports.find(({ ifname }) => ifname === port)?.vlans ?? [];
}

test('pods of one VLAN reach one another, those of another do not', async (t) => {
  const host = await makeHost(t);
  const [a, b, c] = [
    await attach(host, vlanNet({ vlan: 100 })),
    await attach(host, vlanNet({ vlan: 100 })),
    await attach(host, vlanNet({ vlan: 200 })),
  ];
  t.true(await ping(a.pod, b.ip));
  t.false(await ping(a.pod, c.ip));
  t.deepEqual(await vlansOf(host, a.result!.interfaces![1]!.name), [
    { vlan: 100, flags: ['PVID', 'Egress Untagged'] },
  ]);
  const bridge = await ipJson<{ linkinfo: { info_data: { vlan_filtering: number } } }>(
    host,
    'link',
    'show',
    'br0',
  );
  t.is(bridge[0]?.linkinfo.info_data.vlan_filtering, 1);
  await a.check();
  await host.run(['bridge', 'vlan', 'del', 'dev', a.result!.interfaces![1]!.name, 'vid', '100']);
  t.regex((await a.tryCheck()).error?.msg ?? '', /not in VLAN 100/);
  for (const one of [a, b, c]) await one.del();
});

test('a trunk carries its VLANs tagged, and keeps VLAN 1 for untagged frames', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, vlanNet({ vlanTrunk: [{ id: 7 }, { minID: 10, maxID: 12 }] }));
  const found = await vlansOf(host, one.result!.interfaces![1]!.name);
  const ids = found.flatMap(({ vlan, vlanEnd = vlan }) =>
    Array.from({ length: vlanEnd - vlan + 1 }, (_, i) => vlan + i),
  );
  t.deepEqual(ids, [1, 7, 10, 11, 12]);
  t.deepEqual(found[0]?.flags, ['PVID', 'Egress Untagged']);
  await one.check();
  const kept = await attach(host, vlanNet({ vlan: 50, preserveDefaultVlan: true }));
  t.deepEqual(
    (await vlansOf(host, kept.result!.interfaces![1]!.name)).map(({ vlan }) => vlan),
    [1, 50],
  );
});

test('untagged frames keep their way where the trunk includes their VLAN', async (t) => {
  const host = await makeHost(t);
  const flags = ['PVID', 'Egress Untagged'];
  for (const [keys, untagged] of [
    [{ vlanTrunk: [{ minID: 1, maxID: 20 }] }, 1],
    [{ vlanTrunk: [{ minID: 1, maxID: 20 }], preserveDefaultVlan: true }, 1],
    [{ vlan: 7, vlanTrunk: [{ minID: 5, maxID: 9 }] }, 7],
  ] as const) {
    const one = await attach(host, vlanNet(keys));
    const vlans = await vlansOf(host, one.result!.interfaces![1]!.name);
    t.deepEqual(
      vlans.filter((vlan) => vlan.flags),
      [{ vlan: untagged, flags }],
    );
    await one.check();
    await one.del();
  }
});

test('the gateway of a VLAN has an interface of its own on the host', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, vlanNet({ vlan: 100, isGateway: true }));
  const two = await attach(host, vlanNet({ vlan: 100, isGateway: true }));
  t.true(await ping(one.pod, '10.5.0.1'));
  t.true(await ping(two.pod, '10.5.0.1'));
  t.truthy(await link(host, 'br0.100'));
  t.is(one.result!.interfaces![3]!.name, 'br0.100');
  await one.check();
});

test('a failing ADD leaves no interface of the gateway, unless another pod is in the VLAN', async (t) => {
  const host = await makeHost(t);
  const network = vlanNet({ vlan: 100, isGateway: true });
  const fail = async () => {
    const outcome = await new Attachment(host, await host.addPod(), network).tryAdd({ isUnheard: true });
    t.true(outcome.exit !== 0);
  };
  const names = async () => (await links(host)).map(({ ifname }) => ifname).sort();
  const before = await names();
  await fail();
  t.deepEqual(await names(), before);
  const one = await attach(host, network);
  const living = await names();
  await fail();
  t.deepEqual(await names(), living);
  t.true(await ping(one.pod, '10.5.0.1'));
});

test('"cni repair" brings back the VLANs of a port, and the interface of the gateway', async (t) => {
  const { plugins } = vlanNet({ vlan: 100, vlanTrunk: [{ id: 200 }], isGateway: true });
  const { host, cni, add, del } = await operatorOf(t, plugins);
  const pod = await add();
  const [eth0] = await ipJson<{ link_index: number }>(pod, 'link', 'show', 'dev', 'eth0');
  const port = (await links(host)).find(({ ifindex }) => ifindex === eth0!.link_index)!.ifname;
  const wanted = await vlansOf(host, port);
  t.deepEqual(wanted, [{ vlan: 100, flags: ['PVID', 'Egress Untagged'] }, { vlan: 200 }]);
  for (const [command, missing] of [
    [`bridge vlan del dev ${port} vid 200`, /settings of port "veth\w+" of bridge "br0"/],
    [`ip link set ${port} nomaster`, /port "veth\w+" of bridge "br0"/],
    ['ip link set br0.100 down', /state "up" of interface "br0\.100"/],
    ['ip link del br0', /bridge "br0"\n/],
    ['ip link del br0.100', /interface "br0\.100" with the gateway's addresses/],
  ] as const) {
    await host.run(command.split(' '));
    t.regex(await cni(['repair']), missing);
    t.deepEqual([command, await vlansOf(host, port)], [command, wanted]);
    t.deepEqual([command, await ping(pod, '10.5.0.1')], [command, true]);
  }
  t.regex(await cni(['repair']), /^0 attachments repaired, 1 intact\.\n$/);
  await del(pod);
});

test('half an interface for the gateway is found by CHECK, and made whole by the next ADD', async (t) => {
  const host = await makeHost(t);
  const network = vlanNet({ vlan: 100, isGateway: true });
  // As left by an ADD that was killed after its first request.
  await host.run('ip link add br0.100 type veth peer name half'.split(' '));
  const one = await attach(host, network);
  t.true(await ping(one.pod, '10.5.0.1'));
  await one.check();
  for (const [drift, message] of [
    ['ip link set half nomaster', /"half", the peer of "br0\.100", is not a port/],
    ['bridge vlan del dev half vid 100', /in VLAN 100/],
    ['ip link set br0.100 down', /"br0\.100" with the gateway's addresses is down/],
    ['ip link del br0.100', /"br0\.100" with the gateway's addresses is missing/],
  ] as const) {
    await host.run(drift.split(' '));
    t.regex((await one.tryCheck()).error!.msg, message);
    const next = await attach(host, network);
    t.true(await ping(next.pod, '10.5.0.1'));
    await one.check();
  }
});
