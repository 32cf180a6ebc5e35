import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import test from 'ava';
import { Attachment, attach, type Conflist, runNetworkVerb, sample } from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import {
  addresses,
  files,
  iptablesSave,
  link,
  links,
  ping,
  routes,
  snapshot,
  sysctl,
  until,
} from '../support/observe.ts';
import { operatorOf } from '../support/operator.ts';
import { cleanEnv } from '../support/run.ts';

/** A network with one bridge plugin; `keys` are merged into its configuration. */
function bridgeNet(keys: object = {}, cniVersion = '1.1.0'): Conflist {
  return {
    cniVersion,
    name: 'net',
    plugins: [
      {
        type: 'bridge',
        bridge: 'br0',
        isGateway: true,
        ipam: { type: 'host-local', subnet: '10.5.0.0/24', routes: [{ dst: '0.0.0.0/0' }] },
        ...keys,
      },
    ],
  };
}

const dualStack = {
  isDefaultGateway: true,
  ipMasq: true,
  ipam: {
    type: 'host-local',
    ranges: [[{ subnet: '10.5.0.0/24' }], [{ subnet: 'fd00:5::/64' }]],
  },
};

/** Checks that an ADD fails, and that the host is as before. */
async function failsCleanly(
  t: import('ava').ExecutionContext,
  host: Host,
  network: Conflist,
  message: RegExp,
): Promise<void> {
  const pod = await host.addPod();
  const before = await snapshot(host);
  const outcome = await new Attachment(host, pod, network).tryAdd();
  t.not(outcome.exit, 0);
  t.regex(outcome.error?.msg ?? '', message);
  const after = await snapshot(host);
  t.deepEqual({ ...after, files: undefined }, { ...before, files: undefined });
  const reserved = Object.keys(after.files as object).filter((file) => /\/net\/\d/.test(file));
  t.deepEqual(reserved, [], 'no address is leaked');
  t.is(await link(pod, 'eth0'), undefined);
}

test('pods reach one another and the node; nothing but the bridge is left', async (t) => {
  const host = await makeHost(t);
  const network = bridgeNet({ ipMasq: true });
  const [a, b] = [await host.addPod(), await host.addPod()];
  await (await attach(host, network, { pod: a })).del();
  const before = await snapshot(host);
  const one = await attach(host, network, { pod: a });
  const two = await attach(host, network, { pod: b });
  t.true(await ping(one.pod, two.ip));
  t.true(await ping(one.pod, '10.5.0.1'));
  t.true(await ping(host, one.ip));
  t.is((await link(host, 'br0'))?.address, one.result?.interfaces?.[0]?.mac);
  t.is(await sysctl(host, 'net/ipv4/ip_forward'), '1');
  await one.check();
  await one.del();
  await one.del();
  await two.del();
  t.deepEqual(await snapshot(host), before);
});

test('dual stack: addresses are usable at once, routes lead by the bridge, both families are masqueraded', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, bridgeNet(dualStack));
  const two = await attach(host, bridgeNet(dualStack));
  const v6 = two.result!.ips![1]!.address.split('/')[0]!;
  t.true(await ping(one.pod, v6));
  t.true(await ping(one.pod, 'fd00:5::1'));
  t.deepEqual(await addresses(one.pod, 'eth0'), [`${one.ip}/24`, one.result!.ips![1]!.address].sort());
  t.is((await routes(one.pod, 6)).find(({ dst }) => dst === 'default')?.gateway, 'fd00:5::1');
  t.is((await routes(one.pod, 4)).find(({ dst }) => dst === 'default')?.gateway, '10.5.0.1');
  for (const family of [4, 6] as const)
    t.is((await iptablesSave(host, 'nat', family)).filter((rule) => /^-A POSTROUTING/.test(rule)).length, 2);
  await one.check();
  await one.del();
  await two.del();
  for (const family of [4, 6] as const)
    t.deepEqual(
      (await iptablesSave(host, 'nat', family)).filter((rule) => /CNI-/.test(rule)),
      [],
    );
});

