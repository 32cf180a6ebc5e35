/** flannel, on nodes joined by VXLAN as flanneld joins them, with the sample network that everyone copies. */

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { Attachment, attach, type Conflist, pluginConfig, runNetworkVerb, sample } from '../support/chain.ts';
import { subnetFile, writeSubnetEnv } from '../support/flannel.ts';
import { type Host, makeHost } from '../support/host.ts';
import * as observe from '../support/observe.ts';
import { runPlugin, suites } from '../support/plugin.ts';

const network = sample('40-flannel.conflist');
const dataDir = '/var/lib/cni/flannel';

/** The sample's first plugin in a version of the specification that has CHECK, STATUS and GC. */
const modern: Conflist = { ...network, cniVersion: '1.1.0', plugins: [network.plugins[0]!] };

async function makeNode(t: ExecutionContext, number = 1): Promise<Host> {
  const host = await makeHost(t);
  writeSubnetEnv(host, number);
  return host;
}

/** Saved configurations and reserved addresses: the files in which some container is mentioned. */
function leftBehind(host: Host): string[] {
  return Object.entries(observe.files(host, '/var/lib/cni'))
    .filter(([file, content]) => /container-/.test(file + content))
    .map(([file]) => file);
}

/** Everything on the node except routes, which lag behind when a bridge loses its last port. */
async function settled(host: Host): Promise<object> {
  return { ...(await observe.snapshot(host)), routes: [] };
}

/** Two nodes on one wire, each with a VXLAN interface and routes to the other's pods. */
async function makeCluster(t: ExecutionContext): Promise<[Host, Host]> {
  const nodes: [Host, Host] = [await makeNode(t, 1), await makeNode(t, 2)];
  const [a, b] = nodes;
  await a.run([
    ...['ip', 'link', 'add', 'uplink', 'type', 'veth'],
    ...['peer', 'name', 'uplink', 'netns', String(b.pid)],
  ]);
  const macs = ['02:00:00:00:00:01', '02:00:00:00:00:02'];
  for (const [i, node] of nodes.entries()) {
    const [own, other] = [i + 1, 2 - i];
    const ip = (line: string) => node.run(['ip', ...line.split(' ')]);
    await ip(`address add 192.0.2.${own}/24 dev uplink`);
    await ip('link set uplink up');
    await ip(
      `link add flannel.1 address ${macs[i]} mtu 1450 type vxlan id 1 local 192.0.2.${own} dev uplink dstport 8472 nolearning`,
    );
    await ip(`address add 10.244.${own}.0/32 dev flannel.1`);
    await ip(`address add fd00:10:244:${own}::/128 dev flannel.1 nodad`);
    await ip('link set flannel.1 up');
    await ip(`neighbour add 10.244.${other}.0 lladdr ${macs[1 - i]} dev flannel.1`);
    await ip(`neighbour add fd00:10:244:${other}:: lladdr ${macs[1 - i]} dev flannel.1`);
    await ip(`route add 10.244.${other}.0/24 via 10.244.${other}.0 dev flannel.1 onlink`);
    await ip(`route add fd00:10:244:${other}::/64 via fd00:10:244:${other}:: dev flannel.1 onlink`);
    await node.run(
      `bridge fdb append ${macs[1 - i]} dev flannel.1 dst 192.0.2.${other} self permanent`.split(' '),
    );
  }
  return nodes;
}

test('pods on two nodes reach each other over VXLAN, and a host port leads across', async (t) => {
  const [a, b] = await makeCluster(t);
  const web = await attach(a, network, {
    capabilities: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
  });
  const client = await attach(b, network);
  const [v4, v6] = web.result!.ips!.map(({ address }) => address.split('/')[0]!);
  t.regex(v4!, /^10\.244\.1\./);
  t.regex(client.ip, /^10\.244\.2\./);

  // An IPv6 address is checked for duplicates first.
  for (const address of [v4!, v6!])
    await observe.until(`${address} answers`, () => observe.ping(client.pod, address));
  await observe.serve(t, web.pod, 'tcp', 80, 'web');
  t.deepEqual(await observe.reach(client.pod, 'tcp', v4!, 80), {
    label: 'web',
    peer: client.ip,
    said: 'hello',
  });
  t.is((await observe.reach(client.pod, 'tcp', '192.0.2.1', 8080)).label, 'web');
  t.is((await observe.link(web.pod, 'eth0'))?.mtu, 1450);
});

