import test from 'ava';
import { Attachment, attach, type Conflist, runNetworkVerb, sample } from '../support/chain.ts';
import { firewallAlone, firewallNet, withoutFirewall } from '../support/firewall.ts';
import { type Host, makeHost, Namespace } from '../support/host.ts';
import { ask, files, nftJson, ping, reach, serve, snapshot, until } from '../support/observe.ts';
import { outsideOf } from '../support/outside.ts';

const net = (keys: object = {}, ...where: [bridge?: string, subnet?: string]) =>
  firewallNet('1.1.0', { backend: 'nftables', ...keys }, ...where);

const dropping = `table inet filter {
  chain forward { type filter hook forward priority filter; policy drop; }
}`;
/** A ruleset of base chains, by family, table and name. */
const chains = (list: Record<string, string>) =>
  Object.entries(list)
    .map(([name, content]) => {
      const [family, table, chain] = name.split(' ');
      return `table ${family} ${table} {\n chain ${chain} {\n type filter hook ${content}\n }\n}`;
    })
    .join('\n');
const load = (host: Host, ruleset: string) => host.run(['nft', '-f', '-'], { stdin: ruleset });

/** Elements of the sets that a table has for containers. */
async function elements(host: Host, table = 'filter'): Promise<string[]> {
  const sets = (await nftJson(host)).flatMap(({ set }) => (set ? [set] : []));
  return sets
    .filter((set) => set.table === table && String(set.name).startsWith('cni_forward_'))
    .flatMap((set) => (set.elem ?? []) as (string | { elem: { val: string } })[])
    .map((element) => (typeof element === 'string' ? element : element.elem.val))
    .sort();
}

/** The base chains that lead to ours. */
async function jumps(host: Host): Promise<string[]> {
  const found = (await nftJson(host)).flatMap(({ rule }) =>
    rule && JSON.stringify(rule.expr).includes('cni_forward"')
      ? [`${rule.family} ${rule.table} ${rule.chain}`]
      : [],
  );
  return found.sort();
}

/** A host that forwards nothing, with a machine outside that knows the way to the pods. */
async function closedHost(t: Parameters<typeof makeHost>[0], ruleset = dropping) {
  const host = await makeHost(t);
  await load(host, ruleset);
  const outside = await outsideOf(host);
  await outside.run(['ip', 'route', 'add', '10.0.0.0/8', 'via', '192.0.2.1']);
  await outside.run(['ip', 'route', 'add', 'fd00::/16', 'via', 'fd00:2::1']);
  return { host, outside };
}

test('a pod gets through a chain of the operator that drops, from ADD until DEL', async (t) => {
  const { host, outside } = await closedHost(t);
  await serve(t, outside, 'tcp', 80, 'outside');
  const without = withoutFirewall(net());
  const one = await attach(host, without);
  t.is(await ask(one.pod, 'tcp', '192.0.2.2', 80), undefined);
  const firewall = firewallAlone(one, { backend: 'nftables' });
  await firewall.tryAdd({}, one.result);
  t.like(await reach(one.pod, 'tcp', '192.0.2.2', 80), { label: 'outside', peer: one.ip });
  t.like(await reach(one.pod, 'tcp', 'fd00:2::2', 80), { label: 'outside' });
  await serve(t, one.pod, 'tcp', 80, 'pod');
  t.is(await ask(outside, 'tcp', one.ip, 80), undefined, 'nobody gets in who was not asked');
  await firewall.check();
  await host.run(['nft', 'add', 'rule', 'inet', 'filter', 'cni_admin', 'ip', 'saddr', one.ip, 'drop']);
  t.false(await ping(one.pod, '192.0.2.2'), "the operator's rules come first");
  await host.run(['nft', 'flush', 'chain', 'inet', 'filter', 'cni_admin']);
  t.true(await ping(one.pod, '192.0.2.2'));
  await firewall.del();
  t.is(await ask(one.pod, 'tcp', '192.0.2.2', 80), undefined);
  t.deepEqual(await elements(host), []);
});

test('what stays after DEL is what all pods share; twice, and without the namespace', async (t) => {
  const { host } = await closedHost(t);
  const pod = await host.addPod();
  const first = await attach(host, net(), { pod });
  for (const netns of [pod.netns, '']) await first.del({ netns });
  const before = await snapshot(host);
  const one = await attach(host, net(), { pod });
  t.is(Object.keys(files(host, '/run/cni/firewall')).length, 2);
  await one.del();
  await one.del({ netns: '' });
  t.deepEqual(await snapshot(host), before);
});

