/**
 * The overlay beside others: nodes with flanneld, other networks, the firewall, and odd data in etcd.
 * Runs once: it starts agents itself.
 */

import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { attach, sample } from '../support/chain.ts';
import { converse, serveLines } from '../support/connection.ts';
import { Etcd } from '../support/etcd.ts';
import { writeSubnetEnv } from '../support/flannel.ts';
import { binDir, makeHost } from '../support/host.ts';
import { addresses, iptablesSave, link, ping, reach, routes, serve, until } from '../support/observe.ts';
import { Node, settledTunnel, untilConnected, vxlanNetwork, Wire } from '../support/overlay.ts';
import { makeAuthority, tlsOptions } from '../support/pki.ts';

const network = sample('40-flannel.conflist');

test('a node with flanneld and one with the agent are in one overlay', async (t) => {
  const wire = await Wire.make(t, { Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } });
  // What flanneld does on its node, and writes to etcd.
  const foreign = await wire.addHost(9);
  const mac = '5e:12:34:56:78:9a';
  const ip = (line: string) => foreign.run(['ip', ...line.split(' ')]);
  await ip(
    `link add flannel.1 address ${mac} mtu 1450 type vxlan id 1 local 192.0.2.9 dev eth0 dstport 8472 nolearning`,
  );
  await ip('address add 10.244.9.0/32 dev flannel.1');
  await ip('link set flannel.1 up');
  writeSubnetEnv(foreign, 9, { FLANNEL_IPV6_NETWORK: '', FLANNEL_IPV6_SUBNET: '' });
  await wire.write(
    'subnets/10.244.9.0-24',
    `{"PublicIP":"192.0.2.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"${mac}"}}`,
  );
  const node = await wire.addNode(1);
  await until('the node knows the other', async () => (await node.routedTo()).includes('10.244.9.0/24'));
  t.deepEqual(await node.forwarding(), [`${mac} 192.0.2.9`]);
  t.deepEqual(await node.neighbours(), [`10.244.9.0 ${mac}`]);

  // What flanneld does when it hears of the node.
  const [key, value] = Object.entries(await wire.subnets()).find(([one]) => !one.startsWith('10.244.9.'))!;
  const told = JSON.parse(value) as { PublicIP: string; BackendData: { VtepMAC: string } };
  const first = key.replace('-24', '');
  await ip(`neighbour add ${first} lladdr ${told.BackendData.VtepMAC} dev flannel.1`);
  await foreign.run([
    ...['bridge', 'fdb', 'append', told.BackendData.VtepMAC, 'dev', 'flannel.1'],
    ...['dst', told.PublicIP, 'self', 'permanent'],
  ]);
  await ip(`route add ${first}/24 via ${first} dev flannel.1 onlink`);

  const [there, here] = [await attach(foreign, network), await attach(node.host, network)];
  await serve(t, there.pod, 'tcp', 80, 'there');
  await serve(t, here.pod, 'tcp', 80, 'here');
  t.deepEqual(await reach(here.pod, 'tcp', there.ip, 80).then((one) => [one.label, one.peer]), [
    'there',
    here.ip,
  ]);
  t.deepEqual(await reach(there.pod, 'tcp', here.ip, 80).then((one) => [one.label, one.peer]), [
    'here',
    there.ip,
  ]);
  t.true(await ping(here.pod, there.ip, '-M', 'do', '-s', '1422'));

  // Its interface was made anew, as after a new start of its host.
  const text = (await wire.subnets())['10.244.9.0-24']!;
  await wire.write('subnets/10.244.9.0-24', text.replace(mac, '5e:12:34:56:78:00'));
  await until('the node follows', async () => (await node.forwarding())[0] === '5e:12:34:56:78:00 192.0.2.9');
  t.deepEqual(await node.neighbours(), ['10.244.9.0 5e:12:34:56:78:00']);
  await wire.write('subnets/10.244.9.0-24', text);

  // The agent takes flanneld's place.
  await serveLines(t, there.pod, 81);
  const say = await converse(t, here.pod, there.ip, 81);
  const before = await settledTunnel(foreign);
  const successor = new Node(t, foreign);
  await successor.startAgent({ 'etcd-endpoints': wire.etcd.hosts, 'ip-masq': true });
  await until('it has a subnet', async () => /in touch/.test(successor.log));
  t.is(successor.subnet, '10.244.9.0/24');
  t.deepEqual(await settledTunnel(foreign), before);
  t.is((await wire.subnets())['10.244.9.0-24'], text);
  await untilConnected([node, successor]);
  t.regex(await say('as before'), /as before/);
});

