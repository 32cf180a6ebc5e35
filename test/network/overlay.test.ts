/**
 * The overlay that the agent keeps between nodes, with real etcd, on nodes joined by a switch.
 * Runs once: it starts agents itself.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { attach, sample } from '../support/chain.ts';
import { converse, serveLines } from '../support/connection.ts';
import { binDir } from '../support/host.ts';
import { link, ping, reach, serve, until } from '../support/observe.ts';
import { Node, settledTunnel, untilConnected, vxlanNetwork, Wire } from '../support/overlay.ts';

const network = sample('40-flannel.conflist');

/** A pod on each node. */
const podsOf = (nodes: readonly Node[]) => Promise.all(nodes.map(({ host }) => attach(host, network)));

test('pods of three nodes talk over VXLAN, set up as flanneld does it', async (t) => {
  const wire = await Wire.make(t);
  const nodes = await wire.addNodes(3);
  const keys = await wire.subnets();
  t.is(Object.keys(keys).length, 3);
  for (const [i, node] of nodes.entries()) {
    const device = (await link(node.host, 'flannel.1'))!;
    const { id, port, local, link: parent, learning } = device.linkinfo!.info_data!;
    t.deepEqual(
      { id, port, local, parent, learning },
      {
        ...{ id: 1, port: 8472, local: `192.0.2.${i + 1}`, parent: 'eth0', learning: false },
      },
    );
    t.is(device.mtu, 1450);
    t.true(device.flags.includes('UP'));
    t.deepEqual(await node.tunnelAddresses(), [node.subnet.replace('/24', '/32')]);
    t.deepEqual(node.env, {
      FLANNEL_NETWORK: '10.244.0.0/16',
      FLANNEL_SUBNET: node.subnet.replace('.0/', '.1/'),
      FLANNEL_MTU: '1450',
      FLANNEL_IPMASQ: 'true',
    });
    t.is(
      keys[node.key],
      `{"PublicIP":"192.0.2.${i + 1}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"${device.address}"}}`,
    );
  }
  const [a, b, c] = nodes as [Node, Node, Node];
  const macOf = async ({ host }: Node) => (await link(host, 'flannel.1'))!.address;
  const [macB, macC] = [await macOf(b), await macOf(c)];
  t.deepEqual(await a.forwarding(), [`${macB} 192.0.2.2`, `${macC} 192.0.2.3`].sort());
  const first = (subnet: string) => subnet.replace('/24', '');
  t.deepEqual(await a.neighbours(), [`${first(b.subnet)} ${macB}`, `${first(c.subnet)} ${macC}`].sort());
  const shown = await a.host.run(['ip', 'route', 'show', b.subnet]);
  t.is(shown.trim(), `${b.subnet} via ${first(b.subnet)} dev flannel.1 onlink`);

  const pods = await podsOf(nodes);
  for (const [i, pod] of pods.entries()) await serve(t, pod.pod, 'tcp', 80, `pod ${i}`);
  for (const from of pods)
    for (const [i, to] of pods.entries()) {
      if (from === to) continue;
      t.true(await ping(from.pod, to.ip));
      t.deepEqual(await reach(from.pod, 'tcp', to.ip, 80).then((one) => [one.label, one.peer]), [
        `pod ${i}`,
        from.ip,
      ]);
    }
  t.true(await ping(pods[0]!.pod, pods[1]!.ip, '-M', 'do', '-s', '1422'), 'what fits, arrives whole');
  t.is((await link(pods[0]!.pod, 'eth0'))!.mtu, 1450);
});

test('pods of three nodes talk by routes alone', async (t) => {
  const wire = await Wire.make(t, { ...vxlanNetwork, Backend: { Type: 'host-gw' } });
  const nodes = await wire.addNodes(3);
  const [a, b] = nodes as [Node, Node];
  t.is((await wire.subnets())[b.key], '{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"host-gw"}');
  t.is((await a.host.run(['ip', 'route', 'show', b.subnet])).trim(), `${b.subnet} via 192.0.2.2 dev eth0`);
  t.is(a.env!.FLANNEL_MTU, '1500');
  t.is(await link(a.host, 'flannel.1'), undefined);
  const pods = await podsOf(nodes);
  await serve(t, pods[2]!.pod, 'tcp', 80, 'third');
  for (const from of pods.slice(0, 2)) {
    t.true(await ping(from.pod, pods[2]!.ip, '-M', 'do', '-s', '1472'));
    t.deepEqual(await reach(from.pod, 'tcp', pods[2]!.ip, 80).then((one) => [one.label, one.peer]), [
      'third',
      from.ip,
    ]);
  }
});

