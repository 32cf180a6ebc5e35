/**
 * `cni doctor`: settings of the kernel, routes and the table of connections.
 * Runs once: it starts agents itself.
 */

import { writeFileSync } from 'node:fs';
import ava from 'ava';
import { examine, scene, testFix } from '../support/doctor.ts';
import { ping, sysctl } from '../support/observe.ts';

/** One after the other: each starts many processes, and plugins that take too long are findings. */
const test = ava.serial;

test('forwarding that is off', async (t) => {
  const { on, pod } = await scene(t);
  for (const [path, ip] of [
    ['net/ipv4/ip_forward', '192.0.2.2'],
    ['net/ipv4/conf/br0/forwarding', '192.0.2.2'],
    ['net/ipv6/conf/all/forwarding', 'fd00:2::2'],
  ] as const)
    await testFix(t, on, `echo 0 > /proc/sys/${path}`, 'forwarding', {
      subject: new RegExp(`^${path}$`),
      fixable: true,
      isWell: () => ping(pod, ip),
    });
});

test('a file of sysctl.d that turns forwarding off is named', async (t) => {
  const { on } = await scene(t);
  await on.sh('mount -t tmpfs tmpfs /etc/sysctl.d');
  writeFileSync(on.host.file('/etc/sysctl.d/90-hard.conf'), '# hardened\n-net.ipv4.ip_forward = 0\n');
  await on.sh('echo 0 > /proc/sys/net/ipv4/ip_forward');
  const { found } = await examine(on);
  t.regex(found[0]!.cause, /90-hard\.conf/);
  writeFileSync(on.host.file('/etc/sysctl.d/95-router.conf'), 'net.ipv4.ip_forward = 1\n');
  t.notRegex((await examine(on)).found[0]!.cause, /sysctl\.d/, 'a later file turns it on again');
});

test('a route to a pod that leads elsewhere, and a strict filter that drops what it sends', async (t) => {
  const { on, pod } = await scene(t);
  await on.sh('echo 1 > /proc/sys/net/ipv4/conf/br0/rp_filter');
  t.deepEqual((await examine(on)).found, []);
  await on.sh('ip route add 10.5.0.2/32 dev wire');
  const { found } = await examine(on);
  t.deepEqual(found.map(({ rule }) => rule).sort(), ['routes', 'rp-filter']);
  const filtered = found.find(({ rule }) => rule === 'rp-filter')!;
  t.is(filtered.subject, 'net/ipv4/conf/br0/rp_filter');
  await on.sh(filtered.fix);
  t.is(await sysctl(on.host, filtered.subject), '2');
  await on.sh('echo 1 > /proc/sys/net/ipv4/conf/br0/rp_filter');
  const fixed = await examine(on, ['--fix']);
  t.deepEqual(
    fixed.fixes.map(({ rule, fixed }) => [rule, fixed]),
    [['rp-filter', true]],
  );
  t.deepEqual(
    fixed.found.map(({ rule }) => rule),
    ['routes'],
  );
  await on.sh(found.find(({ rule }) => rule === 'routes')!.fix);
  t.deepEqual((await examine(on)).found, []);
  t.true(await ping(pod, '10.5.0.1'));
});

for (const [mode, rules] of [
  ['iptables', 'iptables -t nat -N KUBE-SERVICES'],
  ['nftables', 'nft add table ip kube-proxy; nft add chain ip kube-proxy services'],
] as const)
  test(`bridges whose packets the rules of kube-proxy do not see, in its ${mode} mode`, async (t) => {
    const { on } = await scene(t);
    const path = '/proc/sys/net/bridge/bridge-nf-call-iptables';
    await on.sh(`${rules}; echo 1 > ${path}`);
    await testFix(t, on, `echo 0 > ${path}`, 'bridge-nf-call', {
      subject: /bridge-nf-call-iptables$/,
      fixable: true,
    });
    t.is(await sysctl(on.host, 'net/bridge/bridge-nf-call-iptables'), '1');
  });

test('pods that no Service leads back to themselves, for want of hairpin mode', async (t) => {
  const { on } = await scene(t);
  const path = '/proc/sys/net/bridge/bridge-nf-call-iptables';
  const hint = /No pod of network "net" reaches itself by a Service/;
  const said = async () => (await on.tryCni(['doctor'])).stdout;
  await on.sh(`echo 1 > ${path}`);
  t.notRegex(await said(), hint, 'nothing has Services');
  await on.sh('iptables -t nat -N KUBE-SERVICES');
  t.regex(await said(), hint);
  const port = JSON.parse(await on.sh('ip -j link show master br0')) as [{ ifname: string }];
  await on.sh(`ip link set ${port[0].ifname} type bridge_slave hairpin on`);
  t.notRegex(await said(), hint);
});

test('a table of connections that is nearly full', async (t) => {
  const { on } = await scene(t);
  // The limit is the machine's, so a file of the host is put in its place.
  await on.sh('echo 1000 > /run/max; mount --bind /run/max /proc/sys/net/netfilter/nf_conntrack_max');
  const insert = Array.from(
    { length: 40 },
    (_, i) => `conntrack -I -p udp -s 10.9.0.1 -d 10.9.0.2 --sport ${1000 + i} --dport 53 -t 600`,
  );
  await on.sh(insert.join('\n'));
  await testFix(t, on, 'echo 41 > /run/max', 'conntrack', { subject: /nf_conntrack_max$/ });
});
