/** What is not the attachment's own is left alone, however much it looks like it. */

import test from 'ava';
import { Attachment, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { firewallNet } from '../support/firewall.ts';
import { type Host, makeHost } from '../support/host.ts';
import { files, iptablesSave, link, snapshot } from '../support/observe.ts';
import type { PrintedResult } from '../support/plugin.ts';
import { portNet, ports } from '../support/portmap.ts';

/** A chain of bridge, portmap and firewall. */
function chainNet(name: string, backend: string, bridge = 'br0', subnet = '10.5.0.0/24'): Conflist {
  return {
    cniVersion: '1.1.0',
    name,
    plugins: [
      {
        type: 'bridge',
        bridge,
        isDefaultGateway: true,
        ipMasq: true,
        ipMasqBackend: backend,
        ipam: { type: 'host-local', subnet },
      },
      { type: 'portmap', backend, capabilities: { portMappings: true } },
      { type: 'firewall', backend },
    ],
  };
}

const ruleset = (host: Host) => host.run(['nft', '--stateless', 'list', 'ruleset']);

for (const backend of ['iptables', 'nftables'])
  test(`${backend}: GC of a network leaves one whose name begins like its own`, async (t) => {
    const host = await makeHost(t);
    if (backend === 'nftables')
      await host.run([
        'nft',
        'add table inet filter; add chain inet filter forward { type filter hook forward priority 0; policy drop; }',
      ]);
    const podnet = chainNet('podnet', backend);
    const one = await attach(host, podnet, ports([8080, 80]));
    // libcni's cache names the attachment as well.
    await host.run(['mkdir', '-p', '/var/lib/cni/results']);
    await host.run(['sh', '-c', `cat > /var/lib/cni/results/podnet-${one.pod.containerId}-eth0`], {
      stdin: JSON.stringify({
        kind: 'cniCacheV1',
        containerId: one.pod.containerId,
        ifName: 'eth0',
        networkName: 'podnet',
        netns: one.pod.netns,
        result: one.result,
      }),
    });
    const before = { ...(await snapshot(host)), ruleset: await ruleset(host) };
    for (const name of ['pod', 'podne', 'podnet2', 'net'])
      t.is((await runNetworkVerb(host, chainNet(name, backend), 'GC', { valid: [] })).exit, 0);
    t.deepEqual({ ...(await snapshot(host)), ruleset: await ruleset(host) }, before);
    await one.check();
  });

/** The result of a pod with two interfaces, the call's own being the second. */
function ofTwo(first: Attachment, second: Attachment): PrintedResult {
  const [one, two] = [first.result!, second.result!];
  const count = one.interfaces!.length;
  return {
    ...two,
    interfaces: [...one.interfaces!, ...two.interfaces!],
    ips: [...one.ips!, ...two.ips!.map((ip) => ({ ...ip, interface: ip.interface! + count }))],
  };
}

for (const backend of ['iptables', 'nftables'])
  test(`${backend}: of a result with two interfaces, only the own one's addresses are let through and mapped`, async (t) => {
    const host = await makeHost(t);
    if (backend === 'nftables')
      await host.run([
        'nft',
        'add table inet filter; add chain inet filter forward { type filter hook forward priority 0; policy drop; }',
      ]);
    const [bridge, ...chained] = chainNet('net', backend).plugins;
    const only = (plugins: Conflist['plugins'], name = 'net') => ({ ...chainNet(name, backend), plugins });
    const first = await attach(host, only([bridge!]));
    const otherBridge = chainNet('two', backend, 'br1', '10.6.0.0/24').plugins[0]!;
    const second = new Attachment(
      host,
      first.pod,
      only([{ ...otherBridge, isDefaultGateway: false }], 'two'),
      {
        ifname: 'eth1',
      },
    );
    await second.add();
    const result = ofTwo(first, second);
    const rest = new Attachment(host, first.pod, only(chained, 'two'), {
      ...ports([8080, 80]),
      ifname: 'eth1',
    });
    const before = await ruleset(host);
    t.is((await rest.tryAdd({}, result)).exit, 0);
    const added = (await ruleset(host)).split('\n').filter((line) => !before.includes(line.trim()));
    t.true(
      added.some((line) => line.includes(second.ip)),
      'the own address is let through and mapped',
    );
    t.deepEqual(
      added.filter((line) => line.includes(first.ip)),
      [],
    );
    t.deepEqual(
      Object.keys(files(host, '/run/cni/firewall')).filter((file) => file.includes(first.ip)),
      [],
    );
    // What the other interface has of its own stays when this one goes.
    const own = new Attachment(host, first.pod, only([{ type: 'firewall', backend }]));
    t.is((await own.tryAdd({}, first.result)).exit, 0);
    const accepted = async () => (await ruleset(host)).includes(`saddr ${first.ip}`);
    t.true(await accepted());
    await rest.del();
    t.true(await accepted());
    t.false(
      (await ruleset(host)).split('\n').some((line) => line.includes(second.ip) && /accept|dnat/.test(line)),
    );
  });

for (const backend of ['iptables', 'nftables'])
  test(`${backend}: a port is not taken from a container of which one sandbox is gone, and another is not`, async (t) => {
    const host = await makeHost(t);
    const network = portNet({ backend });
    const holder = await attach(host, network, ports([8080, 80]));
    const { containerId } = holder.pod;
    await host.run(['mkdir', '-p', '/var/lib/cni/results']);
    await host.run(['sh', '-c', `cat > /var/lib/cni/results/net-${containerId}-eth9`], {
      stdin: JSON.stringify({
        kind: 'cniCacheV1',
        containerId,
        ifName: 'eth9',
        networkName: 'net',
        netns: '/run/netns/gone',
        result: {
          cniVersion: '1.1.0',
          interfaces: [{ name: 'eth9', sandbox: '/run/netns/gone' }],
          ips: [],
        },
      }),
    });
    const other = await new Attachment(host, await host.addPod(), network, ports([8080, 80])).tryAdd();
    t.regex(other.error?.msg ?? '', /Port 8080\/tcp .* is taken/);
    await holder.check();
  });

test("a stranger's veth that bears the name of the host's end stays", async (t) => {
  const host = await makeHost(t);
  for (const type of ['bridge', 'ptp']) {
    const ipam = { type: 'host-local', subnet: '10.5.0.0/24' };
    const one = await attach(host, { cniVersion: '1.0.0', name: 'net', plugins: [{ type, ipam }] });
    const { name } = one.result!.interfaces!.find((end) => !end.sandbox && end.name.startsWith('veth'))!;
    await host.run(['ip', 'link', 'del', name]);
    await host.run(['ip', 'link', 'add', name, 'type', 'veth', 'peer', 'name', 'other']);
    await one.del();
    t.is((await link(host, name))?.ifname, name, type);
    await host.run(['ip', 'link', 'del', name]);
  }
});

test('masquerading of a pod with two interfaces on one network loses only what the one had', async (t) => {
  const host = await makeHost(t);
  const network = { ...portNet(), plugins: [portNet().plugins[0]!] };
  const one = await attach(host, network);
  const two = new Attachment(
    host,
    one.pod,
    { ...network, plugins: [{ ...network.plugins[0]!, isDefaultGateway: false }] },
    { ifname: 'eth1' },
  );
  await two.add();
  const sources = async () =>
    (await iptablesSave(host)).flatMap((rule) => /^-A POSTROUTING -s ([\d.]+)/.exec(rule)?.[1] ?? []).sort();
  t.deepEqual(await sources(), [one.ip, two.ip].sort());
  // Without a result, the interface tells which addresses were its own.
  two.result = undefined;
  await two.del();
  t.deepEqual(await sources(), [one.ip]);
  await one.check();
});

test('without a result, masquerading goes with an interface that has other addresses by now', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, { ...portNet(), plugins: [portNet().plugins[0]!] });
  const jumps = async () =>
    (await Promise.all([4, 6].map((family) => iptablesSave(host, 'nat', family as 4 | 6))))
      .flat()
      .filter((rule) => /^-A POSTROUTING -s/.test(rule));
  t.is((await jumps()).length, 2);
  for (const { address } of one.result!.ips!)
    await one.pod.run(['ip', 'addr', 'del', address, 'dev', 'eth0']);
  // The addresses that it has instead do not tell which rules there are.
  await one.pod.run(['ip', 'addr', 'add', '10.5.0.77/24', 'dev', 'eth0']);
  one.result = undefined;
  await one.del();
  t.deepEqual(await jumps(), []);
});