test('DEL finds the rules by identity when the namespace is gone or not given, with and without prevResult', async (t) => {
  const host = await makeHost(t);
  const network = bridgeNet(dualStack);
  await (await attach(host, network)).del();
  const before = await snapshot(host);
  const same = async (what: string) => {
    const after = await snapshot(host);
    t.deepEqual({ ...after, sandboxes: [] }, { ...before, sandboxes: [] }, what);
  };

  const gone = await attach(host, network);
  await gone.pod.remove();
  await gone.del();
  await same('namespace gone');

  const empty = await attach(host, network);
  await empty.del({ netns: '' });
  await same('CNI_NETNS empty, although the namespace is still there');

  const forgotten = await attach(host, network);
  await forgotten.pod.remove();
  forgotten.result = undefined;
  await forgotten.del({ netns: '' });
  // Nothing tells DEL about the pair, which disappears with the namespace.
  await until('the pair goes', async () => !(await links(host)).some(({ ifname }) => /^veth/.test(ifname)));
  await same('no prevResult');
});

test("DEL releases what is on the host where the container's process ID is one of the host by now", async (t) => {
  const host = await makeHost(t);
  const network = bridgeNet({ ipMasq: true });
  const pod = await host.addPod();
  await (await attach(host, network, { pod })).del();
  const before = await snapshot(host);
  const one = await attach(host, network, { pod });
  await one.del({ netns: '/proc/self/ns/net' });
  t.deepEqual(await snapshot(host), before);
});

test('hairpin, isolation, MTU, MAC address and promiscuous mode arrive in the kernel', async (t) => {
  const host = await makeHost(t);
  const network = bridgeNet({
    hairpinMode: true,
    portIsolation: true,
    mtu: 1400,
    capabilities: { mac: true },
  });
  const mac = '0a:58:0a:05:00:99';
  const one = await attach(host, network, { capabilities: { mac } });
  const port = await link(host, one.result!.interfaces![1]!.name);
  t.is(port?.linkinfo?.info_slave_data?.hairpin, true);
  t.is(port?.linkinfo?.info_slave_data?.isolated, true);
  t.is(port?.mtu, 1400);
  t.is(port?.master, 'br0');
  const eth0 = await link(one.pod, 'eth0');
  t.is(eth0?.mtu, 1400);
  t.is(eth0?.address, mac);
  t.is(one.result!.interfaces![2]!.mac, mac);
  t.is(await sysctl(one.pod, 'net/ipv4/conf/eth0/arp_notify'), '1');

  const promiscuous = await attach(host, {
    ...bridgeNet({ promiscMode: true, bridge: 'br1' }),
    name: 'other',
  });
  t.is((await link(host, 'br1'))?.flags.includes('PROMISC'), true);
  await promiscuous.check();
  // Something else may keep a bridge in promiscuous mode for a while, such as a macvlan in mode "passthru".
  await host.run('ip link set br1 promisc off'.split(' '));
  await host.run('ip link add watch link br1 up type macvlan mode passthru'.split(' '));
  t.is((await link(host, 'br1'))?.promiscuity, 1);
  t.regex((await promiscuous.tryCheck()).error!.msg, /not in promiscuous mode/);
  await attach(host, promiscuous.network);
  await host.run('ip link del watch'.split(' '));
  t.is((await link(host, 'br1'))?.promiscuity, 1);
  await promiscuous.check();
});

test('layer 2 only: no IPAM, no addresses, the link up', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, bridgeNet({ ipam: {}, isGateway: false }));
  t.deepEqual(one.result!.ips, undefined);
  // The kernel reports the carrier a little later.
  await until('eth0 is up', async () => (await link(one.pod, 'eth0'))?.operstate === 'UP');
  await one.check();
  await one.del();

  const down = await attach(
    host,
    bridgeNet({ ipam: undefined, isGateway: false, disableContainerInterface: true }),
  );
  t.is((await link(down.pod, 'eth0'))?.operstate, 'DOWN');
  await down.check();
});

