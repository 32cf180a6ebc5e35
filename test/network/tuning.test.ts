/** tuning: kernel settings and properties of the interface, set by ADD and put back by DEL. */

import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  Attachment,
  attach,
  type Conflist,
  type PluginConf,
  runNetworkVerb,
  sample,
} from '../support/chain.ts';
import { type Host, makeHost, makeHostWithDevices, type Pod } from '../support/host.ts';
import * as observe from '../support/observe.ts';
import { runPlugin } from '../support/plugin.ts';

const network = sample('50-tuning.conflist');

/** The sample with other keys for tuning. */
function tuned(keys: object, cniVersion = '1.1.0'): Conflist {
  return { ...network, cniVersion, plugins: [network.plugins[0]!, { type: 'tuning', ...keys }] };
}

/** A pod that is attached to the sample's first plugin alone, and the attachment with tuning to try on it. */
async function prepare(
  t: ExecutionContext,
  keys: object,
): Promise<{ host: Host; pod: Pod; tuning: Attachment }> {
  const host = await makeHost(t);
  const plain = await attach(host, { ...network, cniVersion: '1.1.0', plugins: [network.plugins[0]!] });
  const only = {
    ...network,
    cniVersion: '1.1.0',
    plugins: [{ type: 'tuning', prevResult: plain.result, ...keys }],
  };
  return { host, pod: plain.pod, tuning: new Attachment(host, plain.pod, only) };
}

/** What tuning sets of the pod's interface, as `ip` shows it. */
async function properties(pod: Pod): Promise<object> {
  const { address, mtu, flags, ...rest } = (await observe.link(pod, 'eth0'))!;
  return {
    mac: address,
    mtu,
    promisc: flags.includes('PROMISC'),
    allmulti: flags.includes('ALLMULTI'),
    txQLen: (rest as { txqlen?: number }).txqlen,
  };
}

function backups(host: Host): string[] {
  return Object.keys(observe.files(host, '/run/cni/tuning'));
}

test('the sample sets everything, CHECK agrees, and DEL puts it back', async (t) => {
  const host = await makeHost(t);
  const attachment = await attach(host, network, { capabilities: { mac: '02:11:22:33:44:55' } });
  const { pod, result } = attachment;

  t.deepEqual(await properties(pod), {
    mac: '02:11:22:33:44:55',
    mtu: 1400,
    promisc: true,
    allmulti: true,
    txQLen: 555,
  });
  t.is(await observe.sysctl(pod, 'net/core/somaxconn'), '500');
  t.is(await observe.sysctl(pod, 'net/ipv4/conf/eth0/arp_filter'), '1');
  t.is(result!.interfaces!.find(({ name }) => name === 'eth0')?.mac, '02:11:22:33:44:55');
  t.true(await observe.ping(host, attachment.ip));

  const [file] = backups(host);
  t.is(file, `/run/cni/tuning/${pod.containerId}_eth0.json`);
  t.is(statSync(host.file(file!)).mode & 0o777, 0o600);
  await attachment.check();
  await attachment.del();
  t.deepEqual(backups(host), []);
});

test('DEL of tuning alone puts every value back', async (t) => {
  const { tuning, pod, host } = await prepare(t, { ...network.plugins[1] });
  const somaxconn = await observe.sysctl(pod, 'net/core/somaxconn');
  const before = await properties(pod);
  await tuning.add({ capabilities: { mac: '02:11:22:33:44:55' } });
  t.notDeepEqual(await properties(pod), before);
  await tuning.del();
  t.deepEqual(await properties(pod), before);
  t.is(await observe.sysctl(pod, 'net/core/somaxconn'), somaxconn);
  t.is(await observe.sysctl(pod, 'net/ipv4/conf/eth0/arp_filter'), '0');
  await tuning.del();
  t.deepEqual(backups(host), []);
});