test('the note of a lost pod goes when its address is let through for the next one', async (t) => {
  const host = await makeHost(t);
  const network = firewallNet('1.0.0', { backend: 'iptables' });
  const lost = await attach(host, network);
  const notes = () =>
    Object.keys(files(host, '/run/cni/firewall')).filter((file) => file.includes(`/${lost.ip}_`));
  const before = notes();
  t.is(before.length, 1);
  // Its DEL never came; somebody has released its addresses.
  await lost.pod.remove();
  for (const { address } of lost.result!.ips!)
    await host.run(['rm', `/var/lib/cni/networks/br0/${address.split('/')[0]}`]);
  const next = await attach(host, network, { args: `IgnoreUnknown=1;IP=${lost.ip}` });
  t.is(next.ip, lost.ip);
  const after = notes();
  t.is(after.length, 1);
  t.notDeepEqual(after, before);
  await next.check();
});

test('firewall on a dual-stack chain lets both families of the own interface through', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, firewallNet('1.0.0', { backend: 'iptables' }));
  for (const { address } of one.result!.ips!) {
    const rules = await iptablesSave(host, 'filter', address.includes(':') ? 6 : 4);
    t.true(
      rules.some((rule) => rule.startsWith(`-A CNI-FORWARD -s ${address.split('/')[0]}/`)),
      address,
    );
  }
});