test('the sample gives what the delegate gives, and takes it away again', async (t) => {
  const host = await makeNode(t);
  const warmUp = await attach(host, network);
  await warmUp.del();
  const idle = await settled(host);

  const attachment = await attach(host, network);
  const { result, pod } = attachment;
  t.is(result!.cniVersion, '0.3.1');
  t.deepEqual(
    result!.interfaces!.map(({ name, sandbox }) => [name.replace(/^veth.*/, 'veth'), sandbox]),
    [
      ['cbr0', undefined],
      ['veth', undefined],
      ['eth0', pod.netns],
    ],
  );
  t.deepEqual(
    result!.ips!.map(({ gateway }) => gateway),
    ['10.244.1.1', 'fd00:10:244:1::1'],
  );
  t.deepEqual(result!.routes, [
    { dst: '10.244.0.0/16' },
    { dst: 'fd00:10:244::/48' },
    { dst: '0.0.0.0/0', gw: '10.244.1.1' },
    { dst: '::/0', gw: 'fd00:10:244:1::1' },
  ]);
  const veth = result!.interfaces![1]!.name;
  t.is((await observe.link(host, veth))?.linkinfo?.info_slave_data?.hairpin, true);

  const file = host.file(`${dataDir}/${pod.containerId}`);
  t.is(statSync(file).mode & 0o777, 0o600);
  t.deepEqual(JSON.parse(readFileSync(file, 'utf8')), {
    bridge: 'cbr0',
    cniVersion: '0.3.1',
    name: 'cbr0',
    type: 'bridge',
    hairpinMode: true,
    isDefaultGateway: true,
    isGateway: true,
    ipMasq: false,
    mtu: 1450,
    ipam: {
      type: 'host-local',
      ranges: [[{ subnet: '10.244.1.0/24' }], [{ subnet: 'fd00:10:244:1::/64' }]],
      routes: [{ dst: '10.244.0.0/16' }, { dst: 'fd00:10:244::/48' }],
    },
  });

  await attachment.del();
  await attachment.del();
  await pod.remove();
  t.deepEqual(await settled(host), idle);
});

test('what the user says wins over what flanneld says', async (t) => {
  const host = await makeNode(t);
  const own: Conflist = {
    ...modern,
    plugins: [
      {
        type: 'flannel',
        delegate: { type: 'ptp', mtu: 1300, ipMasq: true },
        ipam: { routes: [{ dst: '198.51.100.0/24' }] },
        capabilities: { ips: true },
      },
    ],
  };
  const { pod, result } = await attach(host, own, { capabilities: { ips: ['10.244.1.77'] } });
  t.is(result!.ips![0]!.address, '10.244.1.77/24');
  t.deepEqual(
    result!.routes!.map(({ dst }) => dst),
    ['198.51.100.0/24', '10.244.0.0/16', 'fd00:10:244::/48'],
  );
  t.is((await observe.link(pod, 'eth0'))?.mtu, 1300);
  t.true((await observe.iptablesSave(host)).some((line) => line.includes('MASQUERADE')));
});

test('DEL goes by what ADD saved, though flanneld has another subnet now', async (t) => {
  const host = await makeNode(t);
  const attachment = await attach(host, network);
  writeSubnetEnv(host, 9);
  await attachment.del();
  t.deepEqual(leftBehind(host), []);
  t.is(await observe.link(attachment.pod, 'eth0'), undefined);
});

for (const [how, spoil] of [
  ['is lost', (file: string) => rmSync(file)],
  ['was torn by a crash', (file: string) => writeFileSync(file, '{"name":"cb')],
  ['belongs to another network', (file: string) => writeFileSync(file, '{"name":"other","type":"bridge"}')],
] as const)
  test(`DEL leaves nothing behind when the saved configuration ${how}`, async (t) => {
    const host = await makeNode(t);
    const attachment = await attach(host, network);
    const file = `${dataDir}/${attachment.pod.containerId}`;
    spoil(host.file(file));
    rmSync(host.file(subnetFile));
    await attachment.del();
    t.is(await observe.link(attachment.pod, 'eth0'), undefined);
    t.deepEqual(leftBehind(host), how.startsWith('belongs') ? [file] : []);
  });

test('DEL releases addresses when the sandbox is gone', async (t) => {
  const host = await makeNode(t);
  const attachment = await attach(host, network);
  await attachment.pod.remove();
  await attachment.del({ netns: '' });
  t.deepEqual(leftBehind(host), []);
});

test('a container in two flannel networks leaves both', async (t) => {
  const host = await makeNode(t);
  const second: Conflist = {
    ...network,
    name: 'cbr1',
    plugins: [{ type: 'flannel', delegate: { bridge: 'cni9', forceAddress: true } }],
  };
  const first = await attach(host, network);
  const other = await attach(host, second, { pod: first.pod, ifname: 'net1' });
  await first.del();
  t.is(await observe.link(first.pod, 'eth0'), undefined);
  t.truthy(await observe.link(first.pod, 'net1'));
  await other.del();
  t.is(await observe.link(first.pod, 'net1'), undefined);
  t.deepEqual(leftBehind(host), []);
});