test('a thousand nodes', async (t) => {
  const wire = await Wire.make(t, { ...vxlanNetwork, Network: '10.0.0.0/8', SubnetMin: undefined });
  const numbers = Array.from({ length: 1000 }, (_, i) => [Math.floor(i / 250) + 1, (i % 250) + 1] as const);
  const keyOf = ([high, low]: readonly [number, number]) => `10.${high}.${low}.0-24`;
  const macOf = ([high, low]: readonly [number, number]) =>
    `5e:00:00:00:0${high}:${low.toString(16).padStart(2, '0')}`;
  const write = (some: typeof numbers) =>
    wire.writeAll(
      some.map((one) => [
        `subnets/${keyOf(one)}`,
        `{"PublicIP":"198.51.${one.join('.')}","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"${macOf(one)}"}}`,
      ]),
    );
  await write(numbers.slice(0, 500));
  const node = await wire.addNode(1);
  await until('it has routes to those before it', async () => (await node.routedTo()).length === 500);
  await write(numbers.slice(500));
  await until('it has routes to all', async () => (await node.routedTo()).length === 1000);
  t.deepEqual(await node.forwarding(), numbers.map((one) => `${macOf(one)} 198.51.${one.join('.')}`).sort());
  t.deepEqual(
    await node.neighbours(),
    numbers.map((one) => `${keyOf(one).replace('-24', '')} ${macOf(one)}`).sort(),
  );
});

test('pods of both families', async (t) => {
  const wire = await Wire.make(t, { ...vxlanNetwork, EnableIPv6: true, IPv6Network: 'fd00:10:244::/48' });
  const nodes = await wire.addNodes(2);
  const [a, b] = nodes as [Node, Node];
  const subnet6 = ({ env }: Node) => env!.FLANNEL_IPV6_SUBNET!.replace('::1/', '::/');
  t.is(a.env!.FLANNEL_IPV6_NETWORK, 'fd00:10:244::/48');
  t.is(a.env!.FLANNEL_MTU, '1430', 'what fits through packets of either family');
  t.deepEqual(
    Object.keys(await wire.subnets()).sort(),
    nodes.map((node) => `${node.subnet}&${subnet6(node)}`.replaceAll('/', '-')).sort(),
  );
  await until('IPv6 is routed as well', async () => (await a.routedTo(6)).includes(subnet6(b)));
  t.is((await link(a.host, 'flannel-v6.1'))!.linkinfo!.info_data!.local6, '2001:db8::1');
  t.deepEqual(await addresses(a.host, 'flannel-v6.1'), [subnet6(a).replace('/64', '/128')]);
  t.regex((await a.forwarding('flannel-v6.1')).join(), / 2001:db8::2$/);

  const [one, other] = await Promise.all(nodes.map(({ host }) => attach(host, network)));
  for (const { address } of other!.result!.ips!) t.true(await ping(one!.pod, address.split('/')[0]!));
});

test('packets to nodes on the same wire go without VXLAN where that is wanted', async (t) => {
  const wire = await Wire.make(t, { ...vxlanNetwork, Backend: { Type: 'vxlan', DirectRouting: true } });
  const nodes = await wire.addNodes(2);
  const [a, b] = nodes as [Node, Node];
  t.is((await a.host.run(['ip', 'route', 'show', b.subnet])).trim(), `${b.subnet} via 192.0.2.2 dev eth0`);
  t.deepEqual(await a.forwarding(), []);
  // A node behind a router.
  const mac = '5e:00:00:00:00:01';
  await wire.write(
    'subnets/10.244.77.0-24',
    `{"PublicIP":"198.51.100.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"${mac}"}}`,
  );
  await until('it is reached by VXLAN', async () => (await a.routedTo()).includes('10.244.77.0/24'));
  t.deepEqual(await a.forwarding(), [`${mac} 198.51.100.1`]);
  const [one, other] = await Promise.all(nodes.map(({ host }) => attach(host, network)));
  t.true(await ping(one!.pod, other!.ip));
});