test('a node joins, and one that is gone leaves when its lease ends', async (t) => {
  const wire = await Wire.make(t);
  const [a, b] = (await wire.addNodes(2)) as [Node, Node];
  const late = await wire.addNode(3);
  await untilConnected([a, b, late]);
  const [podA, podLate] = await podsOf([a, late]);
  t.true(await ping(podA!.pod, podLate!.ip));

  await b.stopAgent('SIGKILL');
  const [podB] = await podsOf([b]);
  t.true(await ping(podA!.pod, podB!.ip), 'without its agent, a node is reached all the same');
  const [mac] = (await a.forwarding()).filter((one) => one.endsWith(' 192.0.2.2'));
  t.truthy(mac);
  await wire.endLease(b.key);
  for (const node of [a, late]) {
    await until('its entries are removed', async () => {
      const all = [...(await node.forwarding()), ...(await node.neighbours()), ...(await node.routedTo())];
      return !all.some((one) => /192\.0\.2\.2$/.test(one) || one.startsWith(b.subnet.replace('/24', '')));
    });
    t.is((await node.routedTo()).length, 1, 'the others stay');
    t.is((await node.forwarding()).length, 1);
    t.is((await node.neighbours()).length, 1);
  }
  t.true(await ping(podA!.pod, podLate!.ip));
  t.regex(a.log, new RegExp(`${b.key} of 192.0.2.2 has left`));

  const former = b.subnet;
  await b.startAgent();
  await untilConnected([a, b, late]);
  t.is(b.subnet, former, 'it is given the subnet of its file again, as nobody else has it');
  t.true(await ping(podA!.pod, podB!.ip));
});

test('a new start of the agent keeps subnet, interface and connections', async (t) => {
  const wire = await Wire.make(t);
  const nodes = (await wire.addNodes(2)) as [Node, Node];
  const [podA, podB] = await podsOf(nodes);
  await serveLines(t, podB!.pod, 80);
  const say = await converse(t, podA!.pod, podB!.ip, 80);
  t.regex(await say('before'), /before/);
  const [a] = nodes;
  const before = [await settledTunnel(a.host), a.env, await wire.subnets()];
  const stale = ['10.244.50.0/24', 'via', '10.244.50.0', 'dev', 'flannel.1', 'onlink'];
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    const lease = await wire.leaseOf(a.key);
    await a.stopAgent(signal);
    t.regex(await say('meanwhile'), /meanwhile/);
    // What a node that left meanwhile would have left behind.
    await a.host.run(['ip', 'route', 'add', ...stale]);
    const mac = '02:00:00:00:00:99';
    await a.host.run(['ip', 'neighbour', 'add', '10.244.50.0', 'lladdr', mac, 'dev', 'flannel.1']);
    await a.host.run([
      'bridge',
      'fdb',
      'append',
      mac,
      'dev',
      'flannel.1',
      'dst',
      '192.0.2.99',
      'self',
      'permanent',
    ]);
    await a.startAgent();
    await until('it has renewed its lease', async () => (await wire.leaseOf(a.key)) !== lease);
    await until('what was left behind is removed', async () => {
      const all = [...(await a.forwarding()), ...(await a.neighbours()), ...(await a.routedTo())];
      return !all.some((one) => /192\.0\.2\.99|10\.244\.50\./.test(one));
    });
    t.regex(await say('after'), /after/);
    t.deepEqual([await settledTunnel(a.host), a.env, await wire.subnets()], before);
  }
});

