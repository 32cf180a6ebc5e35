/**
 * `cni doctor`: firewalls that do not let through what pods send.
 * Runs once: it starts agents itself.
 */

import ava from 'ava';
import { bridged, examine, hostLocal, network, scene, testFix } from '../support/doctor.ts';
import { firewalld } from '../support/firewalld.ts';
import { ping } from '../support/observe.ts';
import { makeOperator } from '../support/operator.ts';
import { outsideOf } from '../support/outside.ts';

/** One after the other: each starts many processes, and plugins that take too long are findings. */
const test = ava.serial;

const pointToPoint = network('p2p', { type: 'ptp', ipMasq: true, ipam: hostLocal('10.6.0.0/24') });

/** Faults that keep what pods send from being forwarded. */
const droppingFirewalls = [
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
] as const;

test('a firewall that drops what pods send', async (t) => {
  const { on, pod } = await scene(t);
  for (const [title, fault] of droppingFirewalls) {
    t.log(title);
    await testFix(t, on, fault, 'forward-policy', {
      subject: /^network "net"$/,
      cause: fault.includes('br0') ? /on purpose/ : /has no plugin "firewall"/,
      isWell: () => ping(pod, '192.0.2.2'),
    });
    // Rules that accept packets, added to fix one fault, would hide the next.
    await on.sh(
      'for p in iptables iptables-legacy; do $p -P FORWARD ACCEPT; $p -F FORWARD; done; ' +
        'nft "add table inet f; delete table inet f"',
    );
  }
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
