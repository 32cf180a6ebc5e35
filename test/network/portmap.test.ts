import { existsSync, readdirSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { Attachment, type AttachOptions, attach, runNetworkVerb, sample } from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import { ask, iptablesSave, reach, serve, snapshot, sysctl } from '../support/observe.ts';
import { outsideOf } from '../support/outside.ts';
import { portNet, ports } from '../support/portmap.ts';

const ourRules = async (host: Host, family: 4 | 6 = 4) =>
  (await iptablesSave(host, 'nat', family)).filter((rule) => /CNI-(DN|HOSTPORT)/.test(rule));

async function served(t: ExecutionContext, options: AttachOptions, keys: object = {}) {
  const host = await makeHost(t);
  const one = await attach(host, portNet(keys), options);
  return { host, one };
}

test('a port of the node leads to the pod, from outside, from the node, from other pods and from itself', async (t) => {
  const { host, one } = await served(t, ports([8080, 80], [5353, 53, 'udp']));
  const outside = await outsideOf(host);
  await serve(t, one.pod, 'tcp', 80, 'web');
  await serve(t, one.pod, 'udp', 53, 'dns');
  const other = await attach(host, portNet());
  t.like(await reach(outside, 'tcp', '192.0.2.1', 8080), { label: 'web', peer: '192.0.2.2' });
  t.like(await reach(outside, 'udp', '192.0.2.1', 5353), { label: 'dns', peer: '192.0.2.2' });
  t.like(await reach(outside, 'tcp', 'fd00:2::1', 8080), { label: 'web', peer: 'fd00:2::2' });
  t.like(await reach(host, 'tcp', '127.0.0.1', 8080), { label: 'web' });
  t.like(await reach(host, 'tcp', '192.0.2.1', 8080), { label: 'web' });
  t.like(await reach(other.pod, 'tcp', '10.5.0.1', 8080), { label: 'web' });
  t.like(await reach(one.pod, 'tcp', '10.5.0.1', 8080), { label: 'web' }, 'hairpin');
  t.is(await sysctl(host, 'net/ipv4/conf/br0/route_localnet'), '1');
  t.is(await ask(outside, 'tcp', '192.0.2.1', 8081), undefined);
  await one.check();
});

test('DEL leaves nothing, with mappings, without them, and without prevResult', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  const options = ports([8080, 80], [8081, 81, 'udp']);
  const first = await attach(host, portNet(), { ...options, pod });
  await first.del();
  await first.del({ capabilities: {} });
  const before = await snapshot(host);

  await (await attach(host, portNet(), { ...options, pod })).del();
  t.deepEqual(await snapshot(host), before);
  await (await attach(host, portNet(), { ...options, pod })).del({ capabilities: {} });
  t.deepEqual(await snapshot(host), before, 'the runtime passed no mappings');
  const forgotten = await attach(host, portNet(), { ...options, pod });
  forgotten.result = undefined;
  await forgotten.del({ capabilities: {}, netns: '' });
  await forgotten.del({ capabilities: {}, netns: '' });
  t.deepEqual({ ...(await snapshot(host)), links: [] }, { ...before, links: [] }, 'no prevResult');
});

test('no mappings: nothing is touched', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, portNet());
  t.deepEqual(await ourRules(host), []);
  await one.del();
});

