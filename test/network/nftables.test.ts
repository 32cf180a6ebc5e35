import { existsSync } from 'node:fs';
import test from 'ava';
import { Attachment, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { fakePrograms, fakesFirst, logIptables } from '../support/firewall.ts';
import { type Host, makeHost } from '../support/host.ts';
import { ask, files, iptablesSave, ping, reach, serve } from '../support/observe.ts';
import { operatorOf } from '../support/operator.ts';
import { outsideOf } from '../support/outside.ts';
import { ports } from '../support/portmap.ts';

const bridgeNet = (keys: object = {}): Conflist => ({
  cniVersion: '1.1.0',
  name: 'net',
  plugins: [
    {
      type: 'bridge',
      bridge: 'br0',
      isDefaultGateway: true,
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.5.0.0/24' }], [{ subnet: 'fd00:5::/64' }]] },
      ...keys,
    },
  ],
});
const nftNet = () => bridgeNet({ ipMasq: true, ipMasqBackend: 'nftables' });
const ruleset = (host: Host) => host.run(['nft', '--stateless', 'list', 'ruleset']);

/** The reference plugins' rules in nft's own words, with the comment of this attachment. */
function referenceMasquerade(comment: string, v4: string, v6: string): string {
  return `
    table inet cni_plugins_masquerade {
      comment "Masquerading for plugins from github.com/containernetworking/plugins";
      chain masq_checks {
        comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet";
        ip saddr == ${v4} ip daddr != 10.5.0.0/24 masquerade comment "${comment}"
        ip6 saddr == ${v6} ip6 daddr != fd00:5::/64 masquerade comment "${comment}"
      }
      chain postrouting {
        type nat hook postrouting priority srcnat;
        ip daddr == 224.0.0.0/4 return
        ip6 daddr == ff00::/8 return
        goto masq_checks
      }
    }`;
}

test('nftables: the table reads as if nft had written the reference rules', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, nftNet(), { containerId: 'one' });
  const written = await ruleset(host);
  const comment = /comment "([0-9a-f]{16}-[0-9a-f]{16}, net: net, if: eth0, id: one)"/.exec(written)?.[1];
  t.truthy(comment);
  const twin = await makeHost(t);
  const v6 = one.result!.ips![1]!.address.split('/')[0]!;
  await twin.run(['nft', '-f', '-'], { stdin: referenceMasquerade(comment!, one.ip, v6) });
  t.is(written, await ruleset(twin));
  await one.check();
});

test('nftables: packets leave with the address of the node, and the rules go with the pod', async (t) => {
  const host = await makeHost(t);
  const outside = await outsideOf(host);
  await serve(t, outside, 'tcp', 80, 'outside');
  const [one, two] = [await attach(host, nftNet()), await attach(host, nftNet())];
  t.like(await reach(one.pod, 'tcp', '192.0.2.2', 80), { peer: '192.0.2.1' });
  await serve(t, two.pod, 'tcp', 80, 'two');
  t.like(await reach(one.pod, 'tcp', two.ip, 80), { peer: one.ip }, 'not within the subnet');
  t.deepEqual(
    (await iptablesSave(host)).filter((rule) => /CNI/.test(rule)),
    [],
  );
  await one.pod.remove();
  one.result = undefined;
  await one.del({ netns: '' });
  t.notRegex(await ruleset(host), new RegExp(`id: ${one.pod.containerId}`));
  t.regex(await ruleset(host), new RegExp(`id: ${two.pod.containerId}`));
  await two.check();
  // As many rules as are wanted, of which one is for another address.
  const comment = /comment ("[^"]*")/.exec(await ruleset(host))![1]!;
  const rule = (match: string) =>
    `add rule inet cni_plugins_masquerade masq_checks ${match} masquerade comment ${comment}\n`;
  await host.run(['nft', '-f', '-'], {
    stdin:
      'flush chain inet cni_plugins_masquerade masq_checks\n' +
      rule('ip saddr 10.5.0.99 ip daddr != 10.5.0.0/24') +
      rule(`ip6 saddr ${two.result!.ips![1]!.address.split('/')[0]} ip6 daddr != fd00:5::/64`),
  });
  t.regex(
    (await two.tryCheck()).error?.msg ?? '',
    new RegExp(`^Packets of the container are not masqueraded. Missing: rule for ${two.ip} in table`),
  );
  await two.del();
});