test('etcd stops and comes back, and packets flow on', async (t) => {
  const wire = await Wire.make(t);
  const nodes = (await wire.addNodes(2)) as [Node, Node];
  const [podA, podB] = await podsOf(nodes);
  await serveLines(t, podB!.pod, 80);
  const say = await converse(t, podA!.pod, podB!.ip, 80);
  const keys = await wire.subnets();
  await wire.etcd.kill(0);
  await until('the agents notice', async () => nodes.every(({ log }) => /etcd is asked again/.test(log)));
  const status = await nodes[0].host.run([join(binDir, 'cni'), 'agent', 'status']);
  t.regex(status, /Overlay: 10\.244\.\d+\.0\/24, by vxlan to 1 other node\. Problem: .*etcd/);
  t.regex(await say('without etcd'), /without etcd/);
  await nodes[0].host.run(['ip', 'route', 'delete', nodes[1].subnet]);
  await until('the route is brought back', async () => (await nodes[0].routedTo()).includes(nodes[1].subnet));

  await wire.etcd.startMember(0);
  await until('the agents are back', async () => nodes.every(({ log }) => /in touch.*in touch/s.test(log)));
  t.deepEqual(await wire.subnets(), keys);
  const late = await wire.addNode(3);
  await untilConnected([...nodes, late]);
  t.regex(await say('with etcd'), /with etcd/);
  t.is(
    (await nodes[0].host.run([join(binDir, 'cni'), 'agent', 'status'])).split('\n')[2],
    `Overlay: ${nodes[0].subnet}, by vxlan to 2 other nodes.`,
  );
});

test('a node that was cut off from etcd for long catches up', async (t) => {
  const wire = await Wire.make(t);
  const node = await wire.addNode(1);
  await until('it has a subnet', async () => node.env !== undefined);
  const former = node.subnet;
  // No answers come back, and no errors either.
  await node.host.run(['iptables', '-A', 'INPUT', '-s', '192.0.2.100', '-j', 'DROP']);
  await until('it notices', async () => /etcd is asked again/.test(node.log));
  await wire.write(
    'subnets/10.244.9.0-24',
    '{"PublicIP":"192.0.2.9","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"5e:00:00:00:00:09"}}',
  );
  await node.host.run(['iptables', '-D', 'INPUT', '-s', '192.0.2.100', '-j', 'DROP']);
  await until('it has caught up', async () => (await node.routedTo()).includes('10.244.9.0/24'));
  t.is(node.subnet, former);
});

test('the uplink is deleted and made anew, and pods talk again without any change in etcd', async (t) => {
  const wire = await Wire.make(t);
  const nodes = (await wire.addNodes(2)) as [Node, Node];
  const [podA, podB] = await podsOf(nodes);
  const [a] = nodes;
  const before = [await wire.subnets(), await wire.leaseOf(a.key)];
  const former = await link(a.host, 'eth0');
  // At once, so that no connection to etcd breaks.
  await wire.replug(a.host, 1);
  t.not((await link(a.host, 'eth0'))!.ifindex, former!.ifindex);
  await until('pods talk again', () => ping(podA!.pod, podB!.ip));
  t.true(await ping(podB!.pod, podA!.ip));
  t.deepEqual([await wire.subnets(), await wire.leaseOf(a.key)], before);
  t.regex(a.log, /Interface "eth0", by which this node reaches the others, is gone/);
  await until('it has been in touch twice', async () => /in touch.*in touch/s.test(a.log));
});

test('a node whose uplink is away stays with it, though another interface has a default route', async (t) => {
  const wire = await Wire.make(t);
  const nodes = (await wire.addNodes(2)) as [Node, Node];
  const [podA, podB] = await podsOf(nodes);
  const [a] = nodes;
  await a.host.run(['ip', 'link', 'add', 'spare', 'up', 'type', 'veth', 'peer', 'name', 'peer']);
  await a.host.run(['ip', 'link', 'set', 'peer', 'up']);
  await a.host.run(['ip', 'address', 'add', '198.51.100.1/24', 'dev', 'spare']);
  await a.host.run(['ip', 'route', 'add', 'default', 'via', '198.51.100.2', 'metric', '500']);
  const before = [await wire.subnets(), await wire.leaseOf(a.key)];
  await wire.replug(a.host, 1, async () => {
    await until('it notices', async () => /"eth0".* is gone.* The agent keeps looking for it/.test(a.log));
    // Longer than it takes to find another one.
    await sleep(2500);
  });
  await until('pods talk again', () => ping(podA!.pod, podB!.ip));
  t.deepEqual([await wire.subnets(), await wire.leaseOf(a.key)], before);
});

/** The properties of a VXLAN interface that depend on the interface to the other nodes. */
async function tunnelOf({ host }: Node) {
  const { linkinfo, mtu, address } = (await link(host, 'flannel.1'))!;
  return { local: linkinfo?.info_data?.local, mtu, mac: address };
}