test('the rules are those of the reference plugin', async (t) => {
  const mappings = [
    ports([8080, 80], [8443, 443]),
    ports([8080, 80, 'udp'], [8080, 80, 'tcp'], [9000, 90, 'sctp']),
    ports([8080, 80, 'tcp', '192.0.2.1']),
    ports(...Array.from({ length: 17 }, (_, i): [number, number] => [9000 + i, 80])),
  ];
  const variants = [{}, { snat: false }, { markMasqBit: 5 }, { conditionsV4: ['!', '-s', '203.0.113.0/24'] }];
  for (const [options, keys] of [
    ...mappings.map((one) => [one, {}] as const),
    ...variants.map((one) => [mappings[0]!, one] as const),
  ]) {
    const rules = [];
    for (const suite of ['ours', 'reference'] as const) {
      const host = await makeHost(t);
      const network = portNet(keys);
      network.cniVersion = '1.0.0';
      const [bridge, portmap] = network.plugins;
      const one = new Attachment(
        host,
        await host.addPod(),
        { ...network, plugins: [bridge!] },
        { containerId: 'one' },
      );
      await one.add();
      const chained = new Attachment(
        host,
        one.pod,
        { ...network, plugins: [portmap!] },
        { ...options, containerId: 'one', suite },
      );
      // A chained plugin begins with the result of the one before.
      const outcome = await chained.tryAdd({ env: {} }, one.result);
      t.is(outcome.exit, 0, outcome.stdout);
      rules.push([await ourRules(host, 4), await ourRules(host, 6)]);
    }
    for (const [ours, theirs] of [
      [rules[0]![0]!, rules[1]![0]!],
      [rules[0]![1]!, rules[1]![1]!],
    ] as const) {
      t.deepEqual(new Set(ours), new Set(theirs), JSON.stringify([options, keys]));
      const ownChain = (list: string[]) => list.filter((rule) => /^-A CNI-DN-/.test(rule));
      t.deepEqual(ownChain(ours), ownChain(theirs), 'and in the same order');
    }
  }
});

test('a taken port is refused and its holder named', async (t) => {
  const host = await makeHost(t);
  await outsideOf(host);
  const holder = await attach(host, portNet(), ports([8080, 80]));
  const tryPort = async (options: AttachOptions) =>
    new Attachment(host, await host.addPod(), portNet(), options).tryAdd();
  const before = await ourRules(host);
  const refused = await tryPort(ports([8080, 81]));
  t.regex(
    refused.error?.msg ?? '',
    new RegExp(`Port 8080/tcp .* taken by container "${holder.pod.containerId}" on network "net"`),
  );
  t.deepEqual(await ourRules(host), before);
  t.regex(
    (await tryPort(ports([8080, 81, 'tcp', '192.0.2.1']))).error?.msg ?? '',
    /is taken/,
    'the holder has every address',
  );
  t.is((await tryPort(ports([8080, 81, 'udp']))).exit, 0, 'another protocol');
  await holder.del();
  t.is((await tryPort(ports([8080, 81, 'tcp', '192.0.2.1']))).exit, 0);
  t.is((await tryPort(ports([8080, 82, 'tcp', '127.0.0.1']))).exit, 0, 'another address');
  t.regex(
    (await tryPort(ports([8080, 82]))).error?.msg ?? '',
    /is taken/,
    'every address, of which one is taken',
  );
});

test('ADD again replaces the mappings of the same container', async (t) => {
  const { host, one } = await served(t, ports([8080, 80]));
  const portmap = { ...portNet(), plugins: [portNet().plugins[1]!] };
  const again = new Attachment(host, one.pod, portmap, ports([8080, 88], [8081, 81]));
  t.is((await again.tryAdd({}, one.result)).exit, 0);
  const rules = await ourRules(host);
  t.true(rules.some((rule) => /--dport 8080 -j DNAT --to-destination [\d.]+:88$/.test(rule)));
  t.false(rules.some((rule) => /--to-destination [\d.]+:80$/.test(rule)));
  t.is(rules.filter((rule) => /^-A CNI-HOSTPORT-DNAT/.test(rule)).length, 1);
});