test('nftables: GC removes the rules of what is no more, in this network only', async (t) => {
  const host = await makeHost(t);
  const other = { ...nftNet(), name: 'other' };
  other.plugins = [
    { ...other.plugins[0]!, bridge: 'br1', ipam: { type: 'host-local', subnet: '10.6.0.0/24' } },
  ];
  const [kept, stale, foreign] = [
    await attach(host, nftNet()),
    await attach(host, nftNet()),
    await attach(host, other),
  ];
  const valid = [{ containerID: kept.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, nftNet(), 'GC', { valid })).exit, 0);
  const text = await ruleset(host);
  t.notRegex(text, new RegExp(`id: ${stale.pod.containerId}`));
  for (const one of [kept, foreign]) t.regex(text, new RegExp(`id: ${one.pod.containerId}`));
});

test('macspoofchk: frames with a foreign MAC address are dropped, and the rules go with the pod', async (t) => {
  const host = await makeHost(t);
  const network = bridgeNet({ macspoofchk: true });
  const one = await attach(host, network, { containerId: 'one' });
  const two = await attach(host, network);
  t.true(await ping(one.pod, two.ip));
  const [, port, eth0] = one.result!.interfaces!;
  const twin = await makeHost(t);
  await twin.run(['nft', '-f', '-'], {
    stdin: `table bridge nat {
      chain cni-br-iface-one-eth0-mac { ether saddr == ${eth0!.mac} return comment "macspoofchk-one-eth0"; drop comment "macspoofchk-one-eth0"; }
      chain cni-br-iface-one-eth0 { jump cni-br-iface-one-eth0-mac comment "macspoofchk-one-eth0"; }
      chain PREROUTING { type filter hook prerouting priority -300; policy accept;
        iifname "${port!.name}" jump cni-br-iface-one-eth0 comment "macspoofchk-one-eth0"; }
    }`,
  });
  const own = (text: string) =>
    text
      .split('\n')
      .filter((line) => line.includes('one-eth0'))
      .map((line) => line.trim())
      .sort();
  t.deepEqual(own(await ruleset(host)), own(await ruleset(twin)));
  await one.check();
  const chain = ['bridge', 'nat', 'cni-br-iface-one-eth0-mac'];
  const [, last] = [...(await host.run(['nft', '-a', 'list', 'chain', ...chain])).matchAll(/# handle (\d+)/g)]
    .map(([, handle]) => handle!)
    .slice(1);
  await host.run(['nft', 'replace', 'rule', ...chain, 'handle', last!, 'accept']);
  t.regex((await one.tryCheck()).error?.msg ?? '', /rules are missing or changed/);
  await host.run([
    'nft',
    'replace',
    'rule',
    ...chain,
    'handle',
    last!,
    'drop',
    'comment',
    'macspoofchk-one-eth0',
  ]);
  await one.check();

  await one.pod.run(['ip', 'link', 'set', 'eth0', 'address', '0a:00:00:00:00:99']);
  t.false(await ping(one.pod, two.ip));
  await one.del();
  await one.del();
  t.deepEqual(own(await ruleset(host)), []);
  t.true(await ping(two.pod, '10.5.0.1'));

  await two.pod.remove();
  await host.run(['sh', '-c', `ip link del ${two.result!.interfaces![1]!.name} 2>/dev/null || true`]);
  t.is((await runNetworkVerb(host, network, 'GC', { valid: [] })).exit, 0);
  t.notRegex(await ruleset(host), /macspoofchk/);
});

const portNet = (keys: object = {}): Conflist => {
  const network = nftNet();
  return {
    ...network,
    plugins: [
      { ...network.plugins[0]!, hairpinMode: true },
      { type: 'portmap', backend: 'nftables', capabilities: { portMappings: true }, ...keys },
    ],
  };
};
/** A second network with port mappings. */
const otherNet = (): Conflist => {
  const [bridge, portmap] = portNet().plugins;
  const own = { bridge: 'br1', ipam: { type: 'host-local', subnet: '10.6.0.0/24' } };
  return { ...portNet(), name: 'other', plugins: [{ ...bridge!, ...own }, portmap!] };
};
/** Tables of port mappings, by family. */
const portTable = (host: Host, family = 'ip') =>
  host.run(['nft', '--stateless', 'list', 'table', family, 'cni_hostport']);

test('nftables: port mappings read as if nft had written the reference rules', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, portNet(), {
    ...ports([8080, 80], [5353, 53, 'udp'], [9090, 90, 'tcp', '192.0.2.1']),
    containerId: 'one',
  });
  const twin = await makeHost(t);
  const { ip } = one;
  await twin.run(['nft', '-f', '-'], {
    stdin: `table ip cni_hostport { comment "CNI portmap plugin";
      chain hostports {
        ip daddr 192.0.2.1 tcp dport 9090 dnat to ${ip}:90 comment "one"
        tcp dport 8080 dnat to ${ip}:80 comment "one"
        udp dport 5353 dnat to ${ip}:53 comment "one"
      }
      chain hostip_hostports { }
      chain hostports_all { jump hostip_hostports; jump hostports; }
      chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local jump hostports_all; }
      chain output { type nat hook output priority -100; fib daddr type local jump hostports_all; }
      chain masquerading { type nat hook postrouting priority srcnat;
        ip saddr ${ip} ip daddr ${ip} masquerade comment "one"
        ip saddr 127.0.0.1 ip daddr ${ip} masquerade comment "one"
      }
    }`,
  });
  const rules = (text: string) => text.split('\n').map((line) => line.trim());
  t.deepEqual(rules(await portTable(host)), rules(await portTable(twin)));
  t.regex(await portTable(host, 'ip6'), /tcp dport 8080 dnat to \[fd00:5::2\]:80 comment "one"/);
  await one.check();
});