test('route metrics, priority and table are applied', async (t) => {
  const host = await makeHost(t);
  const one = await attach(
    host,
    bridgeNet({
      ipam: {
        type: 'host-local',
        subnet: '10.5.0.0/24',
        routes: [
          { dst: '0.0.0.0/0', mtu: 1300, advmss: 1200, priority: 77 },
          { dst: '10.99.0.0/16', table: 123 },
        ],
      },
    }),
  );
  const defaultRoute = (await routes(one.pod)).find(({ dst }) => dst === 'default');
  t.is(defaultRoute?.metric, 77);
  t.deepEqual(defaultRoute?.metrics, [{ mtu: 1300, advmss: 1200 }]);
  t.is((await routes(one.pod, 4, '123'))[0]?.dst, '10.99.0.0/16');
  await one.check();
});

test('CHECK finds every drift', async (t) => {
  const host = await makeHost(t);
  const network = bridgeNet({ ipMasq: true, hairpinMode: true });
  const drifts: [RegExp, (one: Attachment) => Promise<unknown>][] = [
    [/has no address/, (one) => one.pod.run(['ip', 'addr', 'flush', 'dev', 'eth0'])],
    [/is down/, (one) => one.pod.run(['ip', 'link', 'set', 'eth0', 'down'])],
    [/no route to 0\.0\.0\.0\/0/, (one) => one.pod.run(['ip', 'route', 'del', 'default'])],
    [/MAC address/, (one) => one.pod.run(['ip', 'link', 'set', 'eth0', 'address', '0a:00:00:00:00:01'])],
    [
      /is not a port of bridge/,
      (one) => host.run(['ip', 'link', 'set', one.result!.interfaces![1]!.name, 'nomaster']),
    ],
    [
      /hairpin/,
      (one) =>
        host.run([
          'ip',
          'link',
          'set',
          one.result!.interfaces![1]!.name,
          'type',
          'bridge_slave',
          'hairpin',
          'off',
        ]),
    ],
    [
      /not masqueraded/,
      () =>
        host.run([
          'sh',
          '-c',
          "iptables-save -t nat | sed 's|POSTROUTING -s [^ ]*|POSTROUTING -s 192.0.2.1/32|' | iptables-restore",
        ]),
    ],
    [/not masqueraded/, () => host.run(['iptables', '-t', 'nat', '-F', 'POSTROUTING'])],
    [/No address of network/, () => host.run(['sh', '-c', 'rm /var/lib/cni/networks/net/10.*'])],
    [/missing/, (one) => one.pod.run(['ip', 'link', 'del', 'eth0'])],
    [/Bridge "br0" is missing/, () => host.run(['ip', 'link', 'del', 'br0'])],
  ];
  for (const [message, drift] of drifts) {
    const one = await attach(host, network);
    await one.check();
    await drift(one);
    const outcome = await one.tryCheck();
    t.regex(outcome.error?.msg ?? 'no error', message);
    await one.del();
  }
});

test("DEL removes the host's end of the pair where a process keeps a namespace that has lost its path", async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, bridgeNet());
  const { name } = one.result!.interfaces!.find(({ sandbox, name }) => !sandbox && name.startsWith('veth'))!;
  await one.pod.start(t, ['sh', '-c', 'echo; exec sleep 1000']);
  await one.pod.remove();
  t.truthy(await link(host, name));
  // By its address, it could be somebody else's.
  const { address } = (await link(host, name))!;
  await host.run(['ip', 'link', 'set', name, 'address', '02:00:00:00:00:07']);
  await one.del();
  t.truthy(await link(host, name));
  await host.run(['ip', 'link', 'set', name, 'address', address]);
  await one.del();
  t.is(await link(host, name), undefined);
});

test('a pod whose runtime has turned IPv6 off gets its IPv6 address all the same', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  for (const name of ['all', 'default', 'lo'])
    await pod.run(['sysctl', '-qw', `net.ipv6.conf.${name}.disable_ipv6=1`]);
  const ipam = { type: 'host-local', subnet: 'fd00:5::/64' };
  const network = {
    cniVersion: '1.0.0',
    name: 'net',
    plugins: [{ type: 'bridge', bridge: 'br0', isDefaultGateway: true, ipam }],
  };
  const one = await attach(host, network, { pod });
  t.deepEqual(await addresses(pod, 'eth0'), [`${one.ip}/64`]);
  for (const name of ['lo', 'eth0']) t.is(await sysctl(pod, `net/ipv6/conf/${name}/disable_ipv6`), '0', name);
  await one.check();
});