test('chains that drop all are found in every family; others are left alone', async (t) => {
  const { host } = await closedHost(
    t,
    chains({
      'inet a f': 'forward priority 0; policy accept; ct state established accept; counter reject',
      'ip b f': 'forward priority 1; policy drop',
      'ip b g': 'forward priority 2; policy accept; iifname "lo" accept; counter drop',
      'ip6 c f': 'forward priority 3; policy drop',
      'inet d f': 'forward priority 4; policy accept; ct state invalid drop',
      'inet d i': 'input priority 0; policy accept; ip saddr 203.0.113.1 drop',
      // Named as in iptables, which has no tables of both families.
      'inet filter FORWARD': 'forward priority 5; policy drop',
    }),
  );
  const one = await attach(host, net());
  t.deepEqual(await jumps(host), ['inet a f', 'inet filter FORWARD', 'ip b f', 'ip b g', 'ip6 c f']);
  for (const address of ['192.0.2.2', 'fd00:2::2'])
    await until(`${address} answers`, () => ping(one.pod, address));
  await one.check();
  await one.del();
  for (const table of ['a', 'b', 'c', 'filter']) t.deepEqual(await elements(host, table), [], table);
});

test('chains that drop all by one rule a family, or all that is new, are found as well', async (t) => {
  const closing = {
    families: 'reject with icmp type admin-prohibited; reject with icmpv6 type admin-prohibited',
    v4: 'meta nfproto ipv4 drop',
    v6: 'meta nfproto { ipv6 } drop',
    reset: 'reject with tcp reset',
    fresh: 'ct state new drop',
    fresh2: 'ct state { new, invalid } counter drop',
    fresh3: 'ct state new,untracked log drop',
    others: 'ct state != { established, related } drop',
    others2: 'ct state ! established,related drop',
  };
  const partial = {
    invalid: 'ct state invalid drop',
    invalid2: 'ct state { invalid, untracked } drop',
    old: 'ct state != { new, established } drop',
    host: 'ct state new ip daddr 203.0.113.1 drop',
    link: 'ct state new iifname "lo" reject',
    port: 'tcp dport 25 reject with tcp reset',
    udp: 'meta l4proto udp drop',
    bridged: 'meta protocol 8021q drop',
    limit: 'ct state new limit rate over 500/second drop',
  };
  const ruleset = Object.entries({ ...closing, ...partial }).map(([name, rules]) => [
    `inet of_${name} f`,
    `forward priority 0; policy accept; ct state established accept; ${rules}`,
  ]);
  const { host, outside } = await closedHost(t, chains(Object.fromEntries(ruleset)));
  await serve(t, outside, 'tcp', 80, 'outside');
  const one = await attach(host, net());
  const wanted = Object.keys(closing).map((name) => `inet of_${name} f`);
  t.deepEqual(await jumps(host), wanted.sort());
  for (const address of ['192.0.2.2', 'fd00:2::2'])
    t.like(await reach(one.pod, 'tcp', address, 80), { label: 'outside' });
  const [v4, v6] = one.result!.ips!.map(({ address }) => address.split('/')[0]!);
  t.deepEqual(await elements(host, 'of_families'), [v4, v6]);
  t.deepEqual(await elements(host, 'of_v4'), [v4], 'the other family is not closed');
  t.deepEqual(await elements(host, 'of_v6'), [v6]);
  await one.check();
  await host.run(['nft', 'flush', 'chain', 'inet', 'of_families', 'f']);
  await load(host, `add rule inet of_families f ${closing.families.split(';')[0]}`);
  t.regex((await one.tryCheck()).error?.msg ?? '', /Missing: jump from chain "inet of_families f"/);
  await one.del();
});

test('what a chain of the operator drops of some packets stays dropped, whatever lets the pod through', async (t) => {
  const blocklist = 'forward priority -10; policy accept; ip daddr 192.0.2.3 drop';
  const { host, outside } = await closedHost(t, `${dropping}\n${chains({ 'inet blocklist f': blocklist })}`);
  await outside.run(['ip', 'addr', 'add', '192.0.2.3/24', 'dev', 'wire']);
  const one = await attach(host, net());
  t.true(await ping(one.pod, '192.0.2.2'));
  t.true(await ping(host, '192.0.2.3'));
  t.false(await ping(one.pod, '192.0.2.3'));
  t.is((await host.run(['nft', 'list', 'table', 'inet', 'blocklist'])).match(/cni/g), null);
  await one.check();
});