test('nftables: CHECK passes on what the reference plugins of any release have made', async (t) => {
  const host = await makeHost(t);
  const mapped = ports([8080, 80], [5353, 53, 'udp'], [9090, 90, 'tcp', '10.5.0.1']);
  const one = await attach(host, portNet(), { ...mapped, containerId: 'one' });
  const [{ address: v4 }, { address: v6 }] = one.result!.ips as [{ address: string }, { address: string }];
  const comment = /masquerade comment "([^"]*)"/.exec(
    await host.run(['nft', 'list', 'table', 'inet', 'cni_plugins_masquerade']),
  )![1]!;
  const [ip, ip6] = [v4.split('/')[0]!, v6.split('/')[0]!];
  const tables = (older: boolean) =>
    [
      ['ip', ip, ip],
      ['ip6', ip6, `[${ip6}]`],
    ]
      .map(([family, address, to]) => {
        const bound =
          family === 'ip' ? `ip daddr 10.5.0.1 tcp dport 9090 dnat to ${to}:90 comment "one";` : '';
        const local =
          family === 'ip' ? `ip saddr 127.0.0.1 ip daddr ${address} masquerade comment "one";` : '';
        const [prerouting, output] = older
          ? [
              'jump hostip_hostports; jump hostports',
              'jump hostip_hostports; fib daddr type local jump hostports',
            ]
          : Array(2).fill('fib daddr type local jump hostports_all');
        return `table ${family} cni_hostport { comment "CNI portmap plugin";
        chain hostip_hostports { ${older ? bound : ''} }
        chain hostports { tcp dport 8080 dnat to ${to}:80 comment "one"; udp dport 5353 dnat to ${to}:53 comment "one"; ${older ? '' : bound} }
        ${older ? '' : 'chain hostports_all { jump hostip_hostports; jump hostports; }'}
        chain prerouting { type nat hook prerouting priority dstnat; ${prerouting}; }
        chain output { type nat hook output priority -100; ${output}; }
        chain masquerading { type nat hook postrouting priority srcnat;
          ${family} saddr ${address} ${family} daddr ${address} masquerade comment "one"; ${local} }
      }`;
      })
      .join('\n');
  for (const older of [true, false]) {
    await host.run(['nft', '-f', '-'], {
      stdin: `flush ruleset\n${tables(older)}\n${referenceMasquerade(comment, ip, ip6)}`,
    });
    const before = await ruleset(host);
    await one.check();
    t.is(await ruleset(host), before);
  }
});

