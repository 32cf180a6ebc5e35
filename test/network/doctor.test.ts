/** Runs once: no agent takes part. */

import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ava from 'ava';
import { bridged, examine, hostLocal, network, scene, testFix } from '../support/doctor.ts';
import { firewalld } from '../support/firewalld.ts';
import { ipJson, iptablesSave, link, ping, snapshot, sysctl } from '../support/observe.ts';
import { makeOperator } from '../support/operator.ts';
import { outsideOf } from '../support/outside.ts';
import { pluginNames, suites } from '../support/plugin.ts';

/** One after the other: each starts many processes, and plugins that take too long are findings. */
const test = ava.serial;

const pointToPoint = network('p2p', { type: 'ptp', ipMasq: true, ipam: hostLocal('10.6.0.0/24') });
const parented = network('lan', { type: 'macvlan', master: 'wire', ipam: hostLocal('10.7.0.0/24') });

test('a host in order with pods of bridge, ptp and macvlan has no findings', async (t) => {
  const { on } = await scene(t, bridged, pointToPoint, parented);
  for (const name of ['net', 'net', 'p2p', 'lan']) await on.attach(name);
  const { exit, stdout } = await on.tryCni(['doctor']);
  t.is(exit, 0, stdout);
  const { checks, found } = await examine(on);
  t.deepEqual(found, []);
  const lines = stdout.split('\n').filter((line) => line.startsWith('ok '));
  const informed = stdout.split('\n').filter((line) => line.startsWith('info '));
  t.true(lines.length + new Set(informed.map((line) => line.split(':')[0])).size === checks.length, stdout);
  t.regex(stdout, /CHECK of 4 attachments finds them as ADD left them/);
});

test('a host without networks or pods has no findings but for the missing directory', async (t) => {
  const on = await makeOperator(t, []);
  t.deepEqual((await examine(on)).found, []);
  const { stdout } = await on.tryCni(['doctor']);
  t.regex(stdout, /^info +Networks: \/etc\/cni\/net\.d\n +The directory has no network/m);
  t.regex(stdout, /^ok +iptables: "iptables" is the one on nf_tables/m, 'although it has no table yet');
  await on.sh('rmdir /etc/cni/net.d');
  const { found, exit } = await examine(on);
  t.is(exit, 1);
  t.deepEqual(
    found.map(({ rule }) => rule),
    ['configuration'],
  );
  await on.sh(found[0]!.fix);
  t.deepEqual((await examine(on)).found, []);
});

for (const [path, ip] of [
  ['net/ipv4/ip_forward', '192.0.2.2'],
  ['net/ipv4/conf/br0/forwarding', '192.0.2.2'],
  ['net/ipv6/conf/all/forwarding', 'fd00:2::2'],
] as const)
  test(`forwarding that is off: ${path}`, async (t) => {
    const { on, pod } = await scene(t);
    await testFix(t, on, `echo 0 > /proc/sys/${path}`, 'forwarding', {
      subject: new RegExp(`^${path}$`),
      fixable: true,
      isWell: () => ping(pod, ip),
    });
  });

