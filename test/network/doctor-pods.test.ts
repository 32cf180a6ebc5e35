/**
 * `cni doctor`: what is amiss with pods, and what is kept of them.
 * Runs once: it starts agents itself.
 */

import ava from 'ava';
import type { Conflist } from '../support/chain.ts';
import { examine, hostLocal, network, scene, testFix } from '../support/doctor.ts';
import { ipJson, iptablesSave, link, ping } from '../support/observe.ts';

/** One after the other: each starts many processes, and plugins that take too long are findings. */
const test = ava.serial;

test('a container that is gone without DEL', async (t) => {
  const { on } = await scene(t);
  const pods = [await on.attach('net'), await on.attach('net')];
  await on.sh(`ip netns del ${pods[0]!.name}`);
  const { found } = await examine(on);
  t.deepEqual(
    found.map(({ rule, severity, fixable }) => [rule, severity, fixable]),
    [['records', 'warning', true]],
  );
  await on.sh(found[0]!.fix);
  await on.sh(`ip netns del ${pods[1]!.name}`);
  const fixed = await examine(on, ['--fix']);
  t.deepEqual([fixed.exit, fixed.fixes.map(({ fixed }) => fixed)], [0, [true]], 'the other one only');
  t.deepEqual((await on.sh('ls /var/lib/cni/networks/net')).match(/10\.5\.0\.\d+/g), ['10.5.0.2']);
});

test('what containers have left on a network with "disableGC" is not collected', async (t) => {
  const net = network('shared', { type: 'ptp', ipam: hostLocal('10.8.0.0/30') });
  const { on } = await scene(t, { ...net, disableGC: true } as Conflist);
  const pod = await on.attach('shared');
  await on.sh(`ip netns del ${pod.name}`);
  const { found, fixes } = await examine(on, ['--fix']);
  t.deepEqual([found.map(({ rule }) => rule).sort(), fixes], [['ranges', 'records'], []]);
  for (const { fix } of found)
    t.regex(fix, /no other runtime .* take "disableGC" out of .* run "cni gc shared"$/);
  t.regex(await on.sh('ls /var/lib/cni/networks/shared'), /10\.8\.0\.2/);
  // How the network was configured when the pod was attached does not count.
  await on.sh(`sed -i 's/"disableGC": *true/"disableGC": false/' /etc/cni/net.d/*`);
  const now = await examine(on, ['--fix']);
  t.deepEqual([now.fixes.map(({ fixed }) => fixed), now.exit], [[true], 0]);
  t.is((await on.sh('ls /var/lib/cni/networks/shared')).match(/10\.8\.0\.2/), null);
});

test('a reservation that nobody has a record of is left to gc', async (t) => {
  const { on } = await scene(t);
  await on.sh("printf 'lost\\r\\neth0' > /var/lib/cni/networks/net/10.5.0.77");
  const { found, fixes } = await examine(on, ['--fix']);
  t.deepEqual([found.map(({ rule }) => rule), fixes], [['records'], []]);
  await on.sh(found[0]!.fix);
  t.deepEqual((await examine(on)).found, []);
});

test('a record that is torn', async (t) => {
  const { on } = await scene(t);
  await testFix(t, on, 'printf \'{"kind":\' > /var/lib/cni/results/net-torn-eth0', 'records', {
    subject: /net-torn-eth0$/,
  });
});

test('a range that is given away', async (t) => {
  const { on } = await scene(t, network('tiny', { type: 'ptp', ipam: hostLocal('10.8.0.0/30') }));
  const pod = await on.attach('tiny');
  const { found } = await examine(on);
  t.deepEqual(
    found.map(({ rule }) => rule),
    ['ranges'],
  );
  t.regex(found[0]!.fix, /larger/);
  await pod.remove();
  const lost = (await examine(on)).found.find(({ rule }) => rule === 'ranges')!;
  await on.sh(lost.fix);
  t.deepEqual((await examine(on)).found, []);
});

test('an attachment that CHECK finds fault with', async (t) => {
  const { on, pod } = await scene(t);
  await testFix(t, on, `nsenter --net=${pod.netns} ip addr flush dev eth0`, 'attachments', {
    subject: / on network "net"$/,
    isWell: () => ping(pod, '10.5.0.1'),
  });
});

test('an attachment that is made anew gets the interface name, the arguments and the ports that it had', async (t) => {
  const { on } = await scene(t);
  const ports = [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }];
  const pod = await on.attach('net', {
    CNI_IFNAME: 'net1',
    CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web',
    CAP_ARGS: JSON.stringify({ portMappings: ports }),
  });
  await testFix(t, on, `nsenter --net=${pod.netns} ip addr flush dev net1`, 'attachments', {
    subject: /^default\/web on network "net"$/,
    isWell: async () =>
      (await ping(pod, '10.5.0.1')) &&
      (await iptablesSave(on.host)).some((rule) => rule.includes('--dport 8080 -j DNAT')),
  });
});

test('ends of a veth pair with different MTUs', async (t) => {
  const { on, pod } = await scene(t);
  const host = (await ipJson<{ ifname: string; master?: string }>(on.host, 'link')).find(
    ({ master }) => master === 'br0',
  )!;
  await testFix(t, on, `ip link set dev ${host.ifname} mtu 1300`, 'mtu', {
    subject: / eth0$/,
    isWell: () => ping(pod, '10.5.0.1', '-M', 'do', '-s', '1472'),
  });
});

test('an uplink for IPv6 alone may be narrow for pods without addresses of IPv6', async (t) => {
  const ipam = hostLocal('10.9.0.0/24');
  const { on } = await scene(
    t,
    network('v4', { type: 'bridge', bridge: 'br4', isDefaultGateway: true, ipam }),
  );
  await on.attach('v4');
  await on.sh(
    'ip link add six up mtu 1300 type veth peer name six-peer; ip link set dev six-peer up; ip -6 route add default dev six',
  );
  const narrow = async () =>
    (await examine(on)).found.filter(({ rule }) => rule === 'mtu').map(({ subject }) => subject);
  t.deepEqual(await narrow(), []);
  await on.sh('ip route add default via 192.0.2.2; ip link set dev wire mtu 1400');
  t.deepEqual(await narrow(), ['wire']);
});

test('pods whose packets are larger than those of others on the bridge, or than an uplink takes', async (t) => {
  const { on, pod } = await scene(t);
  const second = await on.attach('net');
  await on.sh('ip route add default via 192.0.2.2');
  await on.sh('ip link set dev wire mtu 1400');
  const narrow = (await examine(on)).found;
  t.deepEqual(
    narrow.map(({ rule, subject, severity }) => [rule, subject, severity]),
    [['mtu', 'wire', 'warning']],
  );
  await on.sh(narrow[0]!.fix);
  for (const one of [pod, second]) t.is((await link(one, 'eth0'))!.mtu, 1400);
  const [veth] = (await ipJson<{ ifname: string; master?: string }>(on.host, 'link')).filter(
    ({ master }) => master === 'br0',
  );
  await on.sh(
    `ip link set dev ${veth!.ifname} mtu 1280; nsenter --net=${pod.netns} ip link set dev eth0 mtu 1280`,
  );
  const unequal = (await examine(on)).found;
  t.deepEqual(
    unequal.map(({ rule, subject }) => [rule, subject]),
    [['mtu', 'br0']],
  );
  await on.sh(unequal[0]!.fix);
  t.deepEqual((await examine(on)).found, []);
});