test('where nothing drops, nothing is changed; CHECK says when that is over', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, net());
  t.false(JSON.stringify(await nftJson(host)).includes('cni_'));
  await one.check();
  await load(host, dropping);
  t.regex(
    (await one.tryCheck()).error?.msg ?? '',
    /Missing: jump from chain "inet filter forward" .*Run "cni repair"/,
  );
  const two = await attach(host, net());
  await one.check();
  await two.check();
  t.is((await elements(host)).length, 4, 'those that were there before get through again');
  await load(host, `flush ruleset\n${dropping}`);
  t.regex((await two.tryCheck()).error?.msg ?? '', /Missing: jump from chain "inet filter forward"/);
  await two.del();
  await one.del();
  const three = await attach(host, net());
  t.deepEqual(await elements(host), three.result!.ips!.map(({ address }) => address.split('/')[0]!).sort());
  await host.run(['nft', 'delete', 'element', 'inet', 'filter', 'cni_forward_ipv4', `{ ${three.ip} }`]);
  t.regex(
    (await three.tryCheck()).error?.msg ?? '',
    /Missing: 10\.5\.0\.\d+ in set "inet filter cni_forward_ipv4"\. Run "cni repair"/,
  );
});

test('a chain can be named; one that is not there, and one of iptables, are refused before anything is touched', async (t) => {
  const { host } = await closedHost(
    t,
    `${dropping}\n${chains({ 'ip mine out': 'forward priority 5; policy accept' })}`,
  );
  const one = await attach(host, net({ nftablesForwardChain: 'ip mine out' }));
  t.deepEqual(await elements(host, 'mine'), [one.ip]);
  t.deepEqual(await elements(host), []);
  await one.check();
  await one.del();
  const before = await snapshot(host);
  for (const [chain, message] of [
    ['inet mine out', /"nftablesForwardChain" is "inet mine out", but there is no such base chain/],
    ['forward', /"nftablesForwardChain" is "forward", but it must match/],
  ] as const) {
    const network = net({ nftablesForwardChain: chain });
    const pod = await host.addPod();
    const bridge = await attach(host, { ...network, plugins: network.plugins.slice(0, 1) }, { pod });
    const firewall = new Attachment(host, pod, { ...network, plugins: network.plugins.slice(1) });
    t.regex((await firewall.tryAdd({}, bridge.result)).error?.msg ?? '', message);
    t.regex((await runNetworkVerb(host, firewall.network, 'STATUS')).error?.msg ?? '', message);
    await bridge.del();
    await pod.remove();
  }
  t.deepEqual(await snapshot(host), before);
  await host.run(['iptables', '-P', 'FORWARD', 'DROP']);
  const network = net();
  const refused = await new Attachment(host, await host.addPod(), network).tryAdd();
  t.regex(refused.error?.msg ?? '', /Chain "ip filter FORWARD" drops.*Set "backend" to "iptables"/);
  t.deepEqual(files(host, '/run/cni/firewall'), {});
  await host.run(['iptables', '-S']);
});

test('ingressPolicy keeps bridges, or pods, apart', async (t) => {
  const host = await makeHost(t);
  // Kernels without CONFIG_NFT_BRIDGE_META isolate pods within a bridge by this alone.
  await host.run([
    'sh',
    '-c',
    'cd /proc/sys/net/bridge && echo 1 | tee bridge-nf-call-iptables bridge-nf-call-ip6tables',
  ]);
  for (const [policy, bridge, subnet] of [
    ['same-bridge', 'same', '10.8'],
    ['isolated', 'isola', '10.7'],
  ] as const) {
    const network = net({ ingressPolicy: policy }, bridge, subnet);
    const [one, two] = [await attach(host, network), await attach(host, network)];
    const stranger = await attach(host, net({ ingressPolicy: 'same-bridge' }, 'br9', '10.9'));
    const open = await attach(host, net({}, 'br6', '10.6'));
    for (const index of [0, 1]) {
      const address = (attachment: Attachment) => attachment.result!.ips![index]!.address.split('/')[0]!;
      t.is(await ping(one.pod, address(two)), policy === 'same-bridge', policy);
      t.false(await ping(stranger.pod, address(one)), policy);
      t.true(await ping(open.pod, address(one)), 'only isolated bridges are kept apart');
    }
    t.true(await ping(one.pod, `${subnet}.0.1`));
    await one.check();
    const rules = (await host.run(['nft', 'list', 'ruleset'])).match(/isolated bridges|to itself/g)!.length;
    const again = new Attachment(host, one.pod, { ...network, plugins: network.plugins.slice(1) });
    t.is((await again.tryAdd({}, one.result)).exit, 0);
    t.is((await host.run(['nft', 'list', 'ruleset'])).match(/isolated bridges|to itself/g)!.length, rules);
    await host.run(['nft', 'flush', 'chain', 'inet', 'cni_firewall', 'forward']);
    t.regex((await one.tryCheck()).error?.msg ?? '', /Missing: isolation of bridge/, policy);
    await host.run(['nft', 'delete', 'table', 'inet', 'cni_firewall']);
  }
});

