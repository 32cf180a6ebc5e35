/** multus: pods with a bridge by default, and with macvlan and further bridges when they ask for them. */

import { mkdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { Attachment, attach, runNetworkVerb } from '../support/chain.ts';
import { links, ping, routes, sysctl } from '../support/observe.ts';
import { runPlugin } from '../support/plugin.ts';
import {
  annotated,
  interfacesOf,
  ipv4Of,
  makeHostWithNetworks,
  mentions,
  savedOf,
  settled,
  several,
  writeNetworks,
} from '../support/several.ts';

const network = several('multus', {
  clusterNetwork: 'pods',
  capabilities: { 'io.kubernetes.cri.pod-annotations': true, portMappings: true },
});
const annotation = 'k8s.v1.cni.cncf.io/networks';
const asking = (networks: string) => annotated({ [annotation]: networks });

test('a pod has its default network and those of its annotation, and leaves nothing', async (t) => {
  const host = await makeHostWithNetworks(t);
  await (await attach(host, network, asking('storage,backup'))).del();
  const idle = await settled(host);

  const pod = await attach(host, network, asking('storage, other/backup@fast'));
  t.deepEqual(await interfacesOf(pod.pod), ['eth0', 'fast', 'net1']);
  t.deepEqual(pod.result!.ips, [
    { address: pod.result!.ips![0]!.address, gateway: '10.41.0.1', interface: 2 },
  ]);
  const [eth0] = await ipv4Of(pod.pod, 'eth0');
  t.is(eth0, pod.result!.ips![0]!.address);
  const [storage] = await ipv4Of(pod.pod, 'net1');
  t.regex(storage!, /^10\.41\.1\./);
  t.regex((await ipv4Of(pod.pod, 'fast'))[0]!, /^10\.41\.2\./);
  t.is((await links(pod.pod)).find(({ ifname }) => ifname === 'net1')?.linkinfo?.info_kind, 'macvlan');
  const other = await attach(host, network, asking('storage'));
  t.true(await ping(other.pod, storage!.split('/')[0]!));
  t.true(await ping(pod.pod, '10.41.2.1', '-I', 'fast'));
  await pod.check();
  await other.del();
  await other.pod.remove();

  await pod.del();
  t.deepEqual(await interfacesOf(pod.pod), []);
  await pod.del();
  await pod.pod.remove();
  t.deepEqual({ ...(await settled(host)), sandboxes: [] }, { ...idle, sandboxes: [] });
});

test('JSON of the annotation gives interface, addresses, MAC address, and arguments', async (t) => {
  const host = await makeHostWithNetworks(t);
  const { plugins } = several('multus', {});
  t.is(plugins.length, 1);
  writeNetworks(
    host,
    [
      {
        cniVersion: '1.1.0',
        name: 'tuned',
        plugins: [
          {
            type: 'bridge',
            bridge: 'br9',
            ipam: { type: 'host-local', ranges: [[{ subnet: '10.41.9.0/24' }]] },
          },
          { type: 'tuning' },
        ],
      },
    ],
    '/etc/cni/multus/net.d',
  );
  const list = [
    { name: 'storage', interface: 'st0', ips: ['10.41.1.77'], mac: '02:00:00:00:00:77' },
    { name: 'tuned', 'cni-args': { sysctl: { 'net.ipv4.conf.IFNAME.log_martians': '1' } } },
    { name: 'backup', ips: ['10.41.2.88'] },
  ];
  const pod = await attach(host, network, asking(JSON.stringify(list)));
  t.deepEqual(await ipv4Of(pod.pod, 'st0'), ['10.41.1.77/24']);
  t.is((await links(pod.pod)).find(({ ifname }) => ifname === 'st0')?.address, '02:00:00:00:00:77');
  t.is(await sysctl(pod.pod, 'net/ipv4/conf/net2/log_martians'), '1');
  t.is(await sysctl(pod.pod, 'net/ipv4/conf/eth0/log_martians'), '0');
  // Without the capability it is asked for by CNI_ARGS.
  t.deepEqual(await ipv4Of(pod.pod, 'net3'), ['10.41.2.88/24']);
  await pod.check();
  await pod.del();
  t.deepEqual(mentions(host, pod.pod), []);
});

test('capabilities and addresses of the call are for the default network alone', async (t) => {
  const host = await makeHostWithNetworks(t);
  const options = asking('storage');
  const pod = await attach(host, network, {
    args: `${options.args};IP=10.41.0.55`,
    capabilities: {
      ...options.capabilities,
      portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
    },
  });
  t.deepEqual(await ipv4Of(pod.pod, 'eth0'), ['10.41.0.55/24']);
  t.regex((await ipv4Of(pod.pod, 'net1'))[0]!, /^10\.41\.1\./);
  const rules = await host.run(['iptables-save', '-t', 'nat']);
  t.regex(rules, /--dport 8080 -j DNAT --to-destination 10\.41\.0\.55:80/);
  await pod.del();
  t.notRegex(await host.run(['iptables-save', '-t', 'nat']), /8080/);
});

test('the default network has the default route, unless another is asked for', async (t) => {
  const host = await makeHostWithNetworks(t);
  const defaults = async (pod: Attachment) =>
    (await routes(pod.pod)).filter(({ dst }) => dst === 'default').map(({ dev, gateway }) => [dev, gateway]);

  const plain = await attach(host, network, asking('uplink'));
  t.deepEqual(await defaults(plain), [['eth0', '10.41.0.1']]);
  await plain.check();

  for (const [gateways, via] of [
    [['10.41.3.254'], '10.41.3.254'],
    [[], '10.41.3.1'],
  ] as const) {
    const list = [{ name: 'storage' }, { name: 'uplink', 'default-route': gateways }];
    const pod = await attach(host, network, asking(JSON.stringify(list)));
    t.deepEqual(await defaults(pod), [['net2', via]]);
    t.deepEqual(pod.result!.routes ?? [], []);
    await pod.check();
    await pod.pod.run(['ip', 'route', 'delete', 'default']);
    t.regex((await pod.tryCheck()).error!.msg, /Network "uplink", interface "net2"/);
    await pod.del();
  }

  const rivals = ['storage', 'uplink'].map((name) => ({ name, 'default-route': ['10.41.3.254'] }));
  const refused = new Attachment(host, await host.addPod(), network, asking(JSON.stringify(rivals)));
  t.regex((await refused.tryAdd()).error!.msg, /"default-route" asks for .* Keep one of IPv4/);
});

test('defaultNetworks are for all but pods of the system, rules for those that they name', async (t) => {
  const host = await makeHostWithNetworks(t);
  const ruled = several('multus', {
    delegates: [{ type: 'bridge', name: 'inline', bridge: 'br7', ipam: {} }],
    defaultNetworks: ['backup'],
    rules: [
      { namespace: 'sh?p', name: 'db-*', networks: 'storage@store' },
      { name: 'any', networks: 'storage@named' },
    ],
    capabilities: { 'io.kubernetes.cri.pod-annotations': true },
  });
  for (const [namespace, name, expected] of [
    ['shop', 'db-0', ['eth0', 'net1', 'store']],
    ['shop', 'web-db-0', ['eth0', 'net1']],
    ['blog', 'db-0', ['eth0', 'net1']],
    ['kube-system', 'db-0', ['eth0']],
  ] as const) {
    const pod = await attach(host, ruled, annotated({}, name, namespace));
    t.deepEqual(await interfacesOf(pod.pod), [...expected], `${namespace}/${name}`);
  }
  const args = 'K8S_POD_NAME=any;NETWORKS=storage@net5';
  const pod = await attach(host, ruled, { args: `IgnoreUnknown=1;${args}` });
  t.deepEqual(await interfacesOf(pod.pod), ['eth0', 'named', 'net1', 'net5']);
});

test('an annotation exchanges the default network', async (t) => {
  const host = await makeHostWithNetworks(t);
  const pod = await attach(
    host,
    network,
    annotated({ 'v1.multus-cni.io/default-network': 'backup@ignored', [annotation]: 'storage' }),
  );
  t.deepEqual(await interfacesOf(pod.pod), ['eth0', 'net1']);
  t.regex((await ipv4Of(pod.pod, 'eth0'))[0]!, /^10\.41\.2\./);
});

test('the default network of an annotation gives its addresses and MAC address, with or without capabilities', async (t) => {
  const host = await makeHostWithNetworks(t);
  for (const [name, address, more] of [
    ['storage', '10.41.1.78', ''],
    // What the pod asks for takes precedence over what the runtime asks for.
    ['backup', '10.41.2.78', ';IP=10.41.2.99;MAC=02:00:00:00:00:99'],
  ] as const) {
    const chosen = JSON.stringify([{ name, ips: [address], mac: '02:00:00:00:00:78' }]);
    const { args, capabilities } = annotated({
      ...{ 'v1.multus-cni.io/default-network': chosen, [annotation]: 'uplink' },
    });
    const pod = await attach(host, network, { args: `${args}${more}`, capabilities });
    t.deepEqual(await ipv4Of(pod.pod, 'eth0'), [`${address}/24`]);
    t.is((await links(pod.pod)).find(({ ifname }) => ifname === 'eth0')?.address, '02:00:00:00:00:78', name);
    t.regex((await ipv4Of(pod.pod, 'net1'))[0]!, /^10\.41\.3\./);
    await pod.check();
    await pod.del();
    t.deepEqual(mentions(host, pod.pod), []);
  }
});

for (const [how, networks, pattern] of [
  ['is in no file', 'storage,missing', /No configuration in .*has the network "missing"/],
  ['has no name', 'storage,@net1', /must be \[NAMESPACE\/\]NETWORK\[@INTERFACE\]/],
  ['would leave the directory', '../secret', /must begin with a letter|must be \[NAMESPACE/],
  ['has a bad interface', 'storage@a:b', /interface "a:b".*contains/],
  ['takes the first interface', 'storage@eth0', /both to have the interface "eth0"/],
  ['takes that of another', 'storage@net2,backup', /both to have the interface "net2"/],
  ['is half a list', '[{"name":"storage"}', /neither a list of names nor JSON/],
  ['has no "name"', '[{"namespace":"storage"}]', /"networks\[0\]\.name" is missing/],
  ['smuggles arguments', '[{"name":"storage","mac":"x;K8S_POD_NAME=y"}]', /has ";" or "="/],
] as const)
  test(`a network that ${how} is refused before anything is done`, async (t) => {
    const host = await makeHostWithNetworks(t);
    const before = await settled(host);
    const attachment = new Attachment(host, await host.addPod(), network, asking(networks));
    const { error } = await attachment.tryAdd();
    t.regex(error!.msg, pattern);
    t.deepEqual({ ...(await settled(host)), sandboxes: [] }, { ...before, sandboxes: [] });
    await attachment.del();
  });

for (const failing of ['eth0', 'net1', 'net2', 'net3'])
  test(`ADD takes everything back when the network of ${failing} fails`, async (t) => {
    const host = await makeHostWithNetworks(t);
    const networks = asking('storage,backup,uplink');
    const warmUp = await attach(host, network, networks);
    await warmUp.del();
    await warmUp.pod.remove();
    const before = await settled(host);
    const pod = await host.addPod();
    await pod.run(['ip', 'link', 'add', failing, 'type', 'veth', 'peer', 'name', 'far']);
    const attachment = new Attachment(host, pod, network, networks);
    const { error, stderr } = await attachment.tryAdd();
    t.regex(error!.msg, new RegExp(`Network "[a-z]+", interface "${failing}": .*already has an interface`));
    t.notRegex(stderr, /While undoing/);
    t.deepEqual(await interfacesOf(pod), [failing, 'far'].sort());
    t.deepEqual(mentions(host, pod), []);
    t.deepEqual({ ...(await settled(host)), sandboxes: [] }, { ...before, sandboxes: [] });
  });

test('DEL goes by what was saved, though files and annotation are gone', async (t) => {
  const host = await makeHostWithNetworks(t);
  const pod = await attach(host, network, asking('storage,backup'));
  t.deepEqual(
    savedOf(host, pod.pod).map(({ Name }) => Name),
    ['pods', 'storage', 'backup'],
  );
  rmSync(host.file('/etc/cni/net.d'), { recursive: true });
  await pod.del(asking(''));
  t.deepEqual(await interfacesOf(pod.pod), []);
  t.deepEqual(mentions(host, pod.pod), []);
});

test('DEL releases everything when the sandbox is gone', async (t) => {
  const host = await makeHostWithNetworks(t);
  const pod = await attach(host, network, asking('storage,backup'));
  await pod.pod.remove();
  await pod.del({ netns: '' });
  t.deepEqual(mentions(host, pod.pod), []);
});

test('DEL runs every network though one fails, and can be repeated', async (t) => {
  const host = await makeHostWithNetworks(t);
  const pod = await attach(host, network, asking('storage,backup'));
  const file = host.file('/var/lib/cni/networks/storage');
  await host.run(['mv', '/var/lib/cni/networks/storage', '/var/lib/cni/networks/aside']);
  writeFileSync(file, 'in the way');
  const { error } = await pod.tryDel();
  t.regex(error!.msg, /Network "storage", interface "net1"/);
  t.deepEqual(await interfacesOf(pod.pod), []);
  rmSync(file);
  await host.run(['mv', '/var/lib/cni/networks/aside', '/var/lib/cni/networks/storage']);
  t.true(mentions(host, pod.pod).length > 0);
  await pod.del();
  t.deepEqual(mentions(host, pod.pod), []);
});

for (const [how, text] of [
  ['is lost', undefined],
  ['was torn by a crash', '[{"Bytes":"'],
  ['is of something else', '{"Bytes":1}'],
] as const)
  test(`DEL goes by the configuration of now when what was saved ${how}`, async (t) => {
    const host = await makeHostWithNetworks(t);
    const pod = await attach(host, network, asking('storage'));
    const file = host.file(`/var/lib/cni/multus/${pod.pod.containerId}`);
    if (text === undefined) rmSync(file);
    else writeFileSync(file, text);
    t.regex((await pod.tryCheck()).error!.msg, /Nothing is saved in "\/var\/lib\/cni\/multus"/);
    await pod.del();
    t.deepEqual(await interfacesOf(pod.pod), []);
    t.deepEqual(mentions(host, pod.pod), []);
  });

test('CHECK sees what is missing in each network', async (t) => {
  const host = await makeHostWithNetworks(t);
  const pod = await attach(host, network, asking('storage,backup'));
  await pod.check();
  for (const [ifname, name] of [
    ['net2', 'backup'],
    ['net1', 'storage'],
    ['eth0', 'pods'],
  ] as const) {
    await pod.pod.run(['ip', 'link', 'set', ifname, 'down']);
    await pod.pod.run(['ip', 'address', 'flush', 'dev', ifname]);
    t.regex((await pod.tryCheck()).error!.msg, new RegExp(`^Network "${name}", interface "${ifname}"`));
  }
});

test('a second ADD of a living attachment is refused and leaves it as it is', async (t) => {
  const host = await makeHostWithNetworks(t);
  const pod = await attach(host, network, asking('storage'));
  const before = await settled(host);
  t.regex((await pod.tryAdd(asking('backup'))).error!.msg, /already has an interface "eth0"/);
  t.deepEqual(await settled(host), before);
  t.deepEqual(await interfacesOf(pod.pod), ['eth0', 'net1']);
});

test('GC detaches pods that are gone from each network, and keeps the living and the attachments of others', async (t) => {
  const host = await makeHostWithNetworks(t);
  const stale = await attach(host, network, asking('storage,backup'));
  const gone = await attach(host, network, asking('storage'));
  await gone.pod.remove();
  const kept = await attach(host, network, asking('storage,backup@b0'));
  const other = await attach(host, { ...network, name: 'further' }, asking('storage'));
  // An address that only host-local still knows.
  await runPlugin(host, 'host-local', 'ADD', {
    containerId: 'forgotten',
    netns: '/run/netns/none',
    config: {
      ...{ cniVersion: '1.1.0', name: 'storage', type: 'macvlan' },
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.41.1.0/24' }]] },
    },
  });
  const mentionsOf = (containerId: string) => mentions(host, { containerId } as never);
  t.is(mentionsOf('forgotten').length, 1);

  const valid = [{ containerID: kept.pod.containerId, ifname: 'eth0' }];
  const { exit, stderr } = await runNetworkVerb(host, network, 'GC', { valid });
  t.is(exit, 0, stderr);
  t.deepEqual(mentions(host, stale.pod), []);
  t.deepEqual(mentions(host, gone.pod), []);
  t.deepEqual(mentionsOf('forgotten'), []);
  t.deepEqual(await interfacesOf(stale.pod), []);
  await kept.check();
  await other.check();
  t.true(mentions(host, kept.pod).length >= 4);
});

for (const [what, keys, code] of [
  ['the default network is not ready', { readinessindicatorfile: '/run/ready' }, undefined],
  ['the file of the default network has moved', { clusterNetwork: '/etc/cni/net.d/moved.conflist' }, 999],
] as const)
  test(`GC searches the networks that are known, and DEL succeeds, while ${what}`, async (t) => {
    const host = await makeHostWithNetworks(t);
    const kept = await attach(host, network, asking('storage'));
    const gone = await attach(host, network, asking('storage'));
    const unsaved = await attach(host, network, asking('storage'));
    // Only host-local knows its reservations.
    rmSync(host.file(`/var/lib/cni/multus/${gone.pod.containerId}`));
    rmSync(host.file(`/var/lib/cni/multus/${unsaved.pod.containerId}`));
    await gone.pod.remove();

    const now = several('multus', { ...network.plugins[0], ...keys });
    await new Attachment(host, unsaved.pod, now, asking('storage')).del();
    // Only while the default network is known can DEL tell which networks to detach.
    t.deepEqual(await interfacesOf(unsaved.pod), code === undefined ? [] : ['eth0', 'net1']);
    const valid = [{ containerID: kept.pod.containerId, ifname: 'eth0' }];
    const { error } = await runNetworkVerb(host, now, 'GC', { valid });
    t.is(error?.code, code, error?.msg);
    t.deepEqual(mentions(host, gone.pod), []);
    await kept.check();
    t.true(mentions(host, kept.pod).length >= 3);
  });

test('GC touches no network when it is not known which interfaces a living pod has', async (t) => {
  const host = await makeHostWithNetworks(t);
  const pod = await attach(host, network, asking('storage'));
  const lost = await attach(host, network, asking('storage'));
  rmSync(host.file(`/var/lib/cni/multus/${lost.pod.containerId}`));
  const before = mentions(host, lost.pod);
  const valid = [pod, lost].map((one) => ({ containerID: one.pod.containerId, ifname: 'eth0' }));
  const { exit, stderr } = await runNetworkVerb(host, network, 'GC', { valid });
  t.is(exit, 0);
  t.regex(stderr, /Nothing is saved of the networks of 1 container/);
  t.deepEqual(mentions(host, lost.pod), before);
  await pod.check();
});

test('one file that cannot be read stops neither GC nor DEL of others', async (t) => {
  const host = await makeHostWithNetworks(t);
  const stale = await attach(host, network, asking('storage'));
  const file = (name: string) => host.file(`/var/lib/cni/multus/${name}`);
  mkdirSync(file('a-directory'));
  // The directory of this name is not a container's.
  t.true(statSync(file('results')).isDirectory());
  symlinkSync('/etc/hostname', file('a-link'));
  writeFileSync(file('torn'), '[{');
  const { exit, stderr } = await runNetworkVerb(host, network, 'GC', { valid: [] });
  t.is(exit, 0, stderr);
  t.notRegex(stderr, /results/);
  for (const name of ['a-directory', 'a-link', 'torn']) t.regex(stderr, new RegExp(`${name}" is left alone`));
  t.deepEqual(mentions(host, stale.pod), []);
});

test('STATUS asks the networks of every pod, and the file that says that they are ready', async (t) => {
  const host = await makeHostWithNetworks(t);
  const status = async (keys: object = {}) =>
    (await runNetworkVerb(host, several('multus', { clusterNetwork: 'pods', ...keys }), 'STATUS')).error;
  t.is(await status(), undefined);
  const waiting = await status({ readinessindicatorfile: '/run/ready' });
  t.is(waiting!.code, 11);
  t.regex(waiting!.msg, /"\/run\/ready" does not exist yet/);
  writeFileSync(host.file('/run/ready'), '');
  t.is(await status({ readinessindicatorfile: '/run/ready' }), undefined);
  t.regex((await status({ clusterNetwork: 'missing' }))!.msg, /has the network "missing"/);
  const broken = {
    delegates: [{ type: 'bridge', vlan: 9999, ipam: { type: 'missing' } }],
    clusterNetwork: '',
  };
  t.is((await status(broken))!.code, 50);
  t.regex((await status({ clusterNetwork: '' }))!.msg, /There is no default network/);
});

test('networks of other namespaces are refused where namespaces are isolated', async (t) => {
  const host = await makeHostWithNetworks(t);
  const isolated = several('multus', {
    ...network.plugins[0],
    namespaceIsolation: true,
    globalNamespaces: 'infra, common',
  });
  const pod = await attach(host, isolated, asking('storage,shop/backup,common/uplink'));
  t.deepEqual(await interfacesOf(pod.pod), ['eth0', 'net1', 'net2', 'net3']);
  const refused = new Attachment(host, await host.addPod(), isolated, asking('default/storage'));
  t.regex((await refused.tryAdd()).error!.msg, /namespace "default", but "namespaceIsolation" allows/);
});

test('a network that leads back to multus is refused', async (t) => {
  const host = await makeHostWithNetworks(t);
  const circle = several('multus', { clusterNetwork: 'several' });
  writeNetworks(host, [circle]);
  const attachment = new Attachment(host, await host.addPod(), circle);
  t.is((await attachment.tryAdd()).error!.code, 7);
  t.deepEqual(mentions(host, attachment.pod), []);
});

test('what Multus saved is taken down', async (t) => {
  const host = await makeHostWithNetworks(t);
  const pod = await attach(host, network, asking('storage,backup@fast'));
  const { pod: sandbox } = pod;
  const foreign = savedOf(host, sandbox).map(({ Name, Bytes }, i) => ({
    ...{ Conf: { name: Name }, ConfList: {}, Name, Bytes },
    ...(i === 2 && { ifnameRequest: 'fast' }),
  }));
  writeFileSync(host.file(`/var/lib/cni/multus/${sandbox.containerId}`), JSON.stringify(foreign));
  await pod.del();
  t.deepEqual(await interfacesOf(sandbox), []);
  t.deepEqual(mentions(host, sandbox), []);
});