test('nftables: a port of the node leads to the pod, and is given back', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, portNet(), ports([8080, 80]));
  const other = await attach(host, portNet());
  await serve(t, one.pod, 'tcp', 80, 'web');
  for (const [from, to] of [
    [host, '127.0.0.1'],
    [host, '10.5.0.1'],
    [other.pod, '10.5.0.1'],
    [one.pod, '10.5.0.1'],
    [host, 'fd00:5::1'],
  ] as const)
    t.like(await reach(from, 'tcp', to, 8080), { label: 'web' }, to);

  const refused = await new Attachment(host, await host.addPod(), portNet(), ports([8080, 81])).tryAdd();
  t.regex(
    refused.error?.msg ?? '',
    new RegExp(`Port 8080/tcp .* taken by container "${one.pod.containerId}"`),
  );
  const table = await host.run(['nft', 'list', 'table', 'ip', 'cni_hostport']);
  for (const chain of ['output', 'hostports_all', 'masquerading', 'hostports']) {
    await host.run(['nft', 'flush', 'chain', 'ip', 'cni_hostport', chain]);
    // A foreign rule is not the jump that is missing.
    if (chain === 'output') await host.run(['nft', 'add rule ip cni_hostport output counter']);
    t.regex((await one.tryCheck()).error?.msg ?? '', /Missing: .* in table "ip cni_hostport"/, chain);
    await host.run(['nft', '-f', '-'], { stdin: `delete table ip cni_hostport\n${table}` });
    await one.check();
  }
  await one.del({ capabilities: {} });
  t.notRegex(await portTable(host), /8080/);
  t.notRegex(await portTable(host, 'ip6'), /8080/);
  await attach(host, portNet(), ports([8080, 81]));
});

test('nftables: a pod may have a thousand ports, and gives back every one', async (t) => {
  const host = await makeHost(t);
  const many = ports(...Array.from({ length: 1000 }, (_, i): [number, number] => [10_000 + i, 20_000 + i]));
  const one = await attach(host, portNet(), many);
  await serve(t, one.pod, 'tcp', 20_999, 'last');
  t.like(await reach(host, 'tcp', '127.0.0.1', 10_999), { label: 'last' });
  t.is((await portTable(host)).match(/dport 1\d{4} dnat/g)?.length, 1000);
  await one.check();
  await one.del();
  for (const family of ['ip', 'ip6']) t.notRegex(await portTable(host, family), /dport/);
});

test('nftables: conditions are read by nft, and what iptables alone can do is refused', async (t) => {
  const host = await makeHost(t);
  await attach(
    host,
    portNet({ markMasqBit: 14, conditionsV4: ['ip', 'saddr', '!=', '203.0.113.0/24'] }),
    ports([8080, 80]),
  );
  t.regex(await portTable(host), /tcp dport 8080 ip saddr != 203\.0\.113\.0\/24 dnat to/);
  t.notRegex(await portTable(host), /chain conditions/);
  const fail = async (keys: object) =>
    (await new Attachment(host, await host.addPod(), portNet(keys), ports([8081, 80])).tryAdd()).error?.msg ??
    'no error';
  t.regex(await fail({ externalSetMarkChain: 'X' }), /for iptables only/);
  t.regex(await fail({ conditionsV4: ['accept;', 'flush', 'ruleset'] }), /holds ";"/);
  t.regex(await fail({ conditionsV4: ['frobnicate'] }), /nft refuses/);
  await fakePrograms(host, '/usr/sbin/nft flush ruleset; exit 1', ['nft'], ['']);
  const outcome = await new Attachment(host, await host.addPod(), closed(), ports([8082, 80])).tryAdd({
    env: fakesFirst,
  });
  t.regex(outcome.error?.msg ?? '', /nft refuses/, 'though its chain is gone');
});

/** A network whose ports are closed to the machine of {@link outsideOf}. */
const closed = (keys: object = {}) => portNet({ conditionsV4: ['ip', 'saddr', '!=', '192.0.2.2'], ...keys });