test('keys that are no nodes are left out, and so is what the kernel refuses', async (t) => {
  const wire = await Wire.make(t, { ...vxlanNetwork, Backend: { Type: 'host-gw' } });
  const good = '{"PublicIP":"192.0.2.50","PublicIPv6":null,"BackendType":"host-gw"}';
  const odd: Record<string, string> = {
    garbage: good,
    '10.244.300.0-24': good,
    '10.244.3.0-99': good,
    '10.244.3.7-24': good,
    '0.0.0.0-0': good,
    '10.99.0.0-24': good,
    '10.244.4.0-24': 'no JSON',
    '10.244.5.0-24': '[]',
    '10.244.6.0-24': '{"PublicIP":"here","BackendType":"host-gw"}',
    '10.244.7.0-24&fd00::-200': good,
    '10.244.8.0-24/deeper': good,
  };
  for (const [name, value] of Object.entries(odd)) await wire.write(`subnets/${name}`, value);
  // No fault, but of no use to this backend: another backend, none, and a node that no interface leads to.
  await wire.write('subnets/10.244.10.0-24', good.replace('host-gw', 'vxlan'));
  await wire.write('subnets/10.244.11.0-24', '{}');
  await wire.write('subnets/10.244.12.0-24', good.replace('192.0.2.50', '203.0.113.1'));
  const [node, other] = (await wire.addNodes(2)) as [Node, Node];
  await wire.write('subnets/10.244.13.0-24', good);
  await until('the good one is there', async () => (await node.routedTo()).includes('10.244.13.0/24'));
  await wire.write('subnets/10.244.14.0-24', '\0');
  await until('the last one is told of', async () => node.log.includes('10.244.14.0-24'));
  // Of another length than this network's.
  await wire.write('subnets/10.244.15.0-25', good);
  await until('it is there', async () => (await node.routedTo()).includes('10.244.15.0/25'));
  await wire.remove('subnets/10.244.15.0-25');
  await until('its node has left', async () => /10\.244\.15\.0-25 of .* has left/.test(node.log));
  t.deepEqual(await node.routedTo(), ['10.244.13.0/24', other.subnet].sort());
  for (const name of Object.keys(odd))
    t.true(node.log.includes(`subnets/${name}" of etcd is not a node's, and is ignored`), name);
  t.regex(node.log, /Cannot replace route to 10\.244\.12\.0\/24 via 203\.0\.113\.1: .*ENETUNREACH/);
  t.regex(node.log, /10\.244\.10\.0-24 is left out: it has backend "vxlan" and address 192\.0\.2\.50/);
  t.regex(node.log, /10\.244\.11\.0-24 is left out: it has backend "" and address none/);
  t.notRegex(node.log, /10\.244\.1[01]\.0-24 of .* has joined/);
});

test('trouble on the node itself is told once, and not taken for one of etcd', async (t) => {
  const wire = await Wire.make(t);
  const host = await wire.addHost(1);
  writeFileSync(host.file('/run/blocked'), '');
  const node = new Node(t, host);
  await node.startAgent({ 'etcd-endpoints': wire.etcd.hosts, 'subnet-file': '/run/blocked/subnet.env' });
  await until('it is in touch', async () => node.log.includes('in touch with etcd'));
  const status = async () => (await host.run([join(binDir, 'cni'), 'agent', 'status'])).split('\n')[2];
  t.regex(
    (await status())!,
    /^Overlay: 10\.244\.\d+\.0\/24, by vxlan to 0 other nodes\. Problem: .*\/run\/blocked/,
  );
  // More than two intervals of ten seconds between checks.
  await sleep(24_000);
  t.is(node.log.split('Cannot write').length, 2, node.log);
  t.notRegex(node.log, /etcd is asked again/);
  await host.run(['rm', '/run/blocked']);
  await until('it is written', async () => existsSync(host.file('/run/blocked/subnet.env')));
  await until('all is well', async () => !(await status())?.includes('Problem'));
});