test('a file of sysctl.d that turns forwarding off is named', async (t) => {
  const { on } = await scene(t);
  await on.sh('mount -t tmpfs tmpfs /etc/sysctl.d');
  writeFileSync(on.host.file('/etc/sysctl.d/90-hard.conf'), '# hardened\nnet.ipv4.ip_forward = 0\n');
  await on.sh('echo 0 > /proc/sys/net/ipv4/ip_forward');
  const { found } = await examine(on);
  t.regex(found[0]!.cause, /90-hard\.conf/);
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
  t.deepEqual(
    (await examine(on)).found.map(({ rule }) => rule),
    ['routes'],
  );
  await on.sh('echo 1 > /proc/sys/net/ipv4/conf/br0/rp_filter');
  const fixed = await examine(on, ['--fix']);
  t.deepEqual(
    fixed.fixes.map(({ rule, fixed }) => [rule, fixed]),
    [['rp-filter', true]],
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

for (const [title, fault] of [
  ['iptables', 'iptables -P FORWARD DROP'],
  ['a rule of iptables', 'iptables -A FORWARD -j REJECT'],
  ['iptables-legacy', 'iptables-legacy -P FORWARD DROP'],
  [
    'nftables',
    "nft 'add table inet f; add chain inet f forward { type filter hook forward priority 0; policy drop; }'",
  ],
  [
    'nftables, by a rule for what is new',
    "nft 'add table inet f; add chain inet f forward { type filter hook forward priority 0; policy accept; ct state new drop; }'",
  ],
  ['a rule of iptables for the pods', 'iptables -I FORWARD -i br0 -j DROP'],
  [
    'a rule of nftables for the pods',
    'nft \'add table inet f; add chain inet f forward { type filter hook forward priority 0; }; add rule inet f forward iifname "br0" drop\'',
  ],
  [
    'a rule of iptables for all that leaves the bridge, with one that accepts after it',
    'iptables -P FORWARD DROP; iptables -I FORWARD -i br0 -j ACCEPT; iptables -I FORWARD -i br0 ! -o br0 -j DROP',
  ],
  [
    'a rule of nftables for all that leaves the bridge',
    'nft \'add table inet f; add chain inet f forward { type filter hook forward priority 0; }; add rule inet f forward iifname "br0" oifname != "br0" drop\'',
  ],
] as const)
  test(`a firewall that drops what pods send: ${title}`, async (t) => {
    const { on, pod } = await scene(t);
    await testFix(t, on, fault, 'forward-policy', {
      subject: /^network "net"$/,
      cause: fault.includes('br0') ? /on purpose/ : /has no plugin "firewall"/,
      isWell: () => ping(pod, '192.0.2.2'),
    });
  });

test('a firewall that lets pods through is no finding, whoever has seen to it', async (t) => {
  const { on } = await scene(t);
  await on.sh('iptables -P FORWARD DROP; iptables -A FORWARD -s 10.5.0.0/16 -j ACCEPT');
  t.deepEqual((await examine(on)).found, []);
  await on.sh('iptables -F FORWARD; iptables -A FORWARD -i br+ -j ACCEPT');
  t.deepEqual((await examine(on)).found, []);
  await on.sh(
    'iptables -F FORWARD; iptables -A FORWARD ! -s 10.5.0.0/16 -j ACCEPT; iptables -A FORWARD -s 10.9.0.0/16 -j ACCEPT',
  );
  t.deepEqual(
    (await examine(on)).found.map(({ rule }) => rule),
    ['forward-policy'],
  );
  const guarded = network(
    'guarded',
    { ...pointToPoint.plugins[0]!, ipam: hostLocal('10.8.0.0/24') },
    { type: 'firewall' },
  );
  on.configure(guarded);
  await on.sh('iptables -P FORWARD DROP; iptables -A FORWARD -i br0 -j ACCEPT');
  await on.attach('guarded');
  t.deepEqual((await examine(on)).found, []);
});

test('a rule that drops what pods send is told from one that is missing, in a chain that drops the rest', async (t) => {
  const { on } = await scene(t);
  const found = async () =>
    (await examine(on)).found.map(({ message, cause }) => [
      / and has (.*?):/.exec(message)?.[1],
      /plugin "firewall" leaves such rules alone/.test(cause),
    ]);
  await on.sh('iptables -A FORWARD -s 10.5.0.0/16 -j DROP; iptables -A FORWARD -j REJECT');
  t.deepEqual(await found(), [['a rule for these', true]]);
  await on.sh('iptables -D FORWARD -s 10.5.0.0/16 -j DROP');
  t.deepEqual(await found(), [['no rule that lets these through', false]]);
});

test('rules that drop some packets are no finding: blocklists, and what a return goes before', async (t) => {
  const { on, pod } = await scene(t);
  await on.sh(
    `nft 'add table inet f; add chain inet f forward { type filter hook forward priority 0; };
      add set inet f bad { type ipv4_addr; flags interval; elements = { 203.0.113.0/24 }; };
      add rule inet f forward ip saddr @bad drop; add rule inet f forward ip daddr @bad drop'`,
  );
  t.true(await ping(pod, '192.0.2.2'));
  t.deepEqual((await examine(on)).found, []);
  await on.sh(
    `nft 'add rule inet f forward oifname != { "br0", "br1" } return; add rule inet f forward iifname "br0" drop'`,
  );
  t.true(await ping(pod, '192.0.2.2'));
  t.deepEqual((await examine(on)).found, []);
});

test('what is let in, or between pods alone, is not let through', async (t) => {
  const { on, pod } = await scene(t);
  await on.sh(
    'iptables -P FORWARD DROP; iptables -A INPUT -s 10.5.0.0/16 -j ACCEPT; iptables -A INPUT -i br0 -j ACCEPT; ' +
      'iptables -A FORWARD -i br0 -o br0 -j ACCEPT; iptables -A FORWARD -i br0 -p udp --dport 53 -j ACCEPT',
  );
  const nft = 'add table inet f; add chain inet f in { type filter hook input priority 0; };';
  const rules =
    'add rule inet f in iifname "br0" accept; add rule inet f fw iifname "br0" udp dport 53 accept';
  t.false(await ping(pod, '192.0.2.2'));
  const checks = async () => (await examine(on)).found.map(({ rule }) => rule);
  t.deepEqual(await checks(), ['forward-policy']);
  await on.sh('iptables -I FORWARD -i br0 -j ACCEPT; iptables -I FORWARD -o br0 -j ACCEPT');
  t.true(await ping(pod, '192.0.2.2'));
  t.deepEqual(await checks(), []);
  await on.sh(
    `nft '${nft} add chain inet f fw { type filter hook forward priority 0; policy drop; }; ${rules}'`,
  );
  t.false(await ping(pod, '192.0.2.2'));
  t.deepEqual(await checks(), ['forward-policy']);
});

test('firewalld that drops what pods send, as it does until they are in a zone that it trusts', async (t) => {
  const plugins = [
    { ...bridged.plugins[0]!, ipMasq: false },
    { type: 'firewall', backend: 'firewalld' },
  ];
  const on = await makeOperator(t, [network('net', ...plugins)]);
  const outside = await outsideOf(on.host);
  await outside.run(['ip', 'route', 'add', '10.5.0.0/24', 'via', '192.0.2.1']);
  await firewalld(t, on.host);
  const pod = await on.attach('net');
  t.true(await ping(pod, '192.0.2.2'));
  const checks = async () => (await examine(on)).found.map(({ rule }) => rule);
  t.deepEqual(await checks(), []);
  await on.sh('firewall-cmd --zone=trusted --remove-source=10.5.0.2/32');
  t.false(await ping(pod, '192.0.2.2'));
  const { found } = await examine(on);
  await on.sh(found.find(({ rule }) => rule === 'forward-policy')!.fix);
  t.true(await ping(pod, '192.0.2.2'));
  t.false((await checks()).includes('forward-policy'));
});

test('rules of CNI plugins in the other variant of iptables', async (t) => {
  const { on } = await scene(t);
  const fault =
    'iptables-legacy -t nat -N CNI-00aa; iptables-legacy -t nat -A CNI-00aa -j ACCEPT; ' +
    'iptables-legacy -t nat -A POSTROUTING -s 10.5.0.99 -j CNI-00aa; iptables-legacy -t nat -A POSTROUTING -s 10.9.0.1 -j ACCEPT';
  await testFix(t, on, fault, 'iptables-variant', { subject: /iptables-legacy$/, fixable: true });
  const left = await on.sh('iptables-legacy-save -t nat');
  t.notRegex(left, /CNI-/);
  t.is(left.match(/-s 10\.9\.0\.1\/32/g)?.length, 2, 'rules of others stay');
  t.true(
    (await iptablesSave(on.host)).some((line) => line.includes('CNI-')),
    'rules in use stay',
  );
});

test('rules of the other variant that belong to a running pod are not removed by --fix', async (t) => {
  const { on, pod } = await scene(t);
  const container = (
    JSON.parse((await on.tryCni(['list', '-o', 'json'])).stdout) as {
      attachments: { containerId: string; netns: string }[];
    }
  ).attachments.find(({ netns }) => netns === pod.netns)!.containerId;
  await on.sh(
    `iptables-legacy -t nat -N CNI-00aa; iptables-legacy -t nat -A POSTROUTING -s 10.5.0.2 -j CNI-00aa -m comment --comment ${container}`,
  );
  const { found, fixes } = await examine(on, ['--fix']);
  t.deepEqual(
    [found.map(({ rule, fixable }) => [rule, fixable]), fixes],
    [[['iptables-variant', false]], []],
  );
});

test('rules of "firewall" that name no container are not removed while a pod needs them, nor those of operators', async (t) => {
  const ipam = { ...hostLocal('10.8.0.0/24'), routes: [{ dst: '0.0.0.0/0' }] };
  const guarded = network('guarded', { type: 'ptp', ipam }, { type: 'firewall' });
  const { on, outside } = await scene(t, guarded);
  await outside.run(['ip', 'route', 'add', '10.8.0.0/24', 'via', '192.0.2.1']);
  await on.sh(
    'mkdir /run/legacy; cd /run/legacy; for p in iptables ip6tables; do for e in "" -save -restore; do ' +
      'ln -s "$(command -v $p-legacy$e)" $p$e; done; done; iptables-legacy -P FORWARD DROP',
  );
  const legacy = { PATH: `/run/legacy:${on.env.PATH}` };
  const pod = await on.attach('guarded', legacy);
  t.true(await ping(pod, '192.0.2.2'));
  const rules = () => on.sh('iptables-legacy-save -t filter | grep CNI-');
  const before = await rules();
  t.notRegex(before, /cnitool/);
  const { found, fixes } = await examine(on, ['--fix']);
  // CHECK wants them in the variant of today as well, which is fixed by others.
  t.deepEqual(
    fixes.map(({ rule }) => rule),
    ['attachments'],
  );
  const { fix } = found.find(({ rule }) => rule === 'iptables-variant')!;
  t.regex(fix, new RegExp(`^Delete the pods that they are of, and add them again: ${pod.name}\\. Then: `));
  t.is(await rules(), before);
  t.true(await ping(pod, '192.0.2.2'));

  await on.cni(['del', 'guarded', pod.netns]);
  await on.sh('iptables-legacy -A CNI-ADMIN -d 203.0.113.0/24 -j DROP');
  const operators = (await examine(on, ['--fix'])).found[0]!;
  t.regex(
    operators.fix,
    /^Put your own rules of chain "CNI-ADMIN" in .*iptables-legacy -S CNI-ADMIN\. Then: /,
  );
  t.regex(await rules(), /^-A CNI-ADMIN -d 203\.0\.113\.0\/24 -j DROP$/m);
  await on.sh('iptables-legacy -F CNI-ADMIN');
  t.deepEqual(
    (await examine(on, ['--fix'])).fixes.map(({ fixed }) => fixed),
    [true],
  );
  t.notRegex(await on.sh('iptables-legacy-save'), /CNI-/);
});

test('a table of connections that is nearly full', async (t) => {
  const { on } = await scene(t);
  // The limit is the machine's, so that it is a file of the host that says what it is.
  await on.sh('echo 1000 > /run/max; mount --bind /run/max /proc/sys/net/netfilter/nf_conntrack_max');
  const insert = Array.from(
    { length: 40 },
    (_, i) => `conntrack -I -p udp -s 10.9.0.1 -d 10.9.0.2 --sport ${1000 + i} --dport 53 -t 600`,
  );
  await on.sh(insert.join('\n'));
  await testFix(t, on, 'echo 41 > /run/max', 'conntrack', { subject: /nf_conntrack_max$/ });
});

test('a container that is gone without DEL', async (t) => {
  const { on } = await scene(t);
  const pods = [await on.attach('net'), await on.attach('net')];
  const { exit } = await examine(on);
  t.is(exit, 0);
  await on.sh(`ip netns del ${pods[0]!.name}`);
  const { found } = await examine(on);
  t.deepEqual(
    found.map(({ rule, severity, fixable }) => [rule, severity, fixable]),
    [['records', 'warning', true]],
  );
  await on.sh(found[0]!.fix);
  t.deepEqual((await examine(on)).found, []);
  await on.sh(`ip netns del ${pods[1]!.name}`);
  const fixed = await examine(on, ['--fix']);
  t.deepEqual([fixed.exit, fixed.fixes.map(({ fixed }) => fixed)], [0, [true]]);
  t.deepEqual((await on.sh('ls /var/lib/cni/networks/net')).match(/10\.5\.0\.\d+/g), ['10.5.0.2']);
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

test('pods whose packets are larger than those of others on the bridge, or than an uplink takes', async (t) => {
  const { on, pod } = await scene(t);
  const second = await on.attach('net');
  await on.sh('ip route add default via 192.0.2.2');
  t.deepEqual((await examine(on)).found, []);
  await on.sh('ip link set dev wire mtu 1400');
  const narrow = (await examine(on)).found;
  t.deepEqual(
    narrow.map(({ rule, subject, severity }) => [rule, subject, severity]),
    [['mtu', 'wire', 'warning']],
  );
  await on.sh(narrow[0]!.fix);
  t.deepEqual((await examine(on)).found, []);
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

test('plugins that are missing, do not run, or are of another build than the runtime has', async (t) => {
  const { on } = await scene(t);
  mkdirSync(on.host.file('/run/bin'));
  for (const name of pluginNames(suites.ours).filter((one) => one !== 'portmap'))
    symlinkSync(join(suites.ours, name), on.host.file(`/run/bin/${name}`));
  const env = { CNI_PATH: '/run/bin' };
  const missing = await examine(on, [], env);
  t.true(
    missing.found.some(({ rule, subject }) => rule === 'plugins' && subject === 'portmap'),
    JSON.stringify(missing.found),
  );
  writeFileSync(on.host.file('/run/bin/portmap'), '#!/bin/sh\necho no\n', { mode: 0o755 });
  const broken = await examine(on, [], env);
  t.true(
    broken.found.some(
      ({ rule, subject, message }) =>
        rule === 'plugins' && subject === '/run/bin/portmap' && /VERSION/.test(message),
    ),
  );
  await on.sh(broken.found.find(({ rule }) => rule === 'plugins')!.fix, 300_000);
  t.deepEqual((await examine(on, [], env)).found, []);
  await on.sh('mkdir /run/other; mkdir -p /etc/containerd; mount -t tmpfs tmpfs /etc/containerd');
  writeFileSync(on.host.file('/run/other/bridge'), '#!/bin/sh\necho "CNI bridge plugin v0.0.1" >&2\n', {
    mode: 0o755,
  });
  writeFileSync(on.host.file('/etc/containerd/config.toml'), '    bin_dir = "/run/other"\n');
  const drifted = await examine(on, [], env);
  t.deepEqual(
    drifted.found.map(({ rule, subject }) => [rule, subject]),
    [['plugins', '/run/other']],
  );
  t.is(drifted.found[0]!.fix, 'cni install --bin-dir /run/other');
});

test('an agent that has left its socket', async (t) => {
  const { on } = await scene(t);
  await on.sh('mkdir -p /run/cni');
  const leave = `require('net').createServer().listen('/run/cni/agent.sock', () => process.kill(process.pid, 'SIGKILL'))`;
  await on.host.tryRun([process.execPath, '-e', leave]);
  const { found } = await examine(on);
  t.deepEqual(
    found.map(({ rule, severity }) => [rule, severity]),
    [['agent', 'warning']],
  );
});

test('a configuration that cannot be used, and a plugin that its kernel or host lacks something for', async (t) => {
  const { on } = await scene(t);
  writeFileSync(on.host.file('/etc/cni/net.d/90-torn.conflist'), '{"name":');
  on.configure({ ...parented, name: 'nowhere', plugins: [{ ...parented.plugins[0]!, master: 'none0' }] });
  const { found } = await examine(on);
  t.deepEqual(
    [...new Set(found.map(({ rule }) => rule))],
    ['configuration', 'kernel'],
    JSON.stringify(found),
  );
  t.true(found.some(({ subject, rule }) => rule === 'configuration' && subject.includes('90-torn')));
  t.true(found.some(({ message, rule }) => rule === 'kernel' && message.includes('none0')));
});

test('doctor changes nothing without --fix', async (t) => {
  const { on } = await scene(t);
  await on.sh('echo 0 > /proc/sys/net/ipv4/ip_forward; iptables -P FORWARD DROP');
  const look = async () => ({
    ...(await snapshot(on.host)),
    legacy: await on.sh('cat /proc/net/ip_tables_names'),
    forwards: await sysctl(on.host, 'net/ipv4/ip_forward'),
  });
  const before = await look();
  t.is((await on.tryCni(['doctor'])).exit, 1);
  t.deepEqual(await look(), before);
});
