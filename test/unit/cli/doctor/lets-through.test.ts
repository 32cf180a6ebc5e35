import test from 'ava';
import { iptablesChains, nftChains } from '../../../../cli/doctor/firewall-rules.ts';
import { verdictOn } from '../../../../cli/doctor/lets-through.ts';

const pod = { ip: '10.5.0.2', link: 'br0' };

const byIptables = (lines: string[], sender = pod) => verdictOn(iptablesChains(lines), 'FORWARD', sender);
const byNft = (lines: string[], sender = pod) =>
  verdictOn(nftChains(lines, sender.ip.includes(':') ? 6 : 4), 'f', sender);

/** A table whose base chain has these rules. */
const byRules = (...lines: string[]) =>
  lines[0]!.startsWith('-A')
    ? byIptables(lines)
    : byNft(['table inet t {', '\tchain f {', 'type filter hook forward;', ...lines, '\t}', '}']);

for (const line of [
  '-A FORWARD -s 10.5.0.2/32 -j ACCEPT',
  '-A FORWARD -s 10.5.0.0/16 -m comment --comment "x" -j ACCEPT',
  '-A FORWARD -i br0 -j ACCEPT',
  '-A FORWARD -i br+ ! -o br0 -j ACCEPT',
  'ip saddr 10.5.0.2 accept',
  'ip saddr { 10.4.0.0/16, 10.5.0.0/24 } counter packets 0 bytes 0 accept',
  'ip saddr 10.5.0.1-10.5.0.9 accept',
  'ip saddr @pods accept',
  'ip saddr != @guests accept',
  'iifname @bridges accept',
  'iifname "br0" accept',
  'iifname { "br0", "br1" } accept',
  'iifname "br*" accept',
  '-A FORWARD -o eth0 -j ACCEPT',
  '-A FORWARD -s 10.5.0.0/24 -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT',
  '-A FORWARD -i br0 -m mark ! --mark 0x1 -j ACCEPT',
  'iifname "br0" oifname != "br0" counter packets 3 bytes 9 accept comment "x y"',
  'iifname "br0" oifname "eth0" ct state { new, established } accept',
  'counter packets 3 bytes 9 accept',
  'accept',
])
  test(`lets the pod through: ${line}`, (t) => t.is(byRules(line), 'accept'));

for (const line of [
  '-A FORWARD -s 10.6.0.0/16 -j ACCEPT',
  '-A FORWARD ! -s 10.5.0.0/16 -j ACCEPT',
  '-A FORWARD -d 10.5.0.2/32 -j ACCEPT',
  '-A FORWARD -s 10.5.0.2/32 -j DROP',
  '-A FORWARD -i br1 -j ACCEPT',
  '-A FORWARD ! -i br0 -j ACCEPT',
  '-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
  'ip saddr 10.5.0.2 drop',
  'ip saddr != 10.5.0.2 accept',
  'iifname != "br0" accept',
  'ip daddr 10.5.0.2 accept',
  'ct state established,related accept',
  'type filter hook forward priority filter; policy drop;',
  '-A INPUT -s 10.5.0.0/16 -j ACCEPT',
  '-A INPUT -i br0 -j ACCEPT',
  '-A FORWARD -i br0 -o br0 -j ACCEPT',
  '-A FORWARD -s 10.5.0.0/16 -d 10.9.0.1/32 -j ACCEPT',
  '-A FORWARD -s 10.5.0.0/16 -p udp -m udp --dport 53 -j ACCEPT',
  '-A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT',
  '-A FORWARD -i br0 -m comment --comment "-j ACCEPT" -j LOG',
  'iifname "br0" udp dport 53 accept',
  'iifname "br0" oifname "br0" accept',
  'iifname "br0" ip daddr 10.9.0.1 accept',
  'meta mark 0x1 accept',
  'ip6 saddr != fd00::1 accept',
])
  test(`does not: ${line}`, (t) => t.not(byRules(line), 'accept'));

for (const lines of [
  ['-A FORWARD -s 10.5.0.0/16 -j DROP'],
  ['-A FORWARD -i br0 ! -o br0 -j DROP', '-A FORWARD -i br0 -j ACCEPT'],
  ['-A FORWARD ! -o br0 -j DROP'],
  ['-A FORWARD -i br0 -j END', '-A END -j DROP'],
  ['-A FORWARD -s 10.5.0.2/32 -j DROP', '-A FORWARD -j DROP'],
  ['-A FORWARD ! -i br1 -j DROP'],
  ['-A FORWARD -i br0 -d 10.9.0.1/32 -j RETURN', '-A FORWARD -i br0 -j DROP'],
  ['ip saddr 10.5.0.2 drop'],
  ['iifname "br0" oifname != "br0" counter packets 0 bytes 0 drop'],
  ['iifname "br0" oifname != { "br0" } reject'],
  ['ip saddr 10.6.0.0/16 return', 'iifname "br0" drop', 'accept'],
])
  test(`drops all that the pod sends: ${lines.join('; ')}`, (t) => t.is(byRules(...lines), 'drop'));