test('CHECK finds a route that leads to another gateway, or stands in another table', async (t) => {
  const host = await makeHost(t);
  const routed = [
    { dst: '10.98.0.0/16', gw: '10.5.0.9' },
    { dst: '10.99.0.0/16', table: 123 },
  ];
  const one = await attach(
    host,
    bridgeNet({ ipam: { type: 'host-local', subnet: '10.5.0.0/24', routes: routed } }),
  );
  await one.check();
  const drifts: [string[], string[], RegExp][] = [
    [
      ['10.98.0.0/16', 'via', '10.5.0.9'],
      ['10.98.0.0/16', 'via', '10.5.0.8'],
      /no route to 10\.98\.0\.0\/16 via 10\.5\.0\.9/,
    ],
    [
      ['10.99.0.0/16', 'via', '10.5.0.1', 'table', '123'],
      ['10.99.0.0/16', 'via', '10.5.0.1', 'table', '124'],
      /no route to 10\.99\.0\.0\/16/,
    ],
  ];
  for (const [wanted, other, message] of drifts) {
    await one.pod.run(['ip', 'route', 'del', ...wanted]);
    await one.pod.run(['ip', 'route', 'add', ...other]);
    t.regex((await one.tryCheck()).error?.msg ?? '', message);
    await one.pod.run(['ip', 'route', 'append', ...wanted]);
    // An additional route is no drift.
    await one.check();
  }
});

test('a failing ADD leaves nothing: exhausted range, foreign bridge, wrong settings, taken name', async (t) => {
  const host = await makeHost(t);
  await host.run(['ip', 'link', 'add', 'br9', 'type', 'veth', 'peer', 'name', 'br9p']);
  await failsCleanly(t, host, bridgeNet({ bridge: 'br9' }), /kind "veth", not a bridge/);
  await failsCleanly(t, host, bridgeNet({ hairpinMode: true, promiscMode: true }), /both set/);
  await failsCleanly(t, host, bridgeNet({ bridge: 'a-name-of-16byte' }), /a-name-of-16byte/);
  await failsCleanly(t, host, bridgeNet({ ipam: { type: 'none-such' } }), /not in CNI_PATH/);
  await failsCleanly(
    t,
    host,
    bridgeNet({ ipam: { type: 'host-local', subnet: '10.5.0.1/24' } }),
    /host bits/,
  );
  await failsCleanly(t, host, bridgeNet({ mtu: '1400' }), /"mtu" is "1400"/);
  await failsCleanly(t, host, bridgeNet({ vlanTrunk: [{ minID: 5 }] }), /only one of "minID" and "maxID"/);

  const one = await attach(host, bridgeNet());
  const outcome = await new Attachment(
    host,
    one.pod,
    bridgeNet({ ipam: { type: 'host-local', subnet: '10.6.0.0/24' } }),
    {
      containerId: 'second',
    },
  ).tryAdd();
  t.regex(outcome.error?.msg ?? '', /already has an interface "eth0"/);
  t.true(await ping(one.pod, '10.5.0.1'), 'the first attachment still works');
});

test('rules that are refused while addresses are still being checked leave nothing either', async (t) => {
  const host = await makeHost(t);
  await (await attach(host, bridgeNet(dualStack))).del();
  await host.run(['mount', '-t', 'tmpfs', 'tmpfs', '/usr/local/sbin']);
  // It passes a test, but refuses these rules.
  const refusing = '#!/bin/sh\ncase "$*" in *--test*) ;; *) exit 1 ;; esac\n';
  writeFileSync(host.file('/usr/local/sbin/ip6tables-restore'), refusing, { mode: 0o755 });
  const network = bridgeNet({ ...dualStack, enabledad: true });
  await failsCleanly(t, host, network, /ip6tables-restore refused the rules/);
});