test('a subnet that is lost is given up loudly, and another one is taken', async (t) => {
  const wire = await Wire.make(t);
  const [node, other] = (await wire.addNodes(2)) as [Node, Node];
  const former = node.subnet;
  const { key } = node;
  await wire.endLease(key);
  await until('it has the same again', async () => (await wire.subnets())[key] !== undefined);
  t.regex(node.log, /its key was deleted/);

  const thief = (await wire.subnets())
    [key]!.replace('192.0.2.1', '192.0.2.66')
    .replace(/(?:..:){5}../, '5e:00:00:00:00:66');
  await wire.write(`subnets/${key}`, thief);
  await until('it has another', async () => node.subnet !== former);
  t.is((await wire.subnets())[key], thief);
  t.regex(node.log, /its key was taken over/);
  t.regex(node.log, new RegExp(`had ${key} before, which it could not keep`));
  await untilConnected([node, other]);
  t.deepEqual(await node.tunnelAddresses(), [node.subnet.replace('/24', '/32')]);
  await until('others follow', async () => (await other.forwarding()).length === 2);
  await until('rules are of the new subnet', async () => {
    const rules = (await iptablesSave(node.host)).join('\n');
    return rules.includes(`-s ${node.subnet} `) && !rules.includes(former);
  });

  const second = node.subnet;
  await node.stopAgent();
  await wire.endLease(node.key);
  await wire.write(`subnets/${node.key}`, thief);
  await node.startAgent();
  await until('it has a third', async () => node.subnet !== second);
  t.not(node.subnet, former);
});

test('subnets that are reserved, and none that is free', async (t) => {
  const wire = await Wire.make(t, { ...vxlanNetwork, Network: '10.244.0.0/28', SubnetMin: undefined });
  await wire.write('subnets/10.244.0.12-30', '{"PublicIP":"192.0.2.3"}');
  const nodes = await wire.addNodes(3);
  t.is(nodes[2]!.env!.FLANNEL_SUBNET, '10.244.0.13/30');
  t.is(await wire.leaseOf('10.244.0.12-30'), '', 'it is without an end as before');
  const late = await wire.addNode(4);
  await until('it says so', async () => /All subnets of 10\.244\.0\.0\/28 are taken/.test(late.log));
  t.is(late.env, undefined);
  const [gone] = nodes as [Node];
  await gone.stopAgent();
  await wire.endLease(gone.key);
  await until('it takes what has become free', async () => late.env !== undefined);
  t.is(late.env!.FLANNEL_SUBNET, gone.env!.FLANNEL_SUBNET);
});

test('a lease is renewed before it ends', async (t) => {
  const wire = await Wire.make(t);
  const node = await wire.addNode(1, { 'subnet-lease-renew-margin': 1439.98 });
  await until('it has a subnet', async () => node.env !== undefined);
  const { key } = node;
  const value = (await wire.subnets())[key];
  for (let times = 0; times < 2; times++) {
    const lease = await wire.leaseOf(key);
    await until('it is renewed', async () => (await wire.leaseOf(key)) !== lease);
  }
  const { TTL } = await wire.etcd.ask('/v3/lease/timetolive', { ID: await wire.leaseOf(key) });
  t.true(Number(TTL) > 86_000 && Number(TTL) <= 86_400);
  t.is((await wire.subnets())[key], value);
});