test('nftables: a network keeps its conditions to itself, and nobody takes them away', async (t) => {
  const host = await makeHost(t);
  const outside = await outsideOf(host);
  const first = await attach(host, closed(), ports([8080, 80]));
  const second = await attach(host, otherNet(), ports([8081, 80]));
  const third = await attach(host, closed(), ports([8082, 80], [8083, 81]));
  for (const { pod } of [first, second, third]) await serve(t, pod, 'tcp', 80, 'web');
  t.like(await reach(outside, 'tcp', '192.0.2.1', 8081), { label: 'web' });
  for (const port of [8080, 8082]) t.is(await ask(outside, 'tcp', '192.0.2.1', port), undefined);
  for (const port of [8080, 8081, 8082])
    t.like(await reach(host, 'tcp', '127.0.0.1', port), { label: 'web' });
  for (const one of [first, second, third]) await one.check();
  for (const one of [first, second, third]) await one.del();
  t.notRegex(await portTable(host), /dport|conditions|192\.0\.2/);
});

test('nftables: what an ADD that was killed had nft read goes with DEL and GC, that of a living one stays', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const chains = async () => (await host.run(['nft', 'list', 'chains', 'ip'])).match(/conditions-\S+/g) ?? [];
  const killed = async (script: string) => {
    const env = await fakePrograms(host, `${script}; kill -9 $PPID`, ['nft'], ['']);
    const one = new Attachment(host, await host.addPod(), closed(), ports([8080, 80]));
    t.is((await one.tryAdd({ env })).exit, 'SIGKILL');
    return one;
  };
  for (const script of [':', '/usr/sbin/nft "$@"']) {
    const before = await killed(script);
    t.is((await chains()).length, 1);
    await before.del();
    t.deepEqual(await chains(), []);
  }
  const [stale, valid] = [await killed(':'), await killed(':')];
  t.is((await chains()).length, 2);
  const gc = (network: Conflist) =>
    runNetworkVerb(host, network, 'GC', { valid: [{ containerID: valid.pod.containerId, ifname: 'eth0' }] });
  t.is((await gc(otherNet())).exit, 0);
  t.is((await chains()).length, 2);
  t.is((await gc(closed())).exit, 0);
  t.is((await chains()).length, 1);
  await stale.del();
  await valid.del();
  t.deepEqual(await chains(), []);
});

test('nftables: conditions that the reference plugin has for all networks stay while its ports need them', async (t) => {
  const host = await makeHost(t);
  const outside = await outsideOf(host);
  const older = await attach(host, closed(), ports([8080, 80]));
  await serve(t, older.pod, 'tcp', 80, 'web');
  // As the reference plugin has it, whose rules have no conditions of their own.
  const enter = (conditions: string) =>
    ['prerouting', 'output'].map(
      (chain) =>
        `flush chain ip cni_hostport ${chain}\nadd rule ip cni_hostport ${chain} ${conditions} fib daddr type local jump hostports_all\n`,
    );
  const load = (...lines: string[]) => host.run(['nft', '-f', '-'], { stdin: lines.join('') });
  const mapping = `tcp dport 8080 dnat to ${older.ip}:80 comment "${older.pod.containerId}"`;
  await load(
    ...enter('ip saddr != 192.0.2.2'),
    `flush chain ip cni_hostport hostports\nadd rule ip cni_hostport hostports ${mapping}\n`,
  );
  await older.check();
  const refused = await new Attachment(host, await host.addPod(), otherNet(), ports([8081, 80])).tryAdd();
  t.regex(refused.error!.msg, /leads to the ports of other containers under conditions/);
  const again = await attach(host, closed(), ports([8082, 80]));
  t.regex(await portTable(host), /saddr != 192\.0\.2\.2 fib daddr type local/);
  t.is(await ask(outside, 'tcp', '192.0.2.1', 8080), undefined);
  for (const one of [older, again]) await one.check();
  await load(...enter(''));
  t.regex((await older.tryCheck()).error!.msg, /1 rule of chain "hostports"/);
  await again.check();
});