for (const backend of ['iptables', 'nftables']) {
  test(`${backend}: DEL of an interface leaves another one its mapping in the other family`, async (t) => {
    const host = await makeHost(t);
    const outside = await outsideOf(host);
    const one = await attach(host, portNet({ backend }), ports([8080, 80, 'tcp', '192.0.2.1']));
    const mapped = ports([8080, 80, 'tcp', 'fd00:2::1']);
    const other = await attach(host, portNet({ backend }), { pod: one.pod, ifname: 'eth1', ...mapped });
    await serve(t, one.pod, 'tcp', 80, 'web');
    await one.del();
    await other.check();
    t.like(await reach(outside, 'tcp', 'fd00:2::1', 8080), { label: 'web' });
    await other.del();
    t.notRegex(await host.run(['nft', '--stateless', 'list', 'ruleset']), /CNI-DN-|dnat to/);
  });

  test(`${backend}: a pod has the ports that its runtime passes to each of its networks`, async (t) => {
    const host = await makeHost(t);
    const outside = await outsideOf(host);
    const network = { ...portNet({ backend }), cniVersion: '1.0.0' };
    const [bridge, portmap] = network.plugins;
    const ipam = { type: 'host-local', subnet: '10.6.0.0/24' };
    const other = { ...network, name: 'other', plugins: [{ ...bridge!, bridge: 'br1', ipam }, portmap!] };
    // The releases of distributions know iptables alone.
    for (const suite of backend === 'iptables' ? (['ours', 'reference'] as const) : (['ours'] as const)) {
      const pod = await host.addPod();
      const first = new Attachment(host, pod, network, ports([8080, 80]));
      await first.add({ suite });
      const second = await attach(host, other, { pod, ifname: 'eth1', ...ports([8080, 80]) });
      await serve(t, pod, 'tcp', 80, 'web');
      t.like(await reach(outside, 'tcp', '192.0.2.1', 8080), { label: 'web' });
      for (const one of [first, second]) await one.check();
      // Another pod has none of them.
      const stranger = new Attachment(host, await host.addPod(), other, ports([8080, 80]));
      t.regex((await stranger.tryAdd()).error?.msg ?? '', /8080\/tcp of the host is taken by container/);
      await first.del();
      await second.check();
      t.like(await reach(outside, 'tcp', '192.0.2.1', 8080), { label: 'web' });
      await second.del();
      t.notRegex(await host.run(['nft', '--stateless', 'list', 'ruleset']), /CNI-DN-|dnat to/);
      await pod.remove();
    }
  });

  test(`${backend}: two interfaces of a container on one network have their mappings at once`, async (t) => {
    const host = await makeHost(t);
    const outside = await outsideOf(host);
    const one = await attach(host, portNet({ backend }), ports([8080, 80], [8082, 82, 'udp']));
    const tryOther = async (...list: Parameters<typeof ports>) => {
      const other = new Attachment(host, one.pod, portNet({ backend }), {
        ...ports(...list),
        ifname: 'eth1',
      });
      return { other, outcome: await other.tryAdd() };
    };
    const { other: refused, outcome } = await tryOther([8081, 81], [8080, 81]);
    t.regex(outcome.error?.msg ?? '', /8080\/tcp of the host is taken by container/);
    await one.check();
    await refused.del();
    await one.check();
    const { other } = await tryOther([8081, 81]);
    await serve(t, one.pod, 'tcp', 80, 'first');
    await serve(t, one.pod, 'tcp', 81, 'second');
    const answers = async () =>
      Promise.all([8080, 8081].map(async (port) => (await reach(outside, 'tcp', '192.0.2.1', port)).label));
    t.deepEqual(await answers(), ['first', 'second']);
    for (const attachment of [one, other]) await attachment.check();
    // Neither a second ADD nor a DEL of one touches the other's mappings, whether told the ports or not.
    const portmap = { ...portNet(), plugins: [{ ...portNet().plugins[1]!, backend }] };
    const again = new Attachment(host, one.pod, portmap, { ...ports([8083, 81]), ifname: 'eth1' });
    await again.tryAdd({}, other.result);
    await one.check();
    t.is(await ask(outside, 'tcp', '192.0.2.1', 8081), undefined);
    t.like(await reach(outside, 'tcp', '192.0.2.1', 8083), { label: 'second' });
    await again.del({ capabilities: {} });
    await one.check();
    t.is(await ask(outside, 'tcp', '192.0.2.1', 8083), undefined);
    again.result = other.result;
    await again.tryAdd({}, other.result);
    await one.del();
    await again.check();
    t.like(await reach(outside, 'tcp', '192.0.2.1', 8083), { label: 'second' });
    await again.del();
    t.notRegex(await host.run(['nft', '--stateless', 'list', 'ruleset']), /CNI-DN-|dnat to/);
    t.false(
      existsSync(host.file('/run/cni/portmap')) && readdirSync(host.file('/run/cni/portmap')).length > 0,
    );
  });
}