test('rules of the firewall are those of flanneld, and are brought back', async (t) => {
  const wire = await Wire.make(t);
  const node = await wire.addNode(1, { 'iptables-forward-rules': true });
  await until('it has a subnet', async () => node.env !== undefined);
  const comment = (text: string) => `-m comment --comment "flanneld ${text}"`;
  const [cluster, pods] = ['10.244.0.0/16', node.subnet];
  const chain = '-A FLANNEL-POSTRTG';
  const nat = [
    `-A POSTROUTING ${comment('masq')} -j FLANNEL-POSTRTG`,
    `${chain} -m mark --mark 0x4000/0x4000 ${comment('masq')} -j RETURN`,
    `${chain} -s ${pods} -d ${cluster} ${comment('masq')} -j RETURN`,
    `${chain} -s ${cluster} -d ${pods} ${comment('masq')} -j RETURN`,
    `${chain} ! -s ${cluster} -d ${pods} ${comment('masq')} -j RETURN`,
    `${chain} -s ${cluster} ! -d 224.0.0.0/4 ${comment('masq')} -j MASQUERADE --random-fully`,
    `${chain} ! -s ${cluster} -d ${cluster} ${comment('masq')} -j MASQUERADE --random-fully`,
  ];
  const filter = [
    `-A FORWARD ${comment('forward')} -j FLANNEL-FWD`,
    `-A FLANNEL-FWD -s ${cluster} ${comment('forward')} -j ACCEPT`,
    `-A FLANNEL-FWD -d ${cluster} ${comment('forward')} -j ACCEPT`,
  ];
  const rules = async (table: string) =>
    (await iptablesSave(node.host, table)).filter((line) => line.startsWith('-A'));
  const areThere = async () => {
    const [a, b] = [await rules('nat'), await rules('filter')];
    return a.join() === nat.join() && b.join() === filter.join();
  };
  await until('they are there', areThere);
  await node.host.run(['iptables', '-t', 'nat', '-F']);
  await node.host.run(['iptables', '-D', 'FLANNEL-FWD', '1']);
  await until('they are there again', areThere);
  t.deepEqual([await rules('nat'), await rules('filter')], [nat, filter]);
  await node.stopAgent();
  await node.startAgent();
  await until('the agent is back', async () => node.log.split('in touch').length > 2);
  t.deepEqual([await rules('nat'), await rules('filter')], [nat, filter], 'each is there once');
});

test('over TLS, with a password', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  await host.run(['ip', 'link', 'add', 'eth0', 'up', 'type', 'veth', 'peer', 'name', 'wire']);
  await host.run(['ip', 'link', 'set', 'wire', 'up']);
  await host.run(['ip', 'address', 'add', '192.0.2.1/24', 'dev', 'eth0']);
  const files = await makeAuthority(host, 'own', ['127.0.1.1']);
  const etcd = await Etcd.start(t, host, { tls: files, options: tlsOptions('own') });
  await etcd.requirePassword('secret');
  await etcd.put('/nodes/config', JSON.stringify({ ...vxlanNetwork, Backend: { Type: 'host-gw' } }));
  const settings = {
    'etcd-endpoints': etcd.hosts,
    'etcd-prefix': '/nodes',
    'etcd-cafile': files.ca,
    'etcd-certfile': files.cert,
    'etcd-keyfile': files.key,
    'etcd-username': 'root',
    'etcd-password': 'secret',
    iface: '192.0.2.1',
    'subnet-file': '/run/other/subnet.env',
  };
  const node = new Node(t, host);
  await node.startAgent({ ...settings, 'etcd-password': 'wrong' });
  await until('it is refused', async () => /etcd refuses user "root".*"etcd-password"/.test(node.log));
  t.notRegex(node.log, /secret|wrong/);
  await node.stopAgent();
  await node.startAgent(settings);
  await until('it has a subnet', async () => /in touch/.test(node.log));
  t.regex(await host.run(['cat', '/run/other/subnet.env']), /^FLANNEL_SUBNET=10\.244\.\d+\.1\/24$/m);
  await etcd.put('/nodes/subnets/10.244.77.0-24', '{"PublicIP":"192.0.2.7","BackendType":"host-gw"}');
  await until('it hears of a node', async () =>
    (await routes(host)).some(({ dst, gateway }) => dst === '10.244.77.0/24' && gateway === '192.0.2.7'),
  );
});