test('nftables: pods from before iptables was installed are whole, and keep their ports', async (t) => {
  const host = await makeHost(t);
  const [bridge, portmap] = portNet().plugins;
  const { ipMasqBackend: _, ...main } = bridge as { ipMasqBackend?: string; type: string };
  const { backend: __, ...chained } = portmap as { backend?: string; type: string };
  const network: Conflist = { ...portNet(), plugins: [main, chained] };
  // Without the links in /etc/alternatives, there are no programs of iptables.
  await host.run(['sh', '-c', 'mkdir /run/none; mount --bind /run/none /etc/alternatives']);
  const older = await attach(host, network, ports([8080, 80]));
  await host.run(['umount', '/etc/alternatives']);
  t.regex(await portTable(host), /dport 8080/);
  await older.check();
  const taken = async (one: Conflist, port: number) => {
    const { error } = await new Attachment(host, await host.addPod(), one, ports([port, 81])).tryAdd();
    return error?.msg ?? 'no error';
  };
  t.regex(await taken(network, 8080), /Port 8080\/tcp of the host is taken by container/);
  const newer = await attach(host, network, ports([8081, 80]));
  t.true((await iptablesSave(host)).some((rule) => /dport 8081/.test(rule)));
  t.regex(await taken(portNet(), 8081), /Port 8081\/tcp of the host is taken by container/);
  await host.run('nft flush chain ip cni_hostport hostports'.split(' '));
  t.regex((await older.tryCheck()).error!.msg, /Ports of the host do not lead/);
  await host.run('nft flush chain inet cni_plugins_masquerade masq_checks'.split(' '));
  t.regex((await older.tryCheck()).error!.msg, /not masqueraded/);
  // A pod whose sandbox is gone gives way.
  await newer.pod.remove();
  await attach(host, portNet(), ports([8081, 80]));
});

/**
 * iptables-legacy on a kernel without its tables, and iptables-nft on one without nft_compat, which only warns
 * when it need not ask the kernel.
 */
const unusable = [
  `echo "\${0##*/}: can't initialize iptables table: Table does not exist" >&2; exit 3`,
  `case $0 in
  *-restore) input=$(cat); case "$input" in *"-m comment"*)
    echo "Warning: Extension comment revision 0 not supported, missing kernel module?" >&2
    case " $* " in *" --test "*) exit 0;; esac
    echo "\${0##*/}: line 3: RULE_APPEND failed (No such file or directory): rule in chain CNI" >&2; exit 4;;
  esac;
  printf '%s\\n' "$input" | exec /usr/sbin/\${0##*/} "$@";;
  *) exec /usr/sbin/\${0##*/} "$@";;
  esac`,
];

for (const [i, script] of unusable.entries())
  test(`nftables is used where iptables is installed but cannot be used (${i})`, async (t) => {
    const portmap = { type: 'portmap', capabilities: { portMappings: true } };
    const [bridge] = bridgeNet({ ipMasq: true }).plugins;
    const plugins = [bridge!, portmap, { type: 'firewall' }];
    const { host, cni, tryCni, add, del, env } = await operatorOf(t, plugins, { env: fakesFirst });
    await fakePrograms(host, script);
    const network = { ...bridgeNet(), plugins };
    t.is((await runNetworkVerb(host, network, 'STATUS', { env })).exit, 0);
    const pod = await add(8080);
    await serve(t, pod, 'tcp', 80, 'web');
    t.like(await reach(host, 'tcp', '127.0.0.1', 8080), { label: 'web' });
    t.regex(await portTable(host), /dport 8080 dnat/);
    t.regex(await host.run(['nft', 'list', 'table', 'inet', 'cni_plugins_masquerade']), /saddr 10\.5\.0\./);
    for (const table of ['ip cni_hostport', 'inet cni_plugins_masquerade']) {
      t.is((await tryCni(['repair', '--dry-run'])).exit, 0, 'nothing is missing');
      await host.run(['nft', `flush table ${table}`]);
      t.regex((await tryCni(['repair', '--dry-run'])).stdout, new RegExp(`in table "${table}"`));
      await cni(['repair']);
    }
    t.like(await reach(host, 'tcp', '127.0.0.1', 8080), { label: 'web' });
    await del(pod);
    t.notRegex(await ruleset(host), /8080|10\.5\.0\.[^0]/);

    const fixed = (type: string, key: string) => ({
      ...network,
      plugins: network.plugins.flatMap((one) => (one.type === type ? { ...one, [key]: 'iptables' } : [])),
    });
    for (const [type, key] of [
      ['bridge', 'ipMasqBackend'],
      ['portmap', 'backend'],
      ['firewall', 'backend'],
    ] as const)
      t.regex(
        (await runNetworkVerb(host, fixed(type, key), 'STATUS', { env })).error?.msg ?? '',
        /^iptables-restore cannot be used for table "(nat|filter)"$/,
      );
  });

