/** multus with the Kubernetes API: pods, definitions of networks, and the status of pods. */

import { rmSync, writeFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { Attachment, attach, runNetworkVerb, sample } from '../support/chain.ts';
import type { KubeApi } from '../support/kube-api.ts';
import { allowedByManifest } from '../support/kube-kinds.ts';
import {
  annotationsOf,
  argsFor,
  attachPod,
  bridgeConfig,
  createPod,
  define,
  makeNode,
  type Node,
  networkStatusOf,
  unattachedPod,
} from '../support/kube-pods.ts';
import { iptablesSave, links, ping, routes, until } from '../support/observe.ts';
import { succeeded } from '../support/plugin.ts';
import { interfacesOf, ipv4Of, mentions, savedOf, settled } from '../support/several.ts';

const kubeconfig = '/run/kube-pki/kubeconfig';
const annotation = 'k8s.v1.cni.cncf.io/networks';

/** Everything on a host except the sandbox of its one pod. */
const besidesSandbox = async ({ host }: Node) => ({ ...(await settled(host)), sandboxes: [] });

/** Defines networks of the namespace "shop" and of "infra". */
function defineNetworks({ api }: Node): void {
  define(api, 'shop', 'fast', bridgeConfig(1, { mtu: 1400 }));
  define(api, 'shop', 'backup', '');
  define(
    api,
    'infra',
    'shared',
    JSON.stringify({
      ...{ cniVersion: '1.1.0', name: 'common' },
      plugins: [
        { ...JSON.parse(bridgeConfig(2)), capabilities: { ips: true, mac: true } },
        { type: 'portmap', capabilities: { portMappings: true } },
      ],
    }),
  );
}

/** A node whose bridges are there already, so that only what is left behind makes a difference. */
async function makeWarmNode(t: ExecutionContext): Promise<Node> {
  const node = await makeNode(t);
  defineNetworks(node);
  const warmUp = await attachPod(node, 'fast,backup,infra/shared', { name: 'first' });
  await warmUp.del();
  await warmUp.pod.remove();
  return node;
}

test('a pod has the networks of its annotation, its status tells them, and nothing of them is left', async (t) => {
  const node = await makeWarmNode(t);
  const { host, api } = node;
  const idle = await besidesSandbox(node);

  const pod = await attachPod(node, 'fast,backup@b0,infra/shared@sh0');
  t.deepEqual(await interfacesOf(pod.pod), ['b0', 'eth0', 'net1', 'sh0']);
  const [eth0, fast, backup, shared] = await Promise.all(
    ['eth0', 'net1', 'b0', 'sh0'].map(async (name) => {
      const { address, mtu } = (await links(pod.pod)).find(({ ifname }) => ifname === name)!;
      const ips = (await ipv4Of(pod.pod, name)).map((one) => one.split('/')[0]!);
      return { interface: name, ips, mac: address!, mtu: mtu! };
    }),
  );
  t.regex(eth0!.ips[0]!, /^10\.41\.0\./);
  t.regex(fast!.ips[0]!, /^10\.42\.1\./);
  t.is(fast!.mtu, 1400);
  t.regex(backup!.ips[0]!, /^10\.41\.2\./);
  t.regex(shared!.ips[0]!, /^10\.42\.2\./);
  t.deepEqual(
    pod.result!.ips!.map(({ address }) => address.split('/')[0]),
    eth0!.ips,
  );
  const told = networkStatusOf(api);
  t.deepEqual(
    told.map(({ mtu, dns, ...rest }) => rest),
    [
      { name: 'pods', ...without(eth0!), default: true, gateway: ['10.41.0.1'] },
      { name: 'shop/fast', ...without(fast!) },
      { name: 'shop/backup', ...without(backup!) },
      { name: 'infra/shared', ...without(shared!) },
    ],
  );
  t.deepEqual(
    told.map(({ dns }) => dns),
    [{}, {}, {}, {}],
  );
  for (const { mtu } of told.filter(({ mtu }) => mtu !== undefined)) t.true([1400, 1500].includes(mtu!));
  t.is(annotationsOf(api)[annotation], 'fast,backup@b0,infra/shared@sh0');
  t.true(await ping(pod.pod, '10.41.0.1'));
  await pod.check();

  await pod.del();
  t.deepEqual(await interfacesOf(pod.pod), []);
  t.deepEqual(mentions(host, pod.pod), []);
  await pod.del();
  await pod.pod.remove();
  t.deepEqual(await besidesSandbox(node), idle);
});

function without({ mtu, ...rest }: { interface: string; ips: string[]; mac: string; mtu: number }): object {
  return rest;
}

test('JSON of the annotation gives interface, addresses, MAC address, ports and default route', async (t) => {
  const node = await makeNode(t);
  const { host, api } = node;
  defineNetworks(node);
  const list = [
    {
      ...{ name: 'shared', namespace: 'infra', interface: 'sh0' },
      ...{ ips: ['10.42.2.77/24'], mac: '02:00:00:00:00:77', 'default-route': ['10.42.2.254'] },
      portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
    },
    { name: 'fast', 'cni-args': { note: 'kept' }, ips: ['10.42.1.88'] },
  ];
  const pod = await attachPod(node, JSON.stringify(list));
  t.deepEqual(await interfacesOf(pod.pod), ['eth0', 'net2', 'sh0']);
  t.deepEqual(await ipv4Of(pod.pod, 'sh0'), ['10.42.2.77/24']);
  t.deepEqual(await ipv4Of(pod.pod, 'net2'), ['10.42.1.88/24']);
  const sh0 = (await links(pod.pod)).find(({ ifname }) => ifname === 'sh0')!;
  t.is(sh0.address, '02:00:00:00:00:77');
  const defaults = (await routes(pod.pod)).filter(({ dst }) => dst === 'default');
  t.deepEqual(
    defaults.map(({ dev, gateway }) => [dev, gateway]),
    [['sh0', '10.42.2.254']],
  );
  t.true(
    (await iptablesSave(host)).some((rule) =>
      /--dport 8080 -j DNAT --to-destination 10\.42\.2\.77:80/.test(rule),
    ),
  );
  t.deepEqual(
    networkStatusOf(api).map(({ name, ips, gateway, default: isDefault }) => [
      name,
      ips?.length,
      gateway,
      isDefault,
    ]),
    [
      ['pods', 1, undefined, true],
      ['infra/shared', 1, ['10.42.2.254'], undefined],
      ['shop/fast', 1, undefined, undefined],
    ],
  );
  await pod.check();
  await pod.del();
  t.deepEqual(mentions(host, pod.pod), []);
});

test('networks of a resource get the devices that the kubelet has allocated to the pod', async (t) => {
  const node = await makeNode(t);
  const { host, api } = node;
  const resource = { 'k8s.v1.cni.cncf.io/resourceName': 'vendor.example/nic' };
  for (const [name, number] of [
    ['red', 1],
    ['blue', 2],
  ] as const)
    define(api, 'shop', name, bridgeConfig(number), resource);
  const pod = await unattachedPod(node, 'red,blue');
  // Directories of the machine are left as they are.
  const lower = 'lowerdir=/var/lib,upperdir=/run/lib/upper,workdir=/run/lib/work';
  const plugins = '/var/lib/kubelet/device-plugins';
  const infos = '/run/k8s.cni.cncf.io/devinfo/dp';
  await host.run([
    ...['sh', '-ec'],
    `mkdir -p /run/lib/upper /run/lib/work ${infos}
     mount -t overlay -o ${lower} overlay /var/lib; mount -t tmpfs tmpfs /var/lib/cni; rm -rf ${plugins}; mkdir -p ${plugins}`,
  ]);
  const unknown = await pod.tryAdd();
  t.regex(unknown.error!.msg, /devices of resource "vendor.example\/nic" are not known/);
  t.deepEqual(await interfacesOf(pod.pod), []);

  const { uid } = api.of('pods').get('shop', 'web').metadata;
  const DeviceIDs = { '0': ['0000:03:02.1', '0000:03:02.0'] };
  const PodDeviceEntries = [
    { PodUID: uid, ContainerName: 'app', ResourceName: 'vendor.example/nic', DeviceIDs },
  ];
  writeFileSync(
    host.file(`${plugins}/kubelet_internal_checkpoint`),
    JSON.stringify({ Data: { PodDeviceEntries, RegisteredDevices: {} }, Checksum: 1 }),
  );
  const info = { type: 'pci', version: '1.1.0', pci: { 'pci-address': '0000:03:02.1' } };
  writeFileSync(host.file(`${infos}/vendor.example-nic-0000:03:02.1-device.json`), JSON.stringify(info));
  await pod.add();
  const devices = savedOf(host, pod.pod).map(({ Bytes }) => {
    const { plugins } = JSON.parse(Buffer.from(Bytes, 'base64').toString()) as {
      plugins: Record<string, string>[];
    };
    return [plugins[0]!.deviceID, plugins[0]!.pciBusID];
  });
  t.deepEqual(devices, [
    [undefined, undefined],
    ['0000:03:02.0', '0000:03:02.0'],
    ['0000:03:02.1', '0000:03:02.1'],
  ]);
  t.deepEqual(
    networkStatusOf(api).map((one) => one['device-info']),
    [undefined, undefined, info],
  );
  await pod.check();
  await pod.del();
  t.deepEqual(mentions(host, pod.pod), []);
});

test('the networks of every pod are definitions of one namespace, or else on disk', async (t) => {
  const node = await makeNode(t, {
    ...{ clusterNetwork: 'main', defaultNetworks: ['storage', 'extra'] },
    ...{ multusNamespace: 'infra', systemNamespaces: ['kube-system', 'infra'] },
  });
  const { api, host, network } = node;
  define(api, 'infra', 'main', bridgeConfig(5));
  define(api, 'infra', 'extra', bridgeConfig(6));
  define(api, 'infra', 'other', bridgeConfig(7));
  define(api, 'shop', 'other', bridgeConfig(8));
  const namesOf = (name: string) => networkStatusOf(api, undefined, name).map((one) => one.name);

  const plain = await attachPod(node, '', { name: 'plain' });
  t.deepEqual(namesOf('plain'), ['infra/main', 'storage', 'infra/extra']);
  t.regex((await ipv4Of(plain.pod, 'eth0'))[0]!, /^10\.42\.5\./);
  await attachPod(node, '', { namespace: 'infra', name: 'system' });
  t.deepEqual(
    networkStatusOf(api, 'infra', 'system').map((one) => one.name),
    ['infra/main'],
  );

  const asking = (wanted: string, name: string) =>
    createPod(api, { 'v1.multus-cni.io/default-network': wanted }, { name });
  const exchanged = await attach(host, network, { args: asking('other', 'exchanged') });
  t.deepEqual(namesOf('exchanged'), ['infra/other', 'storage', 'infra/extra']);
  t.regex((await ipv4Of(exchanged.pod, 'eth0'))[0]!, /^10\.42\.7\./);
  const qualified = await attach(host, network, { args: asking('shop/other', 'qualified') });
  t.regex((await ipv4Of(qualified.pod, 'eth0'))[0]!, /^10\.42\.8\./);

  const refused = new Attachment(host, await host.addPod(), network, { args: asking('storage', 'refused') });
  t.regex(
    (await refused.tryAdd()).error!.msg,
    /NetworkAttachmentDefinition "infra\/storage", which does not exist/,
  );
  t.is((await runNetworkVerb(host, network, 'STATUS')).exit, 0);
});

test('the sample network takes its default network from a definition or from a file', async (t) => {
  const { host, api } = await makeNode(t);
  const access = { cluster: { 'certificate-authority': '/run/kube-pki/ca.crt' } };
  const directory = '/etc/cni/multus';
  await host.run(['mkdir', directory]);
  await host.run(['mv', api.kubeconfig('sample', access), `${directory}/cni-multus.kubeconfig`]);
  writeFileSync(host.file('/etc/cni/net.d/10-bridge.conflist'), JSON.stringify(sample('10-bridge.conflist')));
  const node = { host, api, network: sample('85-multus-kubernetes.conflist') };
  defineNetworks(node);
  for (const [name, isDefined] of [
    ['on-disk', false],
    ['defined', true],
  ] as const) {
    if (isDefined) define(api, 'kube-system', 'podnet', bridgeConfig(9));
    const pod = await attachPod(node, 'fast', { name });
    t.deepEqual(
      networkStatusOf(api, 'shop', name).map((one) => one.name),
      [isDefined ? 'kube-system/podnet' : 'podnet', 'shop/fast'],
    );
    t.regex((await ipv4Of(pod.pod, 'eth0'))[0]!, isDefined ? /^10\.42\.9\./ : /^10\.88\./);
    await pod.del();
    t.deepEqual(mentions(host, pod.pod), []);
  }
  const refused = await unattachedPod(node, 'infra/shared');
  t.regex((await refused.tryAdd()).error!.msg, /"namespaceIsolation" allows it only/);
});

test('networks of other namespaces are refused where namespaces are isolated', async (t) => {
  const node = await makeNode(t, { namespaceIsolation: true, globalNamespaces: 'infra' });
  const { api } = node;
  defineNetworks(node);
  define(api, 'default', 'hidden', bridgeConfig(3));
  const pod = await attachPod(node, 'fast,infra/shared', { name: 'first' });
  t.deepEqual(await interfacesOf(pod.pod), ['eth0', 'net1', 'net2']);
  const before = await besidesSandbox(node);
  const refused = await unattachedPod(node, 'fast,default/hidden');
  t.regex(
    (await refused.tryAdd()).error!.msg,
    /network "hidden" of namespace "default", but "namespaceIsolation" allows it only those of "shop", "infra"/,
  );
  t.deepEqual(await interfacesOf(refused.pod), []);
  t.deepEqual(networkStatusOf(api), []);
  await refused.pod.remove();
  t.deepEqual(await besidesSandbox(node), before);
  t.false(api.requests.some(({ path }) => path.includes('hidden')));
});

/** Annotations that cannot be met, with the configuration of the last network, and what ADD says. */
const requests: [string, string, string | undefined, RegExp][] = [
  [
    'half a list',
    '[{"name":"fast"}',
    undefined,
    /Annotation ".*networks" .*neither a list of names nor JSON/,
  ],
  [
    'what is nowhere',
    'fast,missing',
    undefined,
    /"shop\/missing", which does not exist at the Kubernetes API/,
  ],
  ['what is only on disk', 'storage', undefined, /"shop\/storage", which does not exist/],
  ['what is not JSON', 'torn', '{"type":', /"spec.config" of .*shop\/torn is not JSON/],
  ['what has no type', 'typeless', '{"cniVersion":"1.1.0"}', /shop\/typeless" cannot be used: .*no plugins/],
  ['what is no object', 'list', '[]', /shop\/list" cannot be used: .*must be a JSON object/],
  ['what should be on disk', 'nowhere', '', /No configuration in .* has the network "nowhere"/],
  ['a plugin that is missing', 'absent', '{"cniVersion":"1.1.0","type":"absent"}', /"absent"/],
  ['what fails', 'fast,bad', bridgeConfig(4, { vlan: 9999 }), /Network "bad", interface "net2"/],
];
test('ADD fails and leaves nothing when the annotation asks for what cannot be', async (t) => {
  const node = await makeWarmNode(t);
  const { host, api } = node;
  for (const [what, networks, config, pattern] of requests) {
    if (config !== undefined) define(api, 'shop', networks.split(',').at(-1)!, config);
    const pod = await unattachedPod(node, networks);
    const before = await besidesSandbox(node);
    const { error, stderr } = await pod.tryAdd();
    t.regex(error!.msg, pattern, what);
    t.notRegex(stderr, /While undoing/);
    t.deepEqual(await besidesSandbox(node), before, what);
    t.deepEqual(await interfacesOf(pod.pod), [], what);
    t.deepEqual(mentions(host, pod.pod), [], what);
    t.deepEqual(networkStatusOf(api), []);
    await pod.del();
    api.of('pods').remove('shop', 'web');
  }
});

const answers =
  (answer: ReturnType<KubeApi['onRequest']>) =>
  ({ api }: Node) => {
    api.onRequest = () => answer;
  };
const forbids =
  (resource: string) =>
  ({ api }: Node) => {
    api.isAllowed = (_user, _method, of) => of !== resource;
  };

/** Ways in which the API is unreachable or refuses, each with what brings it about, and what ADD says. */
const troubles: [string, (node: Node) => void | Promise<void>, number, RegExp][] = [
  ['is down', ({ api }) => api.down(), 11, /API at https:\/\/127\.0\.0\.1:6443 does not answer/],
  ['never answers', answers('hang'), 11, /does not answer/],
  ['hangs up', answers('close'), 11, /does not answer/],
  ['is overloaded', answers({ status: 503, body: '' }), 11, /cannot answer at present/],
  ['is a web page', answers({ status: 200, body: '<html>' }), 11, /does not speak/],
  ['is a load balancer', answers({ status: 404, body: 'default backend - 404' }), 11, /does not serve/],
  ['is something else', answers({ status: 200, body: { metadata: 1 } }), 11, /makes no sense/],
  ['knows no such user', ({ api }) => api.tokens.clear(), 11, /does not know the user/],
  ['forbids to read pods', forbids('pods'), 11, /forbids it/],
  ['forbids to read definitions', forbids('network-attachment-definitions'), 11, /forbids it/],
  ['forbids to write the status', forbids('pods/status'), 11, /forbids it/],
  [
    'has no definitions',
    ({ api }) => api.removeKind('network-attachment-definitions'),
    11,
    /Install the CustomResourceDefinition/,
  ],
  ['has no kubeconfig', ({ host }) => rmSync(host.file(kubeconfig)), 5, /kubeconfig" cannot be read/],
  ['has a broken kubeconfig', ({ host }) => writeFileSync(host.file(kubeconfig), '{'), 6, /Kubeconfig/],
];
test('ADD fails and leaves nothing when the API is away or refuses, and DEL succeeds', async (t) => {
  const node = await makeWarmNode(t);
  const { host, api } = node;
  const definitions = api.of('network-attachment-definitions');
  for (const [how, cause, code, pattern] of troubles) {
    const living = await attachPod(node, 'fast', { name: 'living' });
    const pod = await unattachedPod(node, 'fast');
    const before = await besidesSandbox(node);
    await cause(node);
    const { error, stderr } = await pod.tryAdd();
    t.is(error?.code, code, how);
    t.regex(error!.msg, pattern, how);
    t.notRegex(stderr, /While undoing|node-token/);
    t.deepEqual(await interfacesOf(pod.pod), [], how);
    t.deepEqual(await besidesSandbox(node), before, how);
    // Nothing was saved of this one, so that the API is asked in vain.
    await pod.del();
    t.deepEqual(await besidesSandbox(node), before, how);
    await living.check();
    await living.del();
    t.deepEqual(mentions(host, living.pod), [], how);

    api.onRequest = () => undefined;
    api.isAllowed = allowedByManifest('multus');
    api.tokens.set('node-token', 'system:node');
    api.kubeconfig();
    if (!api.of('network-attachment-definitions')) {
      api.addKind(definitions.kind);
      defineNetworks(node);
    }
    await api.down();
    await api.up();
    for (const name of ['living', 'web']) api.of('pods').remove('shop', name);
  }
});

test('the pod that the runtime names must be the one that the API knows', async (t) => {
  const node = await makeNode(t);
  const { host, api, network } = node;
  defineNetworks(node);
  const old = createPod(api, { [annotation]: 'fast' });
  api.of('pods').remove('shop', 'web');
  const sandbox = await host.addPod();
  const gone = await new Attachment(host, sandbox, network, { args: old }).tryAdd();
  t.is(gone.error!.code, 3);
  t.regex(gone.error!.msg, /Pod "shop\/web" does not exist at the Kubernetes API/);
  const args = createPod(api, { [annotation]: 'backup' });
  const other = await new Attachment(host, sandbox, network, { args: old }).tryAdd();
  t.is(other.error!.code, 3);
  t.regex(other.error!.msg, /Pod "shop\/web" has UID "[-0-9a-f]{36}" at the .* deleted and created again/);
  t.deepEqual(await interfacesOf(sandbox), []);
  t.deepEqual(networkStatusOf(api), []);
  const pod = await attach(host, network, { pod: sandbox, args });
  t.deepEqual(
    networkStatusOf(api).map(({ name }) => name),
    ['pods', 'shop/backup'],
  );
  await pod.del();

  // The kubelet gives a pod from a file a UID that the API does not know.
  const fromFile = { [annotation]: 'fast', 'kubernetes.io/config.source': 'file' };
  createPod(api, fromFile, { name: 'static' });
  await attach(host, network, { args: argsFor('shop', 'static', 'hash-of-the-file') });
  t.deepEqual(
    networkStatusOf(api, 'shop', 'static').map(({ name }) => name),
    ['pods', 'shop/fast'],
  );
});

test('a pod that is deleted during ADD, or created again, is attached and not written to', async (t) => {
  const node = await makeNode(t);
  const { host, api } = node;
  defineNetworks(node);
  for (const again of [false, true]) {
    const pod = await unattachedPod(node, 'fast');
    api.onRequest = ({ method }) => {
      if (method !== 'PATCH') return undefined;
      api.of('pods').remove('shop', 'web');
      if (again) createPod(api, {});
      return undefined;
    };
    const { exit, stderr } = await pod.tryAdd();
    t.is(exit, 0);
    t.regex(stderr, /status of pod "shop\/web" is not written, as the pod does not exist any more/);
    t.deepEqual(await interfacesOf(pod.pod), ['eth0', 'net1']);
    await pod.del();
    t.deepEqual(mentions(host, pod.pod), []);
  }
  t.deepEqual(annotationsOf(api), {});
  // That the API finds an update invalid, of a pod that is still there, is no reason to go on.
  const pod = await unattachedPod(node, 'fast', 'other');
  api.onRequest = ({ method }) =>
    method === 'PATCH'
      ? { status: 422, body: { kind: 'Status', message: 'annotations: Too long' } }
      : undefined;
  t.regex((await pod.tryAdd()).error!.msg, /annotations: Too long/);
  t.deepEqual(await interfacesOf(pod.pod), []);
  t.deepEqual(mentions(host, pod.pod), []);
});

test('DEL goes by what was saved, though pod, definitions, API and sandbox are gone', async (t) => {
  const node = await makeNode(t);
  const { host, api } = node;
  defineNetworks(node);
  const pod = await attachPod(node, 'fast,infra/shared');
  const kept = await attachPod(node, 'fast', { name: 'kept' });
  api.of('pods').remove('shop', 'web');
  api.of('network-attachment-definitions').remove('shop', 'fast');
  const asked = api.requests.length;
  await pod.check();
  await kept.check();
  const valid = [kept, pod].map((one) => ({ containerID: one.pod.containerId, ifname: 'eth0' }));
  t.is((await runNetworkVerb(host, node.network, 'GC', { valid })).exit, 0);
  await api.down();
  await pod.pod.remove();
  await pod.del({ netns: '' });
  t.deepEqual(mentions(host, pod.pod), []);
  const gc = await runNetworkVerb(host, node.network, 'GC', { valid: [] });
  t.is(gc.exit, 0, gc.stderr);
  t.deepEqual(mentions(host, kept.pod), []);
  t.deepEqual(await interfacesOf(kept.pod), []);
  await api.up();
  t.is(api.requests.length, asked, 'CHECK, GC and DEL of what is saved ask the API nothing');
});

test('GC needs no definition of the default network', async (t) => {
  const node = await makeNode(t, { clusterNetwork: 'main' });
  define(node.api, 'kube-system', 'main', bridgeConfig(1));
  const pod = await attachPod(node, '');
  await node.api.down();
  const { exit, stderr } = await runNetworkVerb(node.host, node.network, 'GC', { valid: [] });
  t.is(exit, 0, stderr);
  t.deepEqual(mentions(node.host, pod.pod), []);
});

test('DEL of what was not saved asks the API, and without it detaches from the default network', async (t) => {
  const node = await makeNode(t);
  const { host, api } = node;
  defineNetworks(node);
  for (const isAway of [false, true]) {
    const pod = await attachPod(node, 'fast', { name: isAway ? 'away' : 'there' });
    rmSync(host.file(`/var/lib/cni/multus/${pod.pod.containerId}`));
    if (isAway) api.onRequest = () => 'hang';
    let stderr = '';
    await until('the API answers in time, unless it is away', async () => {
      ({ stderr } = succeeded(await pod.tryDel()));
      return isAway || !/does not answer/.test(stderr);
    });
    if (isAway) t.regex(stderr, /Nothing was saved of the container's networks: .*does not answer/);
    t.deepEqual(await interfacesOf(pod.pod), isAway ? ['net1'] : []);
    // Of the network that was not found: its address and its result.
    t.is(mentions(host, pod.pod).length, isAway ? 2 : 0);
  }
});

test('STATUS says that the API is away', async (t) => {
  const node = await makeNode(t);
  const { host, api, network } = node;
  const check = async () => (await runNetworkVerb(host, network, 'STATUS')).error;
  t.is(await check(), undefined);
  api.onRequest = () => 'hang';
  t.deepEqual([(await check())!.code, /does not answer/.test((await check())!.msg)], [50, true]);
  api.onRequest = () => undefined;
  await api.down();
  t.is((await check())!.code, 50);
  await api.up();
  api.tokens.clear();
  t.regex((await check())!.msg, /does not know the user/);
  rmSync(host.file(kubeconfig));
  t.regex((await check())!.msg, /cannot be read/);
});

test('without a pod in CNI_ARGS, only the networks of every pod are read from the API', async (t) => {
  const node = await makeNode(t);
  const { host, network, api } = node;
  const pod = await attach(host, network, { args: 'IgnoreUnknown=1;NETWORKS=storage' });
  t.deepEqual(await interfacesOf(pod.pod), ['eth0', 'net1']);
  t.deepEqual(
    api.requests.map(({ resource }) => resource),
    ['network-attachment-definitions'],
  );
  await pod.del();
  t.deepEqual(mentions(host, pod.pod), []);
});