test('a node that others reach at another address than its own', async (t) => {
  const wire = await Wire.make(t);
  const settings = { 'etcd-endpoints': wire.etcd.hosts, 'public-ip': '198.51.100.9' };
  const node = await wire.addNode(1, settings);
  await until('it has a subnet', async () => node.env !== undefined);
  t.regex((await wire.subnets())[node.key]!, /"PublicIP":"198\.51\.100\.9"/);
  t.is((await link(node.host, 'flannel.1'))!.linkinfo!.info_data!.local, '192.0.2.1');

  await wire.write('config', { ...vxlanNetwork, Backend: { Type: 'host-gw' } });
  await until('the change is noticed', async () => /config" of etcd has changed\. Restart/.test(node.log));
  for (const [more, pattern] of [
    [{}, /With backend "host-gw" both must be the same/],
    [{ iface: 'none0' }, /"iface" is "none0", but this node has no such interface/],
    [{ iface: 'lo' }, /Interface "lo" has no IPv4 address/],
  ] as const) {
    await node.stopAgent();
    await node.startAgent({ ...settings, ...more });
    await until(`${pattern}`, async () => pattern.test(node.log));
  }
  await node.stopAgent();
  await node.host.run(['ip', 'route', 'delete', 'default']);
  await node.startAgent({ 'etcd-endpoints': wire.etcd.hosts });
  await until('it says what it lacks', async () => /has no default route/.test(node.log));
  await node.stopAgent();
  await node.startAgent({ 'etcd-endpoints': wire.etcd.hosts, iface: 'eth0' });
  await until('it is back', async () => node.log.split('in touch').length === 3);
  t.is(node.env!.FLANNEL_MTU, '1500');
});

test('settings and networks that are not possible', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const start = (file: string, ...more: string[]) =>
    host.tryRun([join(binDir, 'cni'), 'agent', '--overlay', file, ...more]);
  for (const [text, pattern] of [
    ['{', /Cannot read the settings of the overlay in "\/etc\/cni\/overlay.json"/],
    ['[]', /not a JSON object/],
    ['{"ipMasq": true}', /"ipMasq" is not one of them, which are etcd-endpoints, .*ip-masq/],
    ['{"ip-masq": "yes"}', /"ip-masq" is "yes", but it must be true or false/],
    ['{"etcd-endpoints": "ftp://x"}', /"etcd-endpoints" names "ftp:\/\/x"/],
    ['{"etcd-endpoints": ""}', /"etcd-endpoints" names no member/],
    ['{"etcd-cafile": "/none"}', /"etcd-cafile" is "\/none", which cannot be read/],
    ['{"public-ip": "fd00::1"}', /"public-ip" is "fd00::1", which is not an IPv4 address/],
    ['{"subnet-lease-renew-margin": 1440}', /below 1440/],
  ] as const) {
    writeFileSync(host.file('/etc/cni/overlay.json'), text);
    const { exit, stderr } = await start('/etc/cni/overlay.json');
    t.is(exit, 1, text);
    t.regex(stderr, pattern);
    t.notRegex(stderr, /\bat .*\.ts|node:/);
  }
  t.regex((await start('/none')).stderr, /Cannot read the settings of the overlay in "\/none"/);
  const idle = await start('/none', '--idle-timeout', '5');
  t.is(idle.exit, 2);
  t.regex(idle.stderr, /--overlay needs an agent that keeps running/);

  const wire = await Wire.make(t, { Network: '10.244.0.0/16' });
  const node = await wire.addNode(1);
  for (const [config, pattern] of [
    [undefined, /Backend "udp" is not supported/],
    [{ ...vxlanNetwork, Backend: { Type: 'wireguard' } }, /Backend "wireguard" is not supported/],
    [{ ...vxlanNetwork, EnableIPv4: false }, /without IPv4/],
    [{ ...vxlanNetwork, Network: '10.244.0.0/29' }, /too small/],
    [{ ...vxlanNetwork, SubnetLen: 17 }, /room for four subnets. Set it to 18/],
    [{ ...vxlanNetwork, SubnetMin: '10.244.0.5' }, /"SubnetMin" is 10\.244\.0\.5/],
    [{ ...vxlanNetwork, EnableIPv6: true }, /"IPv6Network" must be an IPv6 network/],
  ] as const) {
    if (config) {
      await node.stopAgent();
      await wire.write('config', config);
      await node.startAgent();
    }
    await until(`${pattern}`, async () => pattern.test(node.log));
  }
  t.is(node.env, undefined);
  await wire.write('config', vxlanNetwork);
  await until('the right one is taken', async () => node.env !== undefined);
});