test('where iptables serves one family only, nftables does both, and nothing stays in iptables', async (t) => {
  const host = await makeHost(t);
  const env = await fakePrograms(host, unusable[0]!, ['ip6tables']);
  const [bridge] = bridgeNet({ ipMasq: true }).plugins;
  const portmap = { type: 'portmap', capabilities: { portMappings: true } };
  const network = { ...bridgeNet(), plugins: [bridge!, portmap, { type: 'firewall' }] };
  const one = await attach(host, network, { ...ports([8080, 80]), env });
  const [v4, v6] = one.result!.ips!.map(({ address }) => address.split('/')[0]!);
  const masquerading = await host.run(['nft', 'list', 'table', 'inet', 'cni_plugins_masquerade']);
  for (const address of [v4!, v6!]) t.true(masquerading.includes(`saddr ${address} `), address);
  t.regex(await portTable(host, 'ip6'), /dport 8080 dnat/);
  t.regex(await portTable(host), /dport 8080 dnat/);
  for (const table of ['nat', 'filter'])
    t.deepEqual(
      (await iptablesSave(host, table)).filter((line) =>
        /8080|10\.5\.0\.|CNI-[0-9a-f]{24}|CNI-DN-/.test(line),
      ),
      [],
      table,
    );
  const notes = Object.values(files(host, '/run/cni/firewall'));
  t.deepEqual(
    notes.map((note) => (JSON.parse(note) as { backends: string[] }).backends),
    [['nftables'], ['nftables']],
  );
  await one.check();
  await one.del();
});

test('nftables: DEL on one network leaves the same container alone on another', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  const other = otherNet();
  const one = await attach(host, portNet(), { pod, ...ports([8080, 80]) });
  await attach(host, other, { pod, ifname: 'eth1', ...ports([8081, 80]) });
  await one.del();
  t.notRegex(await portTable(host), /8080/);
  t.regex(await portTable(host), /8081/);
});

test('nftables: DEL that is told no address leaves rules of the reference plugin for another interface', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  const one = await attach(host, portNet(), { pod, ...ports([8080, 80]) });
  const other = otherNet();
  const { ip } = await attach(
    host,
    { ...other, plugins: other.plugins.slice(0, 1) },
    { pod, ifname: 'eth1' },
  );
  await pod.run(['ip', 'link', 'set', 'lo', 'up']);
  const rule = (chain: string, text: string) =>
    host.run(['nft', `add rule ip cni_hostport ${chain} ${text} comment "${pod.containerId}"`]);
  await rule('hostports', `tcp dport 8081 dnat to ${ip}:80`);
  for (const address of [ip, one.ip])
    await rule('masquerading', `ip saddr 127.0.0.1 ip daddr ${address} masquerade`);
  const localhost = async () => (await portTable(host)).match(/saddr 127\.0\.0\.1 ip daddr \S+/g);
  t.is((await localhost())?.length, 3, 'one of them is of this suite');
  one.result = undefined;
  await one.del({ capabilities: {} });
  t.notRegex(await portTable(host), /8080/);
  t.regex(await portTable(host), /8081/);
  t.deepEqual(await localhost(), [`saddr 127.0.0.1 ip daddr ${ip}`]);
});