test('another address on the bridge is refused, or replaced with forceAddress', async (t) => {
  const host = await makeHost(t);
  await (await attach(host, bridgeNet())).del();
  const other = { type: 'host-local', subnet: '10.7.0.0/24' };
  const pod = await host.addPod();
  const refused = await new Attachment(host, pod, bridgeNet({ ipam: other })).tryAdd();
  t.regex(refused.error?.msg ?? '', /has address 10\.5\.0\.1\/24, but should have 10\.7\.0\.1\/24/);
  await attach(host, bridgeNet({ ipam: other, forceAddress: true }), { pod });
  t.deepEqual(await addresses(host, 'br0'), ['10.7.0.1/24']);
});

test('GC removes what no valid attachment owns, in this network only', async (t) => {
  const host = await makeHost(t);
  const network = bridgeNet({ ipMasq: true });
  const other = {
    ...bridgeNet({ ipMasq: true, bridge: 'br1', ipam: { type: 'host-local', subnet: '10.6.0.0/24' } }),
    name: 'other',
  };
  const [kept, stale, foreign] = [
    await attach(host, network),
    await attach(host, network),
    await attach(host, other),
  ];
  const chains = async () => (await iptablesSave(host)).filter((rule) => /^-A POSTROUTING/.test(rule)).length;
  const reserved = async (net: string) =>
    (await host.run(['ls', `/var/lib/cni/networks/${net}`]))
      .split('\n')
      .filter((name) => name.startsWith('10.'))
      .sort();

  t.is((await runNetworkVerb(host, network, 'GC')).exit, 0);
  t.is((await runNetworkVerb(host, network, 'GC', { valid: null })).exit, 0);
  t.is(await chains(), 3, 'without a list nothing is collected');

  await stale.pod.remove();
  const valid = [{ containerID: kept.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, network, 'GC', { valid })).exit, 0);
  t.is(await chains(), 2);
  t.deepEqual(await reserved('net'), [kept.ip]);
  t.deepEqual(await reserved('other'), [foreign.ip]);
  await kept.check();

  t.is((await runNetworkVerb(host, network, 'GC', { valid: [] })).exit, 0);
  t.deepEqual(await reserved('net'), []);
  t.is(await chains(), 1);
});

test('STATUS tells when ADD cannot work, and a full range is none of that', async (t) => {
  const host = await makeHost(t);
  const tiny = bridgeNet({ ipMasq: true, ipam: { type: 'host-local', subnet: '10.5.0.0/30' } });
  t.is((await runNetworkVerb(host, tiny, 'STATUS')).exit, 0);
  await attach(host, tiny);
  const full = await runNetworkVerb(host, tiny, 'STATUS');
  t.is(full.exit, 0);
  t.regex(full.stderr, /10\.5\.0\.1-10\.5\.0\.2/);
  await host.run(['sh', '-c', 'mount -t tmpfs -o ro tmpfs /var/lib/cni']);
  t.is((await runNetworkVerb(host, tiny, 'STATUS')).error?.code, 50);
});

test('twenty pods at once', async (t) => {
  const host = await makeHost(t);
  const network = bridgeNet({ ipMasq: true });
  const all = await Promise.all(Array.from({ length: 20 }, () => attach(host, network)));
  t.is(new Set(all.map(({ ip }) => ip)).size, 20);
  t.true(await ping(all[0]!.pod, all[19]!.ip));
  await Promise.all(all.map((one) => one.del()));
  t.deepEqual(
    (await iptablesSave(host)).filter((rule) => /CNI-/.test(rule)),
    [],
  );
});

test('the sample networks connect pods', async (t) => {
  for (const name of ['10-bridge.conflist', '30-dual-stack.conflist']) {
    const host = await makeHost(t);
    const network = sample(name);
    network.plugins = network.plugins.filter(({ type }) => type === 'bridge');
    const one = await attach(host, network);
    const two = await attach(host, network);
    t.true(await ping(one.pod, two.ip));
    await one.check();
  }
});