test('a chain that tunes twice puts back what was before the first time', async (t) => {
  const { tuning, pod } = await prepare(t, { mtu: 1400, sysctl: { 'net.core.somaxconn': '500' } });
  const again = new Attachment(tuning.host, pod, {
    ...tuning.network,
    plugins: [{ ...tuning.network.plugins[0]!, mtu: 1300, txQLen: 99 }],
  });
  const somaxconn = await observe.sysctl(pod, 'net/core/somaxconn');
  const before = await properties(pod);
  await tuning.add();
  await again.add();
  await again.del();
  t.deepEqual(await properties(pod), before);
  t.is(await observe.sysctl(pod, 'net/core/somaxconn'), somaxconn);
});

test('a setting that two attachments of a sandbox share goes with the last of them', async (t) => {
  const setting = 'net/ipv4/conf/all/arp_ignore';
  const keys = { sysctl: { 'net.ipv4.conf.all.arp_ignore': '1', 'net.ipv4.conf.IFNAME.arp_ignore': '2' } };
  for (const firstGoes of [true, false]) {
    const host = await makeHost(t);
    const shared = { ...network, plugins: [{ type: 'bridge' }, { type: 'tuning', ...keys }] };
    const one = await attach(host, shared);
    const { pod } = one;
    const two = await attach(host, { ...shared, name: 'second' }, { pod, ifname: 'eth1' });
    const [first, last] = firstGoes ? [one, two] : [two, one];
    await first.del();
    t.is(await observe.sysctl(pod, setting), '1');
    await last.check();
    await last.del();
    t.is(await observe.sysctl(pod, setting), '0');
    t.deepEqual(backups(host), []);
  }
});

test('a setting that cannot be read before it is set is set', async (t) => {
  const secret = '2001:0db8:0000:0000:0000:0000:0000:0001';
  const { tuning, pod } = await prepare(t, { sysctl: { 'net.ipv6.conf.IFNAME.stable_secret': secret } });
  await tuning.add();
  t.is(await observe.sysctl(pod, 'net/ipv6/conf/eth0/stable_secret'), secret);
  await tuning.check();
  await tuning.del();
});

test('a setting that can only be written is written', async (t) => {
  const { tuning } = await prepare(t, { sysctl: { 'net.ipv4.route.flush': '1' } });
  await tuning.add();
  await t.notThrowsAsync(tuning.check());
  await tuning.del();
});

test('the runtime has a say, and "args" the last word', async (t) => {
  const { tuning, pod } = await prepare(t, {
    mac: '02:00:00:00:00:01',
    mtu: 1400,
    capabilities: { mac: true },
  });
  const mac = async () => (await observe.link(pod, 'eth0'))?.address;
  await tuning.add();
  t.is(await mac(), '02:00:00:00:00:01');
  await tuning.add({ args: 'IgnoreUnknown=1;K8S_POD_NAME=web;MAC=02:00:00:00:00:02' });
  t.is(await mac(), '02:00:00:00:00:02');
  await tuning.add({ args: 'MAC=02:00:00:00:00:02', capabilities: { mac: '02:00:00:00:00:03' } });
  t.is(await mac(), '02:00:00:00:00:03');

  const withArgs = new Attachment(tuning.host, pod, {
    ...tuning.network,
    args: { cni: { mac: '02-00-00-00-00-0A' } },
    plugins: [
      {
        ...tuning.network.plugins[0]!,
        args: { cni: { mac: '02-00-00-00-00-0A', mtu: 1300, sysctl: { 'net.core.somaxconn': '77' } } },
      },
    ],
  });
  const result = await withArgs.add({ capabilities: { mac: '02:00:00:00:00:03' } });
  t.is(await mac(), '02:00:00:00:00:0a');
  t.is(result.interfaces!.at(-1)!.mac, '02:00:00:00:00:0a');
  t.is((await observe.link(pod, 'eth0'))?.mtu, 1300);
  t.is(await observe.sysctl(pod, 'net/core/somaxconn'), '77');

  // "" and 0 ask for nothing, too.
  await pod.run('ip link set eth0 address 02:00:00:00:00:0b mtu 1290'.split(' '));
  const [plugin] = tuning.network.plugins;
  const cleared = { ...tuning.network, plugins: [{ ...plugin!, args: { cni: { mac: '', mtu: 0 } } }] };
  await new Attachment(tuning.host, pod, cleared).add();
  t.is(await mac(), '02:00:00:00:00:0b');
  t.is((await observe.link(pod, 'eth0'))?.mtu, 1290);
});

