import test from 'ava';
import type { PortMapOptions } from '../../../lib/firewall/portmap-backend.ts';
import {
  isMapping,
  isMappingTo,
  leads,
  ruleSetOf,
  withoutNeighbours,
} from '../../../lib/firewall/portmap-rules.ts';
import { option, parseRules, renderRule } from '../../../lib/firewall/rules.ts';
import { Address, Prefix } from '../../../lib/ip.ts';

const attachment = { network: 'net', containerId: 'c1', ifname: 'eth0' };
const options: PortMapOptions = {
  snat: true,
  masqAll: false,
  markMasqBit: 13,
  conditions: { 4: [], 6: [] },
};
const containers = [Prefix.parse('10.1.0.5/24'), Prefix.parse('fd00::5/64')];
const tcp = { hostPort: 8080, containerPort: 80, protocol: 'tcp' };

const request = (change: Partial<PortMapOptions>, mappings = [tcp]) => ({
  attachment,
  netns: '/run/netns/c1',
  containers,
  mappings,
  options: { ...options, ...change },
});

const only = (text: string) => parseRules(text)[0]!;

test('packets are marked by chains of our own only if the operator names no other, and if they are to be', (t) => {
  const own = ['CNI-HOSTPORT-DNAT', 'CNI-HOSTPORT-SETMARK', 'CNI-HOSTPORT-MASQ'];
  const none = ['CNI-HOSTPORT-DNAT'];
  for (const [change, chains, shared] of [
    [{}, own, 5],
    [{ masqAll: true }, own, 5],
    [{ snat: false }, none, 2],
    [{ externalSetMarkChain: 'KUBE-MARK-MASQ' }, none, 2],
    [{ snat: false, externalSetMarkChain: 'KUBE-MARK-MASQ' }, none, 2],
  ] as const) {
    const set = ruleSetOf(4, request(change));
    t.deepEqual(set.chains, chains, JSON.stringify(change));
    t.is(set.shared.length, shared, JSON.stringify(change));
  }
});

test("a port's rules are those of the reference plugin", (t) => {
  const { own, shared } = ruleSetOf(4, request({}));
  const words = (rules: typeof own.rules) => rules.map((rule) => renderRule('-A', rule));
  t.deepEqual(words(own.rules), [
    `-A ${own.chain} -s 10.1.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK`,
    `-A ${own.chain} -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK`,
    `-A ${own.chain} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.0.5:80`,
    `-A CNI-HOSTPORT-DNAT -m comment --comment "dnat name: \\"net\\" id: \\"c1\\"" -p tcp -m multiport --dports 8080 -j ${own.chain}`,
  ]);
  t.deepEqual(words(shared), [
    '-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT',
    '-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT',
    '-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ',
    '-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000',
    '-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE',
  ]);
  const ofSix = words(ruleSetOf(6, request({ masqAll: true })).own.rules);
  t.deepEqual(ofSix.slice(0, 2), [
    `-A ${own.chain} -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK`,
    `-A ${own.chain} -p tcp -m tcp --dport 8080 -j DNAT --to-destination "[fd00::5]:80"`,
  ]);
});

test('one rule leads on fifteen ports at most', (t) => {
  const mappings = Array.from({ length: 16 }, (_, i) => ({ ...tcp, hostPort: 9000 + i }));
  const leading = ruleSetOf(4, request({}, mappings)).own.rules.filter(
    ({ chain }) => chain === 'CNI-HOSTPORT-DNAT',
  );
  const ports = leading.map((rule) => mappings.filter((one) => leads(rule, one)).length);
  t.deepEqual(ports, [15, 1]);
});

test('a port of two addresses of the host is led on twice by one rule, as the CHECK of the reference wants it', (t) => {
  const bound = ['127.0.0.1', '192.0.2.1'].map((hostIP) => ({ ...tcp, hostIP: Address.parse(hostIP) }));
  const [leading] = ruleSetOf(4, request({}, bound)).own.rules.filter(
    ({ chain }) => chain === 'CNI-HOSTPORT-DNAT',
  );
  t.is(option(leading!, '--dports'), '8080,8080');
});

test('a rule is told to map a port by target, protocol and port', (t) => {
  const rule = only('-A C -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.0.5:80');
  t.true(isMapping(rule, tcp));
  t.false(isMapping(rule, { ...tcp, protocol: 'udp' }));
  t.false(isMapping(rule, { ...tcp, hostPort: 808 }));
  t.false(isMapping(only('-A C -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK'), tcp));
  t.true(isMappingTo(rule, Address.parse('10.1.0.5')));
  t.false(isMappingTo(rule, Address.parse('10.1.0.50')));
  t.false(isMappingTo(only('-A C -j RETURN'), Address.parse('10.1.0.5')));
});

test("what another interface's ports have is left out of what is an interface's own", (t) => {
  const kept = [
    '-A C -s 10.1.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK',
    '-A C -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.0.5:80',
    '-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 8080 -j C',
    '-A CNI-HOSTPORT-DNAT -p udp -m multiport --dports 53 -j C',
    // The same port of another protocol, and of another address of the host.
    '-A C -s 10.1.0.0/24 -p udp -m udp --dport 9090 -j CNI-HOSTPORT-SETMARK',
    '-A C -s 10.1.0.0/24 -d 192.0.2.1/32 -p tcp -m tcp --dport 9090 -j CNI-HOSTPORT-SETMARK',
  ];
  const theirs = [
    '-A C -s 10.2.0.0/24 -p tcp -m tcp --dport 9090 -j CNI-HOSTPORT-SETMARK',
    '-A C -p tcp -m tcp --dport 9090 -j DNAT --to-destination 10.2.0.7:90',
    '-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 7070,9090 -j C',
  ];
  const rules = parseRules([...kept, ...theirs].join('\n'));
  const rest = withoutNeighbours(rules, [Address.parse('10.2.0.7')]);
  t.deepEqual(
    rest.map((rule) => renderRule('-A', rule)),
    kept,
  );
  t.deepEqual(withoutNeighbours(rules, []), rules);
  t.deepEqual(withoutNeighbours(rules, [Address.parse('10.2.0.8')]), rules);
});