test('UDP: packets of a running conversation follow the port to the new pod; others are left alone', async (t) => {
  const host = await makeHost(t);
  const outside = await outsideOf(host);
  // Longer than the thirty seconds after which the kernel forgets by itself.
  await host.run(['sh', '-c', 'echo 600 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout']);
  const tracked = async () =>
    (await host.run(['conntrack', '-L', '-p', 'udp'])).split('\n').filter((line) => line.includes('dport='));
  // A conversation through the node to the same port of somebody else must survive.
  const other = await attach(host, portNet());
  await serve(t, outside, 'udp', 5353, 'elsewhere');
  t.like(await ask(other.pod, 'udp', '192.0.2.2', 5353), { label: 'elsewhere' });
  const first = await attach(host, portNet(), ports([5353, 53, 'udp']));
  await serve(t, first.pod, 'udp', 53, 'first');
  t.like(await ask(outside, 'udp', '192.0.2.1', 5353), { label: 'first' });
  t.is((await tracked()).length, 2);
  await first.del();
  const left = await tracked();
  t.is(left.length, 1);
  t.regex(left[0]!, /dst=192\.0\.2\.2/);
  // Somebody asked while nobody had the port: that must not stick.
  await ask(outside, 'udp', '192.0.2.1', 5353);
  const second = await attach(host, portNet(), ports([5353, 53, 'udp']));
  await serve(t, second.pod, 'udp', 53, 'second');
  t.like(await ask(outside, 'udp', '192.0.2.1', 5353), { label: 'second' });
  const ofSecond = async () => (await tracked()).filter((line) => line.includes(`src=${second.ip} `)).length;
  t.is(await ofSecond(), 1);
  await first.del();
  t.is(await ofSecond(), 1, 'DEL again, when somebody else has the port');
});

test('masqAll marks every source', async (t) => {
  const { host } = await served(t, ports([8080, 80]), { masqAll: true });
  for (const family of [4, 6] as const) {
    const marking = (await ourRules(host, family)).filter((rule) => /^-A CNI-DN.*SETMARK$/.test(rule));
    t.is(marking.length, 1);
    t.notRegex(marking[0]!, / -s /);
  }
});

test('an external chain marks packets in place of our own', async (t) => {
  const host = await makeHost(t);
  await host.run(['iptables', '-t', 'nat', '-N', 'KUBE-MARK-MASQ']);
  await host.run(['ip6tables', '-t', 'nat', '-N', 'KUBE-MARK-MASQ']);
  const one = await attach(host, portNet({ externalSetMarkChain: 'KUBE-MARK-MASQ' }), ports([8080, 80]));
  const rules = await iptablesSave(host);
  t.true(rules.some((rule) => /-j KUBE-MARK-MASQ$/.test(rule)));
  t.false(rules.some((rule) => /CNI-HOSTPORT-(SETMARK|MASQ)/.test(rule)));
  await one.check();
});

test('bad mappings are refused and nothing is changed', async (t) => {
  const host = await makeHost(t);
  const before = await iptablesSave(host);
  const cases: [object, AttachOptions, RegExp][] = [
    [{}, ports([0, 80]), /hostPort 0/],
    [{}, ports([80, 0]), /containerPort 0/],
    [{}, ports([70000, 80]), /between 0 and 65535/],
    [{}, ports([80, 80, 'icmp']), /"tcp", "udp" or "sctp"/],
    [{}, ports([80, 80, 'tcp', 'nowhere']), /"nowhere" is not an IP address/],
    [{ markMasqBit: 32 }, ports([80, 80]), /between 0 and 31/],
    [{ markMasqBit: 3, externalSetMarkChain: 'X' }, ports([80, 80]), /both set/],
    [{ externalSetMarkChain: 'X -j DROP' }, ports([80, 80]), /must match/],
    [{ conditionsV4: ['-s', '10.0.0.0/8\nCOMMIT\n*filter'] }, ports([80, 80]), /line break/],
    [{ conditionsV4: ['--frobnicate'] }, ports([80, 80]), /refused the rules/],
  ];
  for (const [keys, options, message] of cases) {
    const outcome = await new Attachment(host, await host.addPod(), portNet(keys), options).tryAdd();
    t.regex(outcome.error?.msg ?? 'no error', message);
  }
  t.deepEqual(
    (await iptablesSave(host)).filter((rule) => /CNI-DN/.test(rule)),
    before.filter((rule) => /CNI-DN/.test(rule)),
  );
});