test('IFNAME stands for an interface with a dot in its name', async (t) => {
  const host = await makeHost(t);
  const { pod } = await attach(host, tuned({ sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' } }), {
    ifname: 'eth0.100',
  });
  t.is(await observe.sysctl(pod, 'net/ipv4/conf/eth0.100/arp_filter'), '1');
});

for (const [what, keys, drift, pattern] of [
  [
    'a kernel setting',
    {},
    ['sysctl', '-qw', 'net.core.somaxconn=3'],
    /"net.core.somaxconn" is "3", but should be "500"/,
  ],
  ['the MTU', {}, ['ip', 'link', 'set', 'eth0', 'mtu', '1399'], /"mtu" .* 1399, but should be 1400/],
  ['promiscuous mode', {}, ['ip', 'link', 'set', 'eth0', 'promisc', 'off'], /"promisc"/],
  ['reception of multicast', {}, ['ip', 'link', 'set', 'eth0', 'allmulticast', 'off'], /"allmulti"/],
  ['the queue length', {}, ['ip', 'link', 'set', 'eth0', 'txqueuelen', '7'], /"txQLen"/],
  [
    'the MAC address',
    { mac: '02:00:00:00:00:01' },
    ['ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:00:02'],
    /"mac"/,
  ],
] as const)
  test(`CHECK finds ${what} changed`, async (t) => {
    const { tuning, pod } = await prepare(t, { ...network.plugins[1], ...keys });
    await tuning.add();
    await tuning.check();
    await pod.run(drift);
    t.regex((await tuning.tryCheck()).error!.msg, pattern);
  });

test('CHECK does not mind how the kernel separates numbers', async (t) => {
  const { tuning } = await prepare(t, { sysctl: { 'net.ipv4.ip_local_port_range': '20000 30000' } });
  await tuning.add();
  await t.notThrowsAsync(tuning.check());
});

for (const [what, keys, pattern] of [
  ['a setting outside "net"', { sysctl: { 'kernel.hostname': 'x' } }, /only settings that begin with "net/],
  ['a path that climbs', { sysctl: { 'net/../kernel/hostname': 'x' } }, /not the name of a kernel setting/],
  [
    'a setting of the whole host',
    { sysctl: { 'net.core.rmem_max': '9' } },
    /[Kk]ernel setting "net[./]core[./]rmem_max"/,
  ],
  [
    'a setting that does not exist',
    { sysctl: { 'net.ipv4.nonsense': '1' } },
    /does not exist in the sandbox/,
  ],
  [
    'a value that the kernel refuses',
    { sysctl: { 'net.core.somaxconn': 'many' } },
    /Cannot set kernel setting/,
  ],
  ['a value that is no string', { sysctl: { 'net.core.somaxconn': 5 } }, /must be a string/],
  ['a MAC address with a typo', { mac: '02:00:00:00:00' }, /not a valid MAC address/],
  ['a MAC address for groups', { mac: '01:00:5e:00:00:01' }, /Cannot set MAC address/],
  ['an MTU below what the kernel takes', { mtu: 1 }, /Cannot set MTU 1 .*the kernel does not accept MTU 1: /],
  [
    'an MTU above what the kernel takes',
    { mtu: 70000 },
    /Cannot set MTU 70000 .*the kernel does not accept MTU 70000: /,
  ],
  ['a negative queue length', { txQLen: -1 }, /between 0 and/],
  ['a data directory that is a device', { mtu: 1300, dataDir: '/dev/null' }, /Cannot save.*"dataDir"/],
] as const)
  test(`ADD refuses ${what}, and changes nothing`, async (t) => {
    const { tuning, pod, host } = await prepare(t, keys);
    // Along with settings that could be made.
    const plugin = tuning.network.plugins[0]! as { sysctl?: object };
    plugin.sysctl = { 'net.ipv4.conf.IFNAME.arp_filter': '1', ...plugin.sysctl };
    Object.assign(plugin, { allmulti: true });
    const before = await properties(pod);
    const { error } = await tuning.tryAdd();
    t.is(error?.code, 'dataDir' in keys ? 5 : 999);
    t.regex(error!.msg, pattern);
    t.deepEqual(await properties(pod), before);
    t.is(await observe.sysctl(pod, 'net/ipv4/conf/eth0/arp_filter'), '0');
    t.deepEqual(backups(host), []);
  });

test('the list of the administrator is obeyed, and what is wrong with it is told', async (t) => {
  const { tuning, host } = await prepare(t, { sysctl: { 'net.core.somaxconn': '5' } });
  mkdirSync(host.file('/etc/cni/tuning'));
  const allow = (lines: string) => writeFileSync(host.file('/etc/cni/tuning/allowlist.conf'), lines);
  allow('^net\\.ipv4\\.\n\n');
  t.regex((await tuning.tryAdd()).error!.msg, /"net.core.somaxconn" is not allowed/);
  t.is((await runNetworkVerb(host, tuning.network, 'STATUS')).error?.code, 50);
  allow('[\n');
  t.regex((await tuning.tryAdd()).error!.msg, /has "\[" in it: that is not a regular expression/);
  // Regular expressions of Go that have no meaning, or another one, in JavaScript.
  for (const line of [
    '\\A(?i)NET\\.core',
    '^net[[:punct:]]core',
    '(?P<all>core)',
    '\\Qnet.core\\E',
    'somaxconn$',
  ]) {
    allow(`# (see the manual\n${line}\n`);
    await tuning.add();
    await tuning.check();
    await tuning.del();
  }
  for (const line of ['net(?=.core)', '^[[:alpha:]]+$', '\\QnetXcore\\E']) {
    allow(line);
    t.regex((await tuning.tryAdd()).error!.msg, /is not allowed/, line);
  }
  const [plugin] = tuning.network.plugins;
  const another = { ...tuning.network, plugins: [{ ...plugin!, sysctl: undefined, mtu: 1300 }] };
  await new Attachment(host, tuning.pod, another).add();
  allow('somaxconn\n');
  t.is((await runNetworkVerb(host, tuning.network, 'STATUS')).exit, 0);
});

test('CHECK does not mind a list that the administrator has tightened since', async (t) => {
  const { tuning, host } = await prepare(t, { sysctl: { 'net.core.somaxconn': '5' } });
  await tuning.add();
  mkdirSync(host.file('/etc/cni/tuning'));
  writeFileSync(host.file('/etc/cni/tuning/allowlist.conf'), '^net\\.ipv4\\.\n');
  t.is((await tuning.tryCheck()).exit, 0);
});

test('a kernel setting that is there twice is refused', async (t) => {
  const { host, pod } = await prepare(t, {});
  const config =
    '{"cniVersion":"1.1.0","name":"n","type":"tuning","sysctl":{"net.a":"1","net.b":"1","net.a":"2"},"prevResult":{}}';
  const { error } = await runPlugin(host, 'tuning', 'ADD', { pod, config });
  t.regex(error!.msg, /"sysctl" has "net.a" twice/);
});

test('without a result to work on, ADD says where tuning belongs', async (t) => {
  const host = await makeHost(t);
  const only = { ...network, plugins: [network.plugins[1]!] };
  const { error } = await new Attachment(host, await host.addPod(), only).tryAdd();
  t.regex(error!.msg, /no "prevResult".*conflist/s);
});

test('DEL succeeds when interface, sandbox, backup or all of them are gone', async (t) => {
  const { tuning, pod, host } = await prepare(t, { mtu: 1300 });
  await tuning.add();
  await pod.run(['ip', 'link', 'delete', 'eth0']);
  await tuning.del();
  t.deepEqual(backups(host), []);
  await tuning.del();

  const other = await prepare(t, { mtu: 1300 });
  await other.tuning.add();
  await other.pod.remove();
  await other.tuning.del();
  t.deepEqual(backups(other.host), []);
  await other.tuning.del({ netns: '' });
});

test('DEL passes over a value that the interface cannot have any more, and releases the pod', async (t) => {
  const host = await makeHostWithDevices(t);
  const ipam = { type: 'host-local', subnet: '10.6.0.0/24' };
  const one = await attach(host, {
    ...{ cniVersion: '1.1.0', name: 'lowered' },
    plugins: [
      { type: 'macvlan', master: 'up0', ipam },
      { type: 'tuning', mtu: 1400, promisc: true },
    ],
  });
  await host.run('ip link set up0 mtu 1200'.split(' '));
  const { exit, stderr } = await one.tryDel();
  t.is(exit, 0, stderr);
  t.deepEqual(backups(host), []);
});

test('DEL overlooks a backup that a crash tore', async (t) => {
  const { tuning, host } = await prepare(t, { mtu: 1300 });
  await tuning.add();
  writeFileSync(host.file(backups(host)[0]!), '{"mtu": 1');
  await tuning.del();
  t.deepEqual(backups(host), []);
});

test('GC removes what no valid attachment of this network owns', async (t) => {
  const host = await makeHost(t);
  const net = tuned({ mtu: 1300 });
  const [stale, kept] = [await attach(host, net), await attach(host, net)];
  const [ptp, ...others] = net.plugins as [PluginConf, ...PluginConf[]];
  const elsewhere = { ...ptp, ipam: { type: 'host-local', subnet: '10.191.0.0/24' } };
  const foreign = await attach(host, { ...net, name: 'other', plugins: [elsewhere, ...others] });
  const valid = [{ containerID: kept.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, net, 'GC', { valid })).exit, 0);
  t.deepEqual(
    backups(host).sort(),
    [kept, foreign].map(({ pod }) => `/run/cni/tuning/${pod.containerId}_eth0.json`).sort(),
  );
  t.truthy(stale.result);
});

test('what is backed up is what the reference plugin backs up, in its format, with whose it is and of when', async (t) => {
  const keys = { mtu: 1300, promisc: true, allmulti: true, txQLen: 5, mac: '02:00:00:00:00:01' };
  const { tuning, host, pod } = await prepare(t, keys);
  const { address } = (await observe.link(pod, 'eth0'))!;
  await tuning.add();
  const text = readFileSync(host.file(backups(host)[0]!), 'utf8');
  const boot = (await host.run(['cat', '/proc/sys/kernel/random/boot_id'])).trim();
  const settings = `"mac": "${address}",\n "promisc": false,\n "mtu": 1500,\n "allmulti": false,\n "txQLen": 1000`;
  t.is(text, `{\n ${settings},\n "network": "tunednet",\n "boot": "${boot}"\n}`);
});

test('GC removes torn backups that have settled, and nothing that is not ours', async (t) => {
  const { tuning, host } = await prepare(t, { mtu: 1300 });
  await tuning.add();
  const [own] = backups(host);
  const directory = dirname(own!);
  const old = new Date(Date.now() - 120_000);
  const write = (name: string, text: string, time = old) => {
    writeFileSync(host.file(`${directory}/${name}`), text);
    utimesSync(host.file(`${directory}/${name}`), time, time);
  };
  // Torn ones: empty, truncated, zeros, and a temporary file.
  for (const [name, text] of [
    ['c1_eth0.json', ''],
    ['c2_eth0.json', '{"mtu": 1'],
    ['c3_eth0.json', '\0\0\0\0'],
    ['c4_eth0.json.123.tmp', '{}'],
  ] as const)
    write(name, text);
  // Others: one that is being written, one of the reference plugin, and what never was a backup.
  const others = ['c5_eth0.json', 'c6_eth0.json', 'c7_eth0.json', 'notes.json', 'c8_eth0.txt'];
  write('c5_eth0.json', '{"mtu": 1', new Date());
  write('c6_eth0.json', '{"mtu":1500}');
  write('c7_eth0.json', 'a list of things to do');
  write('notes.json', '');
  write('c8_eth0.txt', '');
  const target = host.file('/run/cni/precious');
  writeFileSync(target, '');
  symlinkSync(target, host.file(`${directory}/c9_eth0.json`));
  t.is((await runNetworkVerb(host, { ...tuning.network, name: 'other' }, 'GC', { valid: [] })).exit, 0);
  const left = [own, ...[...others, 'c9_eth0.json'].map((name) => `${directory}/${name}`)];
  t.deepEqual(readdirSync(host.file(directory)).sort(), left.map((file) => basename(file!)).sort());
  t.is(readFileSync(target, 'utf8'), '');
});

test('a backup that is a link is neither followed nor written through', async (t) => {
  const { tuning, pod, host } = await prepare(t, { mtu: 1300 });
  const file = host.file(`/run/cni/tuning/${pod.containerId}_eth0.json`);
  const target = host.file('/run/cni/precious');
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(target, '{"mtu": 1234}');
  symlinkSync(target, file);
  await tuning.add();
  t.true(lstatSync(file).isFile());
  rmSync(file);
  symlinkSync(target, file);
  await tuning.del();
  t.is((await observe.link(pod, 'eth0'))?.mtu, 1300, 'what the link leads to was not restored');
  t.is(readFileSync(target, 'utf8'), '{"mtu": 1234}');
  t.false(existsSync(file));
});

test('DEL does with a foreign backup what it can', async (t) => {
  const { tuning, pod, host } = await prepare(t, { mtu: 1300 });
  await tuning.add();
  const sysctl = { 'net/../kernel/hostname': 'x', 'kernel.hostname': 'y', 'net.core.somaxconn': '55' };
  writeFileSync(host.file(backups(host)[0]!), JSON.stringify({ mac: 'zz', mtu: 1400, sysctl }));
  await tuning.del();
  t.is((await observe.link(pod, 'eth0'))?.mtu, 1400);
  t.is(await observe.sysctl(pod, 'net/core/somaxconn'), '55');
  t.deepEqual(backups(host), []);
});

test('a second ADD that fails leaves the settings of the living attachment, and its backup', async (t) => {
  const { tuning, pod, host } = await prepare(t, { ...network.plugins[1] });
  await tuning.add();
  const before = [await properties(pod), await observe.sysctl(pod, 'net/core/somaxconn')];
  const backup = readFileSync(host.file(backups(host)[0]!), 'utf8');
  const again = new Attachment(host, pod, {
    ...tuning.network,
    plugins: [{ ...tuning.network.plugins[0]!, mtu: 20, sysctl: { 'net.core.somaxconn': '600' } }],
  });
  t.regex((await again.tryAdd()).error!.msg, /the kernel does not accept MTU 20/);
  t.deepEqual([await properties(pod), await observe.sysctl(pod, 'net/core/somaxconn')], before);
  t.deepEqual(JSON.parse(readFileSync(host.file(backups(host)[0]!), 'utf8')), JSON.parse(backup));
  await tuning.check();
  await tuning.del();
});
