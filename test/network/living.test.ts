/** What an ADD that is refused or fails does to an attachment of the same name that is alive: nothing. */

import test from 'ava';
import { Attachment, attach, type Conflist, type PluginConf } from '../support/chain.ts';
import { makeHostWithDevices } from '../support/host.ts';
import { link, networkSnapshot, ping, snapshot, until } from '../support/observe.ts';

const hostLocal = { type: 'host-local', subnet: '10.30.0.0/24', routes: [{ dst: '0.0.0.0/0' }] };
const fixed = { type: 'static', addresses: [{ address: '10.30.0.9/24', gateway: '10.30.0.1' }] };

const networks: Record<string, PluginConf> = {
  'bridge with host-local': { type: 'bridge', bridge: 'br0', isGateway: true, ipMasq: true, ipam: hostLocal },
  'bridge with static addresses': {
    type: 'bridge',
    bridge: 'br0',
    isGateway: true,
    ipMasq: true,
    macspoofchk: true,
    ipam: fixed,
  },
  'bridge with nftables': {
    type: 'bridge',
    bridge: 'br0',
    isGateway: true,
    ipMasq: true,
    ipMasqBackend: 'nftables',
    ipam: fixed,
  },
  'bridge without addresses': { type: 'bridge', bridge: 'br0' },
  'ptp with host-local': { type: 'ptp', ipMasq: true, ipam: hostLocal },
  'ptp with static addresses': { type: 'ptp', ipMasq: true, ipam: fixed },
  'macvlan with host-local': { type: 'macvlan', master: 'up0', ipam: hostLocal },
  'macvlan with static addresses': { type: 'macvlan', master: 'up0', ipam: fixed },
  'tap with host-local': { type: 'tap', ipam: hostLocal },
  'host-device with host-local': { type: 'host-device', device: 'dev0', ipam: hostLocal },
};

function networkOf(plugin: PluginConf): Conflist {
  return { cniVersion: '1.1.0', name: 'living', plugins: [plugin] };
}

for (const [name, plugin] of Object.entries(networks)) {
  test(`a second ADD is refused and changes nothing: ${name}`, async (t) => {
    const host = await makeHostWithDevices(t);
    const one = await attach(host, networkOf(plugin));
    const before = [await snapshot(host), await networkSnapshot(one.pod)];
    const { exit, error } = await new Attachment(host, one.pod, networkOf(plugin)).tryAdd();
    t.is(exit, 1);
    t.regex(error!.msg, /already has an interface "eth0"|no interface for device/);
    t.deepEqual([await snapshot(host), await networkSnapshot(one.pod)], before);
    const leadsToHost = ['bridge', 'ptp'].includes(plugin.type) && one.result!.ips;
    if (leadsToHost) t.true(await ping(one.pod, '10.30.0.1'));
    await one.check();
    await one.del();
    t.is(await link(one.pod, 'eth0'), undefined);
  });

  test(`two ADDs of one attachment at once: one succeeds and works: ${name}`, async (t) => {
    const host = await makeHostWithDevices(t);
    const pod = await host.addPod();
    const both = [0, 1].map(() => new Attachment(host, pod, networkOf(plugin)));
    const outcomes = await Promise.all(both.map((one) => one.tryAdd()));
    const winners = both.filter((_, i) => outcomes[i]!.exit === 0);
    t.is(winners.length, 1, outcomes.map(({ stdout }) => stdout).join());
    await winners[0]!.check();
    await winners[0]!.del();
    t.is(await link(pod, 'eth0'), undefined);
  });
}

test('an ADD under the same container ID in another sandbox is refused, and the address stays reserved', async (t) => {
  const host = await makeHostWithDevices(t);
  const network = networkOf(networks['bridge with host-local']!);
  const one = await attach(host, network);
  const before = [await snapshot(host), await networkSnapshot(one.pod)];
  const other = await host.addPod();
  const second = new Attachment(host, other, network, { containerId: one.pod.containerId });
  t.regex((await second.tryAdd()).error!.msg, /already has address/);
  const { sandboxes, ...after } = await snapshot(host);
  t.deepEqual([{ ...after, sandboxes: [one.pod.name] }, await networkSnapshot(one.pod)], before);
  t.is((sandboxes as string[]).length, 2);
  t.is(await link(other, 'eth0'), undefined);
});

for (const name of [
  'ptp with host-local',
  'macvlan with host-local',
  'tap with host-local',
  'host-device with host-local',
])
  test(`CHECK finds addresses flushed, the interface down or missing: ${name}`, async (t) => {
    const host = await makeHostWithDevices(t);
    for (const [drift, message] of [
      [['ip', 'address', 'flush', 'dev', 'eth0'], /has no address/],
      [['ip', 'link', 'set', 'eth0', 'down'], /is down|no peer/],
      [['ip', 'link', 'set', 'eth0', 'down', 'name', 'other0'], /is missing/],
    ] as const) {
      const one = await attach(host, networkOf(networks[name]!));
      await one.check();
      await one.pod.run(drift);
      t.regex((await one.tryCheck()).error?.msg ?? 'no error', message);
      if (drift.includes('other0' as never))
        await one.pod.run(['ip', 'link', 'set', 'other0', 'name', 'eth0']);
      await one.del();
    }
  });

for (const type of ['bridge', 'ptp', 'macvlan'])
  test(`the commands that CHECK names mend an interface that was taken down and lost its addresses: ${type}`, async (t) => {
    const host = await makeHostWithDevices(t);
    const subnets = ['10.30.0.0/24', 'fd00:30::/64'];
    const network = networkOf({
      type,
      ...(type === 'bridge' && { bridge: 'br0', isGateway: true }),
      ...(type === 'macvlan' && { master: 'up0' }),
      ipam: {
        type: 'host-local',
        ranges: subnets.map((subnet) => [{ subnet }]),
        routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
      },
    });
    const one = await attach(host, network);
    await one.pod.run(['ip', 'link', 'set', 'eth0', 'down']);
    await one.pod.run(['ip', 'address', 'flush', 'dev', 'eth0']);
    const found: string[] = [];
    while (found.length < 6) {
      const msg = (await one.tryCheck()).error?.msg;
      if (msg === undefined) break;
      found.push(/is down|has no address [0-9a-f.:]+|no route to [0:.]+\/0/.exec(msg)?.[0] ?? msg);
      await host.run(['sh', '-c', /"(nsenter [^"]+)"/.exec(msg)![1]!]);
    }
    t.deepEqual(found, [
      'is down',
      'has no address 10.30.0.2',
      'has no address fd00:30::2',
      'no route to 0.0.0.0/0',
      'no route to ::/0',
    ]);
    await one.check();
    if (type !== 'macvlan')
      for (const gateway of ['10.30.0.1', 'fd00:30::1'])
        await until(`${gateway} answers`, () => ping(one.pod, gateway));
  });