test('keys in any case, as containerd sends them', async (t) => {
  const { host } = await served(t, {
    capabilities: {
      portMappings: [{ HostPort: 8080, ContainerPort: 80, Protocol: 'tcp', HostIP: '' }] as never,
    },
  });
  t.true((await ourRules(host)).some((rule) => /--dport 8080 -j DNAT/.test(rule)));
});

test('CHECK finds missing rules; GC takes what no valid attachment owns', async (t) => {
  const { host, one } = await served(t, ports([8080, 80]));
  const stale = await attach(host, portNet(), ports([8081, 80]));
  const valid = [{ containerID: one.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, portNet(), 'GC', { valid })).exit, 0);
  const rules = (await ourRules(host)).join('\n');
  t.regex(rules, /--dport 8080/);
  t.notRegex(rules, /8081/);
  await one.check();
  t.regex((await stale.tryCheck()).error?.msg ?? '', /No address/);
  // Without its mark, the connection of the host itself is not masqueraded.
  const marking = (await iptablesSave(host)).find((rule) => /-s 127.0.0.1.*SETMARK/.test(rule))!;
  await host.run(['sh', '-c', `iptables -t nat ${marking.replace('-A', '-D')}`]);
  t.regex((await one.tryCheck()).error?.msg ?? '', /Missing: 1 rule of chain "CNI-DN-\w+" in table "nat"/);
  await host.run(['sh', '-c', `iptables -t nat ${marking}`]);
  await one.check();
  await host.run(['iptables', '-t', 'nat', '-D', 'PREROUTING', '1']);
  t.regex((await one.tryCheck()).error?.msg ?? '', /Missing: 1 rule of chain "PREROUTING" in table "nat"/);
  t.is((await runNetworkVerb(host, portNet(), 'STATUS')).exit, 0);
});

for (const backend of ['iptables', 'nftables'])
  test(`${backend}: CHECK finds a mapping that is bound to another address`, async (t) => {
    const { one } = await served(
      t,
      ports([8080, 80, 'tcp', '127.0.0.1'], [8081, 81], [8082, 82, 'tcp', '0.0.0.0']),
      { backend },
    );
    await one.check();
    const rest = [8082, 82, 'tcp', '0.0.0.0'] as const;
    for (const list of [
      ports([8080, 80, 'tcp', '127.0.0.2'], [8081, 81], [...rest]),
      ports([8080, 80], [8081, 81], [...rest]),
      ports([8080, 80, 'tcp', '127.0.0.1'], [8081, 81, 'tcp', '127.0.0.1'], [...rest]),
    ])
      t.regex(
        (await one.tryCheck(list)).error?.msg ?? '',
        /^Ports of the host do not lead to the container. Missing: \d rules? of chain "(CNI-DN-|hostports)/,
      );
  });

for (const backend of ['iptables', 'nftables'])
  test(`${backend}: a mapping of one address of the host comes before that of every address`, async (t) => {
    const { host, one } = await served(t, ports([8080, 80], [8080, 90, 'tcp', '10.5.0.1']), { backend });
    await serve(t, one.pod, 'tcp', 80, 'every');
    await serve(t, one.pod, 'tcp', 90, 'bound');
    t.like(await reach(host, 'tcp', '10.5.0.1', 8080), { label: 'bound' });
    t.like(await reach(host, 'tcp', '127.0.0.1', 8080), { label: 'every' });
    await one.check();
  });

test('the sample network maps ports', async (t) => {
  const host = await makeHost(t);
  for (const name of ['10-bridge.conflist', '20-ptp.conflist', '30-dual-stack.conflist']) {
    const one = await attach(host, sample(name), ports([8080, 80]));
    await serve(t, one.pod, 'tcp', 80, name);
    t.like(await reach(host, 'tcp', '127.0.0.1', 8080), { label: name });
    await one.check();
    await one.del();
  }
});