test('the address is announced, so that nobody goes on sending to who had it before', async (t) => {
  const host = await makeHost(t);
  const network = bridgeNet(dualStack);
  const other = await attach(host, network);
  // Everything that is announced on the bridge, as the pod beside hears it.
  const heard = spawn(
    other.pod.enter[0]!,
    [...other.pod.enter.slice(1), 'tcpdump', '-lnni', 'eth0', 'arp or icmp6'],
    { env: cleanEnv },
  );
  t.teardown(() => void heard.kill('SIGKILL'));
  let text = '';
  heard.stdout.on('data', (part: Buffer) => {
    text += part.toString();
  });
  await once(heard.stderr, 'data');
  const one = await attach(host, network);
  const v6 = one.result!.ips![1]!.address.split('/')[0]!;
  await until('both are announced', () => text.includes(`tell ${one.ip}`) && text.includes(`tgt is ${v6}`));
  t.regex(
    text,
    new RegExp(`who-has ${one.ip.replaceAll('.', '\\.')} .*tell ${one.ip.replaceAll('.', '\\.')}`),
  );
  t.regex(text, new RegExp(`neighbor advertisement, tgt is ${v6}`));
});

test('without iptables: nftables serves, unless the configuration insists', async (t) => {
  const host = await makeHost(t);
  await host.run(['mount', '-t', 'tmpfs', 'tmpfs', '/usr/sbin']);
  const one = await attach(host, bridgeNet(dualStack));
  await one.check();
  await one.del();
  const insisting = bridgeNet({ ...dualStack, ipMasqBackend: 'iptables' });
  t.is((await runNetworkVerb(host, bridgeNet(dualStack), 'STATUS')).exit, 0);
  const status = await runNetworkVerb(host, insisting, 'STATUS');
  t.is(status.error?.code, 50);
  t.regex(status.error?.msg ?? '', /not installed\. Install the package "iptables"/);
  const pod = await host.addPod();
  t.regex(
    (await new Attachment(host, pod, insisting).tryAdd()).error?.msg ?? '',
    /Install the package "iptables"/,
  );
  t.is(await link(pod, 'eth0'), undefined);
});

const macOf = async (host: Host) => (await link(host, 'br0'))!.address;

test('a bridge that has lost its last port, and with it its MAC address, takes a gateway again', async (t) => {
  const host = await makeHost(t);
  const flat = bridgeNet({ isGateway: false, ipam: undefined });
  for (const prepare of [
    async () => (await attach(host, flat)).del(),
    () => host.run(['ip', 'link', 'add', 'br0', 'type', 'bridge']),
    async () => {
      await new Attachment(
        host,
        await host.addPod(),
        bridgeNet({ ipam: { type: 'static', addresses: [{ address: '10.5.0.0/33' }] } }),
      ).tryAdd();
    },
  ]) {
    await prepare();
    const one = await attach(host, bridgeNet());
    t.not(await macOf(host), '00:00:00:00:00:00');
    t.is(one.result!.interfaces![0]!.mac, await macOf(host));
    t.true(await ping(one.pod, '10.5.0.1'));
    await one.del();
    await host.run(['ip', 'link', 'del', 'br0']);
  }
});

test('a bridge with null MAC address is given one where its gateway is added', async (t) => {
  const host = await makeHost(t);
  await (await attach(host, bridgeNet())).del();
  const before = await macOf(host);
  const one = await attach(host, bridgeNet());
  t.is(
    await macOf(host),
    before,
    'pinned from the first gateway ADD on, though the bridge was without ports',
  );
  await one.del();
});

test('the MAC address of a bridge stays when the pod that came first goes', async (t) => {
  const host = await makeHost(t);
  // An earlier network without a gateway must not keep the bridge's MAC address from being pinned.
  await (await attach(host, bridgeNet({ isGateway: false, ipam: undefined }))).del();
  const pods = [
    await attach(host, bridgeNet()),
    await attach(host, bridgeNet()),
    await attach(host, bridgeNet()),
  ];
  const before = await macOf(host);
  for (const pod of pods.slice(0, 2)) {
    await pod.del();
    t.is(await macOf(host), before);
  }
  t.true(await ping(pods[2]!.pod, '10.5.0.1'));
});