test('the uplink gets another address, and another MTU, and pods of all nodes talk on', async (t) => {
  const wire = await Wire.make(t);
  const nodes = (await wire.addNodes(2)) as [Node, Node];
  const [podA, podB] = await podsOf(nodes);
  const [a, b] = nodes;
  const { mac } = await tunnelOf(a);
  const key = a.key;
  // Like a DHCP client that gets another lease.
  await a.host.run(['ip', '-batch', '-'], {
    stdin: 'address del 192.0.2.1/24 dev eth0\naddress add 192.0.2.11/24 dev eth0\n',
  });
  await until('etcd has the new address', async () => /"192\.0\.2\.11"/.test((await wire.subnets())[key]!));
  await until('the other node has it', async () => (await b.forwarding()).includes(`${mac} 192.0.2.11`));
  t.is((await b.forwarding()).length, 1);
  await until('pods talk again', () => ping(podA!.pod, podB!.ip));
  t.true(await ping(podB!.pod, podA!.ip));
  t.deepEqual(await tunnelOf(a), { local: '192.0.2.11', mtu: 1450, mac });
  t.is(a.key, key, 'the node keeps its subnet');
  t.is(Object.keys(await wire.subnets()).length, 2);
  // It may look between the one address and the other.
  t.regex(
    a.log,
    /"eth0".* has (changed: IPv4 address 192\.0\.2\.1 before, 192\.0\.2\.11 now|lost its IPv4 address)/,
  );

  await a.host.run(['ip', 'link', 'set', 'eth0', 'mtu', '1400']);
  await until('new pods get what fits', async () => a.env?.FLANNEL_MTU === '1350');
  t.deepEqual(await tunnelOf(a), { local: '192.0.2.11', mtu: 1350, mac });
  t.true(await ping(podA!.pod, podB!.ip));
  t.regex(a.log, /has changed: MTU \(running pods keep theirs\) 1500 before, 1400 now/);
  await until('it is in touch again', async () => (a.log.match(/in touch with etcd/g) ?? []).length >= 3);
});

test('an address that the settings name is waited for', async (t) => {
  const wire = await Wire.make(t);
  const [a] = (await wire.addNodes(1, { iface: '192.0.2.1' })) as [Node];
  const before = [await wire.subnets(), await tunnelOf(a)];
  await a.host.run(['ip', 'address', 'del', '192.0.2.1/24', 'dev', 'eth0']);
  await a.host.run(['ip', 'address', 'add', '192.0.2.11/24', 'dev', 'eth0']);
  await until('it notices', async () =>
    /"eth0".* has lost its IPv4 address.* The agent keeps looking for it/.test(a.log),
  );
  await a.host.run(['ip', 'address', 'add', '192.0.2.1/24', 'dev', 'eth0']);
  await until('it is in touch again', async () => /in touch.*in touch/s.test(a.log));
  t.deepEqual([await wire.subnets(), await tunnelOf(a)], before);
});

test('a check that has to wait keeps the next ones from beginning', async (t) => {
  const wire = await Wire.make(t);
  const node = new Node(t, await wire.addHost(1));
  const { host } = node;
  // It notes how often it is asked for one rule at once, and waits as long as there is /run/hang.
  const script = `#!/bin/sh
    input=$(cat)
    echo "$input" | grep -c -- '-C POSTROUTING' >>/run/asked
    while [ -e /run/hang ]; do sleep 0.1; done
    echo "$input" | /usr/sbin/iptables-restore "$@"\n`;
  await host.run(['mount', '-t', 'tmpfs', 'tmpfs', '/usr/local/sbin']);
  writeFileSync(host.file('/usr/local/sbin/iptables-restore'), script, { mode: 0o755 });
  await node.startAgent({ 'etcd-endpoints': wire.etcd.hosts, 'ip-masq': true });
  // By then its rules are there, so that it is a check that hangs.
  await until('it is in touch', async () => node.log.includes('in touch'));
  const asked = () => readFileSync(host.file('/run/asked'), 'utf8').trim().split('\n');
  writeFileSync(host.file('/run/hang'), '');
  const before = asked().length;
  await until('a check waits', async () => asked().length > before);
  // More than two intervals of ten seconds between checks.
  await sleep(24_000);
  await host.run(['rm', '/run/hang']);
  const { length } = asked();
  await until('there is another check', async () => asked().length > length);
  const counts = new Set(asked());
  counts.delete('0');
  t.deepEqual([...counts], ['1'], 'each check by itself');
});