test('an ADD that fails leaves nothing', async (t) => {
  const host = await makeNode(t);
  const pod = await host.addPod();
  await pod.run(['ip', 'link', 'add', 'eth0', 'type', 'veth']);
  const outcome = await new Attachment(host, pod, network).tryAdd();
  t.is(outcome.error?.code, 999);
  t.deepEqual(leftBehind(host), []);
});

const leaving: Readonly<Record<string, { script: string; keys: object }>> = {
  'a delegate that is killed': { script: 'kill -9 $$', keys: { delegate: { type: 'foreign' } } },
  'a delegate that fails': { script: 'exit 3', keys: { delegate: { type: 'foreign' } } },
  // The gateway of its route is unreachable, so that the bridge plugin fails once it has the address.
  'the bridge plugin': {
    script: `echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.244.1.9/24"}], "routes": [{"dst": "10.98.0.0/16", "gw": "10.99.0.1"}]}'`,
    keys: { ipam: { type: 'foreign' } },
  },
};

for (const [what, { script, keys }] of Object.entries(leaving))
  test(`what ${what} leaves of an ADD, DEL takes back by the saved configuration, and says when it cannot`, async (t) => {
    const host = await makeNode(t);
    mkdirSync(host.file('/run/bin'));
    const undo = `if [ $CNI_COMMAND = DEL ]; then test ! -e /run/refusing && rm -f /run/left; exit; fi`;
    const text = `#!/bin/sh\n${undo}\ntouch /run/left\n${script}\n`;
    writeFileSync(host.file('/run/bin/foreign'), text, { mode: 0o755 });
    writeFileSync(host.file('/run/refusing'), '');
    const plugins = [{ type: 'flannel', ...keys }];
    const env = { CNI_PATH: `${suites.ours}:/run/bin` };
    const one = new Attachment(host, await host.addPod(), { ...modern, plugins } as Conflist, { env });
    t.not((await one.tryAdd()).error, undefined);
    t.true(existsSync(host.file(`${dataDir}/${one.pod.containerId}`)));
    // flanneld goes, and with it what a DEL without a saved configuration would go by.
    rmSync(host.file(subnetFile));
    t.regex((await one.tryDel()).error?.msg ?? '', /exit code 1\b/);
    rmSync(host.file('/run/refusing'));
    await one.del();
    t.false(existsSync(host.file('/run/left')));
    t.deepEqual(leftBehind(host), []);
  });

test('CHECK finds what is missing from the sandbox', async (t) => {
  const host = await makeNode(t);
  const attachment = await attach(host, modern);
  await attachment.check();
  await attachment.pod.run(['ip', 'address', 'flush', 'dev', 'eth0', 'scope', 'global']);
  const outcome = await attachment.tryCheck();
  t.regex(outcome.error!.msg, /has no address 10\.244\.1\./);
});

test('CHECK goes by the present configuration when the saved one is lost', async (t) => {
  const host = await makeNode(t);
  const attachment = await attach(host, modern);
  rmSync(host.file(`${dataDir}/${attachment.pod.containerId}`));
  await attachment.check();
  await attachment.pod.run(['ip', 'address', 'flush', 'dev', 'eth0', 'scope', 'global']);
  t.regex((await attachment.tryCheck()).error!.msg, /has no address 10\.244\.1\./);
});

test('STATUS fails until flanneld has written its file', async (t) => {
  const host = await makeHost(t);
  const before = await runNetworkVerb(host, modern, 'STATUS');
  t.is(before.error?.code, 50);
  t.regex(before.error!.msg, /flanneld runs/);
  writeSubnetEnv(host, 1);
  t.is((await runNetworkVerb(host, modern, 'STATUS')).exit, 0);
});

test('GC removes what no valid attachment owns', async (t) => {
  const host = await makeNode(t);
  const stale = await attach(host, modern);
  const kept = await attach(host, modern);
  await stale.pod.remove();
  const valid = [{ containerID: kept.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, modern, 'GC', { valid })).exit, 0);
  t.deepEqual(Object.keys(observe.files(host, dataDir)), [`${dataDir}/${kept.pod.containerId}`]);
  t.false(JSON.stringify(observe.files(host, '/var/lib/cni')).includes(stale.pod.containerId));
  await kept.check();
});