test('the MAC address of a bridge stays though an administrator has added the gateway address', async (t) => {
  const host = await makeHost(t);
  await host.run('ip link add br0 type bridge'.split(' '));
  await host.run('ip address add 10.5.0.1/24 dev br0'.split(' '));
  const first = await attach(host, bridgeNet());
  const second = await attach(host, bridgeNet());
  const before = await macOf(host);
  await first.del();
  t.is(await macOf(host), before);
  await second.del();
  t.is(await macOf(host), before);
});

test('the next pod does not have the bridge forget its neighbours', async (t) => {
  const host = await makeHost(t);
  await attach(host, bridgeNet());
  await host.run('ip neigh add 10.5.0.77 lladdr 02:00:00:00:00:77 nud permanent dev br0'.split(' '));
  await attach(host, bridgeNet());
  t.regex(await host.run('ip neigh show dev br0'.split(' ')), /^10\.5\.0\.77 .*PERMANENT/m);
});

test('DEL does without values that ADD refuses', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, bridgeNet());
  const [plugin] = one.network.plugins;
  for (const keys of [{ mtu: -1 }, { mtu: 70_000 }, { ipMasqBackend: 'pf' }]) {
    const wrong = { ...one.network, plugins: [{ ...plugin!, ...keys }] };
    const refused = new Attachment(host, await host.addPod(), wrong);
    t.is((await refused.tryAdd()).error?.code, 999);
    const outcome = await refused.tryDel();
    t.is(outcome.exit, 0, JSON.stringify(keys));
    t.regex(outcome.stderr, new RegExp(`Going on without "${Object.keys(keys)[0]}"`));
  }
  const living = new Attachment(host, one.pod, { ...one.network, plugins: [{ ...plugin!, mtu: -1 }] });
  living.result = one.result;
  await living.del();
  const left = await links(host);
  t.false(left.some(({ ifname }) => ifname.startsWith('veth')));
  const reservations = Object.keys(files(host, '/var/lib/cni/networks/net'));
  t.deepEqual(
    reservations.filter((file) => file.includes('10.5.0.')),
    [],
  );
});

test('the result names the MAC address that the bridge has once the port is on it', async (t) => {
  const host = await makeHost(t);
  for (const keys of [{}, { disableContainerInterface: true, isGateway: false, ipam: undefined }]) {
    const one = await attach(host, bridgeNet(keys));
    t.is(one.result!.interfaces![0]!.mac, await macOf(host));
    await one.check();
    await one.del();
    await host.run(['ip', 'link', 'del', 'br0']);
  }
});

test('lists of "dns" override those of the IPAM plugin even when they are empty', async (t) => {
  const host = await makeHost(t);
  const ipam = {
    type: 'static',
    addresses: [{ address: '10.5.0.9/24' }],
    dns: { nameservers: ['10.5.0.53'], search: ['example.net'] },
  };
  const dnsOf = async (dns?: object) => {
    const one = await attach(host, bridgeNet({ ipam, ...(dns && { dns }) }));
    await one.del();
    return one.result!.dns;
  };
  t.deepEqual(await dnsOf(), ipam.dns);
  t.deepEqual(await dnsOf({}), ipam.dns);
  t.is(await dnsOf({ nameservers: [] }), undefined);
  t.deepEqual(await dnsOf({ nameservers: [], domain: 'example.org' }), { domain: 'example.org' });
});

test('a default route of the IPAM plugin without gateway is the only one beside isDefaultGateway', async (t) => {
  const host = await makeHost(t);
  const ipam = { type: 'host-local', subnet: '10.5.0.0/24', routes: [{ dst: '0.0.0.0/0' }] };
  const one = await attach(host, bridgeNet({ isDefaultGateway: true, ipam }));
  const defaults = (await routes(one.pod)).filter(({ dst }) => dst === 'default');
  t.deepEqual(
    defaults.map(({ gateway }) => gateway),
    ['10.5.0.1'],
  );
  t.is(one.result!.routes!.filter(({ dst }) => dst === '0.0.0.0/0').length, 1);
  await one.check();
});