for (const lines of [
  ['-A FORWARD -i br0 -o eth0 -j DROP'],
  ['-A FORWARD -i br0 ! -o eth0 -j DROP'],
  ['-A FORWARD -i br0 ! -o br+ -j DROP'],
  ['-A FORWARD -i br0 -o br0 -j DROP'],
  ['-A FORWARD -i br1 ! -o br1 -j DROP'],
  ['-A FORWARD -i br0 -m mark --mark 0x1 -j DROP'],
  ['-A FORWARD ! -d 10.0.0.0/8 -j DROP'],
  ['-A FORWARD ! -o br0 -j RETURN', '-A FORWARD -i br0 -j DROP'],
  ['ip saddr @blocked drop'],
  ['ip saddr != @inside drop'],
  ['iifname @guests drop'],
  ['ip saddr { 10.6.0.0/16, 10.7.0.0/16 } drop'],
  ['iifname "br0" oifname != { "br0", "br1" } drop'],
  ['iifname "br0" oifname @inside drop'],
  ['iifname "br0" oifname != @inside drop'],
  ['ip saddr @guests return', 'iifname "br0" drop'],
])
  test(`neither lets all through nor drops it: ${lines.join('; ')}`, (t) =>
    t.is(byRules(...lines), undefined));

for (const [how, expected] of [
  ['goto admitted', undefined],
  ['goto refused', 'drop'],
  ['jump admitted', 'drop'],
] as const)
  test(`a drop after what may have left the chain: ${how}`, (t) => {
    const chains = `chain f {
      ip saddr @guests ${how}
      iifname "br0" drop
    }
    chain admitted {
      return
    }
    chain refused {
      drop
    }`;
    t.is(byNft(chains.split('\n')), expected);
  });

for (const lines of [
  ['-A FORWARD -j REJECT --reject-with icmp-port-unreachable'],
  ['-A FORWARD -j END', '-A END -j DROP'],
  ['-A FORWARD -s 10.6.0.0/16 -j DROP', '-A FORWARD -j DROP'],
  ['ip saddr @blocked drop', 'counter packets 0 bytes 0 drop'],
])
  test(`drops what the pod sends as all that no rule is about: ${lines.join('; ')}`, (t) =>
    t.is(byRules(...lines), 'drop-as-rest'));

const table = `
*filter
:FORWARD DROP [0:0]
-A INPUT -m comment --comment "CNI dnsname plugin rules" -j CNI-DNSNAME
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
-A FORWARD -j REJECT --reject-with icmp-port-unreachable
-A FORWARD -s 10.7.0.0/16 -j ACCEPT
-A CNI-DNSNAME -s 10.5.0.0/24 -d 10.5.0.1/32 -p udp -m udp --dport 53 -j ACCEPT
-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
-A CNI-FORWARD -d 10.5.0.3/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A CNI-FORWARD -s 10.5.0.3/32 -j ACCEPT
-A CNI-FORWARD -s 10.5.0.4/32 -j ACCEPT
-A CNI-ADMIN -s 10.5.0.4/32 -j DROP
-A CNI-ADMIN -i br0 -o br1 -j DROP
-A CNI-ADMIN -j CNI-FORWARD
`.split('\n');

for (const [ip, expected] of [
  ['10.5.0.2', false],
  ['10.5.0.3', true],
  ['10.5.0.4', false],
  ['10.7.0.1', false],
] as const)
  test(`iptables: only what is entered from FORWARD counts, in its order: ${ip}`, (t) =>
    t.is(byIptables(table, { ...pod, ip }) === 'accept', expected));

const firewalld = `
table inet firewalld {
	chain other {
		accept
	}

	chain f {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid drop
		ip6 daddr { ::/96, ::ffff:0.0.0.0/96 } reject with icmpv6 addr-unreachable
		jump ZONES
		reject with icmpx admin-prohibited
	}

	chain ZONES {
		ip saddr 10.5.0.3 goto trusted
		iifname "eth0" goto public
		ip6 saddr fd00:5::/64 goto trusted
		goto public
	}

	chain trusted {
		accept
	}

	chain public {
		meta l4proto { icmp, ipv6-icmp } accept
		ct state { new, untracked } oifname "br9" accept
		return
		accept
	}
}`.split('\n');

for (const [ip, link, expected] of [
  ['10.5.0.2', 'br9', false],
  ['10.5.0.3', 'br0', true],
  ['fd00:5::2', 'br9', true],
  ['fd00:6::2', 'br9', false],
] as const)
  test(`nft: only what is entered from the base chain counts, in its order: ${ip}`, (t) =>
    t.is(byNft(firewalld, { ip, link }) === 'accept', expected));