for (const [what, keys, pattern] of [
  ['a name in the delegate', { delegate: { name: 'x' } }, /"delegate" has "name"/],
  ['an ipam in the delegate', { delegate: { ipam: {} } }, /"delegate" has "ipam"/],
  ['a delegate type that is no string', { delegate: { type: 5 } }, /"delegate.type" is 5/],
  ['a delegate type that is a path', { delegate: { type: '../../bin/sh' } }, /not the name of an executable/],
  ['a delegate that is a list', { delegate: [] }, /"delegate" is \[\]/],
  ['an ipam that is a string', { ipam: 'host-local' }, /"ipam"/],
  ['a data directory that is a device', { dataDir: '/dev/null' }, /Cannot save.*"dataDir"/],
] as const)
  test(`ADD refuses ${what}`, async (t) => {
    const host = await makeNode(t);
    const pod = await host.addPod();
    const config = { ...pluginConfig(modern, { type: 'flannel', ...keys }) };
    const { error } = await runPlugin(host, 'flannel', 'ADD', { pod, config });
    t.regex(error!.msg, pattern);
    t.deepEqual(leftBehind(host), []);
  });

test('an incomplete file of flanneld is told apart from none', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  const add = async () =>
    (await runPlugin(host, 'flannel', 'ADD', { pod, config: pluginConfig(network, network.plugins[0]!) }))
      .error!;
  t.regex((await add()).msg, /does not exist yet/);
  writeSubnetEnv(host, 1, { FLANNEL_MTU: '', FLANNEL_SUBNET: '', FLANNEL_IPV6_SUBNET: '' });
  t.regex((await add()).msg, /lacks FLANNEL_SUBNET or FLANNEL_IPV6_SUBNET, FLANNEL_MTU/);
});

test('a second ADD of a living attachment is refused and leaves it as it is', async (t) => {
  const host = await makeNode(t);
  const attachment = await attach(host, modern);
  const before = await observe.snapshot(host);
  const pod = await observe.networkSnapshot(attachment.pod);
  const { error } = await attachment.tryAdd();
  t.regex(error!.msg, /already has an interface "eth0"/);
  t.deepEqual(await observe.snapshot(host), before);
  t.deepEqual(await observe.networkSnapshot(attachment.pod), pod);
  t.true(await observe.ping(attachment.pod, '10.244.1.1'));
  await attachment.del();
  t.deepEqual(leftBehind(host), []);
});

test('one unreadable saved configuration stops neither GC nor others, and a torn one is collected', async (t) => {
  const host = await makeNode(t);
  const stale = await attach(host, modern);
  const kept = await attach(host, modern);
  const file = (name: string) => host.file(`${dataDir}/${name}`);
  mkdirSync(file('a-directory'));
  symlinkSync('/etc/hostname', file('a-link'));
  writeFileSync(file('torn'), '{"name":"cb');
  writeFileSync(file('notes.txt'), 'of the administrator');
  writeFileSync(file('notes.json'), '{"of": "the administrator"}');
  const valid = [{ containerID: kept.pod.containerId, ifname: 'eth0' }];
  const { exit, stderr } = await runNetworkVerb(host, modern, 'GC', { valid });
  t.is(exit, 0);
  t.regex(stderr, /a-directory/);
  t.deepEqual(
    readdirSync(host.file(dataDir)).sort(),
    ['a-directory', 'a-link', kept.pod.containerId, 'notes.json', 'notes.txt'].sort(),
  );
  t.false(existsSync(file(stale.pod.containerId)));
  await kept.check();
});

test('a saved configuration that is a link is not written through', async (t) => {
  const host = await makeNode(t);
  const pod = await host.addPod();
  mkdirSync(host.file(dataDir), { recursive: true });
  writeFileSync(host.file('/run/precious'), 'precious');
  symlinkSync('/run/precious', host.file(`${dataDir}/${pod.containerId}`));
  const attachment = new Attachment(host, pod, modern);
  await attachment.add();
  t.is(readFileSync(host.file('/run/precious'), 'utf8'), 'precious');
  await attachment.del();
});

test('a saved configuration that leads back to flannel is refused with code 7', async (t) => {
  const host = await makeNode(t);
  const attachment = await attach(host, modern);
  const file = host.file(`${dataDir}/${attachment.pod.containerId}`);
  const saved = readFileSync(file, 'utf8');
  writeFileSync(file, JSON.stringify({ ...JSON.parse(saved), type: 'flannel' }));
  t.is((await attachment.tryDel()).error?.code, 7);
  writeFileSync(file, saved);
  await attachment.del();
  t.deepEqual(leftBehind(host), []);
});