test('nftables: port mappings know their network: without prevResult, and in GC', async (t) => {
  const host = await makeHost(t);
  const other = otherNet();
  const [pod, stale] = [await host.addPod(), await host.addPod()];
  const one = await attach(host, portNet(), { pod, ...ports([8080, 80], [8080, 80, 'udp']) });
  await attach(host, other, { pod, ifname: 'eth1', ...ports([8081, 80]) });
  await attach(host, portNet(), { pod: stale, ...ports([8082, 80]) });
  await attach(host, other, { pod: stale, ifname: 'eth1', ...ports([8083, 80]) });
  const mapped = async () =>
    [...new Set((await ruleset(host)).match(/(?<=dport )80\d\d/g))].map(Number).sort();

  const portmap = { ...portNet(), plugins: portNet().plugins.slice(1) };
  const valid = [{ containerID: pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, portmap, 'GC', { valid })).exit, 0);
  t.deepEqual(await mapped(), [8080, 8081, 8083], 'the stale one of this network');
  await one.check();
  await new Attachment(host, pod, portmap).del();
  t.deepEqual(await mapped(), [8081, 8083], 'the same container on the other network keeps its port');
  const otherPortmap = { ...portmap, name: 'other' };
  const eth1 = [{ containerID: pod.containerId, ifname: 'eth1' }];
  t.is((await runNetworkVerb(host, otherPortmap, 'GC', { valid: eth1 })).exit, 0);
  t.deepEqual(await mapped(), [8081]);
});

test('nftables: STATUS makes nothing', async (t) => {
  const host = await makeHost(t);
  t.is((await runNetworkVerb(host, portNet(), 'STATUS')).exit, 0);
  t.is(await ruleset(host), '');
});

test('nftables: DELs and GCs at once do not stumble over one another', async (t) => {
  const host = await makeHost(t);
  const all = await Promise.all(Array.from({ length: 12 }, () => attach(host, nftNet())));
  const outcomes = await Promise.all([
    ...all.map((one) => one.tryDel()),
    ...Array.from({ length: 4 }, () => runNetworkVerb(host, nftNet(), 'GC', { valid: [] })),
  ]);
  t.deepEqual(
    outcomes.filter(({ exit }) => exit !== 0).map(({ stdout }) => stdout),
    [],
  );
  t.notRegex(await ruleset(host), /net: net/);
});

test('nftables: what all pods share is made once, and again when somebody has taken it apart', async (t) => {
  const host = await makeHost(t);
  const network = nftNet();
  const portmap = { type: 'portmap', backend: 'nftables', capabilities: { portMappings: true } };
  network.plugins.push(portmap);
  const mapped = (hostPort: number) => ({
    capabilities: { portMappings: [{ hostPort, containerPort: 80 }] },
  });
  // Tables are listed in the order in which they were made.
  const rules = async () =>
    (await ruleset(host))
      .split('\n')
      .filter((line) => line.trim() && !line.includes('comment "'))
      .sort();
  const handles = async () =>
    (await host.run(['nft', '--handle', 'list', 'ruleset'])).match(/^.*(goto|jump|return).*$/gm);

  await attach(
    host,
    { ...network, plugins: [network.plugins[0]!, { ...portmap, snat: false }] },
    mapped(8080),
  );
  t.notRegex(await ruleset(host), /masquerading/);
  await attach(host, network, mapped(8081));
  t.regex(await ruleset(host), /chain masquerading/, 'a chain that only this one needs');
  const [whole, before] = [await rules(), await handles()];

  await attach(host, network, mapped(8082));
  t.deepEqual(await handles(), before, 'rules that are right are left alone');

  for (const damage of [
    ['flush', 'chain', 'inet', 'cni_plugins_masquerade', 'postrouting'],
    ['flush', 'chain', 'ip', 'cni_hostport', 'hostports_all'],
    ['add', 'rule', 'ip', 'cni_hostport', 'prerouting', 'accept'],
    ['insert', 'rule', 'inet', 'cni_plugins_masquerade', 'postrouting', 'accept'],
    ['delete', 'table', 'ip', 'cni_hostport'],
  ])
    await host.run(['nft', ...damage]);
  await attach(host, network, mapped(8083));
  t.deepEqual(await rules(), whole);
});

test('nftables: no program of iptables is started for a pod that has none of its rules', async (t) => {
  const host = await makeHost(t);
  const env = await logIptables(host);
  const { plugins, ...network } = nftNet();
  const mapped = { ...network, plugins: [...plugins, { type: 'portmap', backend: 'nftables' }] };
  const attachment = await attach(host, mapped, { ...ports([8080, 80]), env });
  await attachment.check();
  await attachment.del();
  await attachment.del();
  t.false(existsSync(host.file('/run/calls')));
});