test('the bridge of the default route is a gateway, also where "isGateway" is false', async (t) => {
  const { host, cni, add } = await operatorOf(t, [
    {
      type: 'bridge',
      bridge: 'br0',
      isGateway: false,
      isDefaultGateway: true,
      ipam: { type: 'host-local', subnet: '10.5.0.0/24' },
    },
  ]);
  const pod = await add();
  t.is((await routes(pod)).find(({ dst }) => dst === 'default')?.gateway, '10.5.0.1');
  t.deepEqual(await addresses(host, 'br0'), ['10.5.0.1/24']);
  t.true(await ping(pod, '10.5.0.1'));
  await host.run(['ip', 'address', 'flush', 'dev', 'br0']);
  t.regex(await cni(['repair']), /address 10\.5\.0\.1\/24/);
  t.true(await ping(pod, '10.5.0.1'));
});

test('a bridge is a gateway, and the one of the default route, only where it is to be', async (t) => {
  const host = await makeHost(t);
  const ipam = { type: 'host-local', subnet: '10.5.0.0/24' };
  const plain = await attach(host, bridgeNet({ isGateway: undefined, ipam }));
  t.deepEqual(await addresses(host, 'br0'), []);
  const served = await attach(host, bridgeNet({ ipam }));
  t.deepEqual(await addresses(host, 'br0'), ['10.5.0.1/24']);
  for (const { pod, result } of [plain, served]) {
    t.deepEqual(result!.routes ?? [], []);
    t.deepEqual(
      (await routes(pod)).map(({ dst }) => dst),
      ['10.5.0.0/24'],
    );
  }
});

test('an interface name for which the kernel would choose another one is refused', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  const before = await links(pod);
  const { error } = await new Attachment(host, pod, bridgeNet(), { ifname: 'eth%d' }).tryAdd();
  t.is(error?.code, 4);
  t.regex(error!.msg, /contains "%"/);
  t.deepEqual(await links(pod), before);
});

test('plugins that delegate in a circle are refused with code 7, and nothing is left', async (t) => {
  const host = await makeHost(t);
  for (const type of ['bridge', 'ptp', 'macvlan']) {
    const pod = await host.addPod();
    const network = { cniVersion: '1.1.0', name: 'net', plugins: [{ type, ipam: { type } }] };
    const before = await snapshot(host);
    const outcome = await new Attachment(host, pod, network).tryAdd();
    t.true([7, 999].includes(outcome.error!.code), outcome.stdout);
    t.deepEqual(await snapshot(host), before);
    t.is((await new Attachment(host, pod, network).tryDel()).error?.code, 7);
  }
});

test('a route on the link leads by no gateway, as DHCP servers ask for it with router 0.0.0.0', async (t) => {
  const host = await makeHost(t);
  const own = ['203.0.113.0/24', 'fd12::/48'].map((dst) => ({ dst, scope: 253 }));
  const ranges = [[{ subnet: '10.5.0.0/24' }], [{ subnet: 'fd00:5::/64' }]];
  const ipam = { type: 'host-local', ranges, routes: own };
  const one = await attach(host, bridgeNet({ isDefaultGateway: true, ipam }));
  const found = (await routes(one.pod)).map(({ dst, gateway }) => [dst, gateway]);
  t.deepEqual(found.sort(), [
    ['10.5.0.0/24', undefined],
    ['203.0.113.0/24', undefined],
    ['default', '10.5.0.1'],
  ]);
  // IPv6 routes have no scopes.
  t.regex(await one.pod.run('ip -6 route show fd12::/48'.split(' ')), /via fd00:5::1 dev eth0/);
  await one.check();
  await one.pod.run('ip route del 203.0.113.0/24'.split(' '));
  t.regex((await one.tryCheck()).error!.msg, /ip route add 203\.0\.113\.0\/24 dev eth0"$/);
});