test('first ADDs at once make everything once; DELs at once leave no element', async (t) => {
  const { host } = await closedHost(t);
  const pods = await Promise.all(Array.from({ length: 8 }, () => host.addPod()));
  const network = net({ ingressPolicy: 'same-bridge' });
  const all = await Promise.all(pods.map((pod) => attach(host, network, { pod })));
  const rules = (await nftJson(host)).flatMap(({ rule }) =>
    rule ? [JSON.stringify({ ...rule, handle: undefined })] : [],
  );
  t.is(new Set(rules).size, rules.length);
  t.is(rules.filter((rule) => rule.includes('"jump"')).length, 2);
  t.is((await elements(host)).length, 16);
  for (const one of all) await one.check();
  await Promise.all(all.map((one) => one.del()));
  t.deepEqual(await elements(host), []);
  t.deepEqual(files(host, '/run/cni/firewall'), {});
});

test('bridge, portmap and firewall need neither iptables nor nft', async (t) => {
  const { host, outside } = await closedHost(t);
  const eye = await hidePrograms(host);
  t.not((await host.tryRun(['iptables', '-S'])).exit, 0);
  t.not((await host.tryRun(['nft', 'list', 'ruleset'])).exit, 0);
  const network: Conflist = {
    ...net({ backend: '', ingressPolicy: 'isolated' }),
    plugins: [
      { ...net().plugins[0]!, ipMasq: true, ipMasqBackend: 'nftables' },
      { type: 'portmap', backend: 'nftables', capabilities: { portMappings: true } },
      { type: 'firewall', ingressPolicy: 'isolated' },
    ],
  };
  const capabilities = { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] };
  const one = await attach(host, network, { capabilities });
  t.true(await ping(one.pod, '192.0.2.2'));
  await serve(t, outside, 'tcp', 80, 'outside');
  t.like(await reach(one.pod, 'tcp', '192.0.2.2', 80), { peer: '192.0.2.1' });
  await one.check();
  await one.del();
  t.is((await runNetworkVerb(host, network, 'STATUS')).exit, 0);
  t.is((await runNetworkVerb(host, network, 'GC', { valid: [] })).exit, 0);
  const ruleset = JSON.stringify(await nftJson(eye));
  t.true(ruleset.includes('cni_forward'));
  t.false(ruleset.includes(one.ip));
});

test('where iptables is installed but cannot be used, nftables is', async (t) => {
  const { host } = await closedHost(t);
  await host.run([
    'sh',
    '-c',
    `mkdir /run/broken && for program in iptables ip6tables; do for suffix in '' -restore -save; do
      printf '#!/bin/sh\\necho "Extension conntrack revision 0 not supported, missing kernel module?" >&2\\nexit 2\\n' > /run/broken/$program$suffix
      chmod +x /run/broken/$program$suffix; done; done`,
  ]);
  const env = { PATH: '/run/broken:/usr/sbin:/usr/bin' };
  const one = await attach(host, net({ backend: '' }), { env });
  t.true(await ping(one.pod, '192.0.2.2'));
  await one.check();
  await one.del();
  t.deepEqual(await elements(host), []);
  t.deepEqual(files(host, '/run/cni/firewall'), {});
});

test('ADD killed, DEL told nothing, GC: no element stays, and none of a living pod goes', async (t) => {
  const { host } = await closedHost(t);
  const living = await attach(host, net());
  const lost = await attach(host, net());
  const firewall = (one: Attachment) => firewallAlone(one, { backend: 'nftables' });
  await firewall(lost).del();
  t.is((await elements(host)).length, 2, 'DEL without prevResult');
  await firewall(lost).tryAdd({}, lost.result);
  t.is((await elements(host)).length, 4);
  const valid = [{ containerID: living.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, { ...net(), plugins: [net().plugins[1]!] }, 'GC', { valid })).exit, 0);
  t.deepEqual(await elements(host), living.result!.ips!.map(({ address }) => address.split('/')[0]!).sort());
  await living.check();
  t.is(
    (await runNetworkVerb(host, { ...net({}, 'other'), plugins: [net().plugins[1]!] }, 'GC', { valid: [] }))
      .exit,
    0,
  );
  await living.check();
});

test('the sample network works', async (t) => {
  const { host } = await closedHost(t);
  const one = await attach(host, sample('81-firewall-nftables.conflist'));
  t.true(await ping(one.pod, '192.0.2.2'));
  await one.check();
  await one.del();
  t.deepEqual(await elements(host), []);
});

/**
 * Hides the programs of iptables and nftables in a host.
 * @returns a namespace in which they can still be run, to look at the host's rules.
 */
async function hidePrograms(host: Host): Promise<Namespace> {
  for (const program of ['xtables-nft-multi', 'xtables-legacy-multi', 'nft'])
    await host.run([
      'sh',
      '-c',
      `! test -e /usr/sbin/${program} || mount --bind /dev/null /usr/sbin/${program}`,
    ]);
  return new Namespace(['nsenter', `--net=/proc/${host.pid}/ns/net`, '--']);
}
