/** What pods ask for, what is remembered of them, and what the Kubernetes API says of them. */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { listRecords } from '../../cli/records.ts';
import { IpPools } from '../../ipam/whereabouts/kubernetes/ip-pools.ts';
import { Reservations } from '../../ipam/whereabouts/kubernetes/reservations.ts';
import { readSlices, sliceOf } from '../../ipam/whereabouts/kubernetes/slices.ts';
import type { Call } from '../../lib/cni/call.ts';
import { ifnameProblem, isValidName } from '../../lib/cni/invocation.ts';
import { Address, Prefix } from '../../lib/ip.ts';
import { KubernetesClient } from '../../lib/kubernetes/client.ts';
import { type Cluster, readKubeconfig } from '../../lib/kubernetes/kubeconfig.ts';
import { readCached } from '../../lib/networks/attachment-cache.ts';
import { definedNetwork } from '../../lib/networks/definition.ts';
import { Devices } from '../../lib/networks/devices.ts';
import { usualDirectories } from '../../lib/networks/directories.ts';
import { PodApi } from '../../lib/networks/pod-api.ts';
import { SavedDelegates } from '../../lib/networks/saved.ts';
import { parseSelections } from '../../lib/networks/selection.ts';
import { httpAnswer, withHttpServer } from './answering.ts';
import { mayRefuse, mayRefuseLater, place, type Target } from './target.ts';
import { strangeJson } from './variants.ts';

const attachment = { network: 'n', containerId: 'c1', ifname: 'eth0' };
const list = { cniVersion: '1.1.0', name: 'n', plugins: [{ type: 'bridge', capabilities: { ips: true } }] };
const bytes = Buffer.from(JSON.stringify(list)).toString('base64');
const result = {
  cniVersion: '1.1.0',
  interfaces: [{ name: 'eth0', sandbox: '/n' }],
  ips: [{ address: '10.1.0.2/24' }],
};
const saved = {
  ...{
    ConfList: { name: 'n', plugins: [{ type: 'bridge' }] },
    Name: 'a/n',
    ifnameRequest: 'net1',
    Bytes: bytes,
  },
  attachment: {
    ...{ network: 'n', ifname: 'eth0', netns: '/n', delegateIfname: 'net1', args: 'A=b;C=d' },
    ...{ capabilityArgs: { ips: ['10.1.0.9/24'] }, defaultRoute: ['10.1.0.1'], result },
  },
};

/** A call of a plugin for a pod, as far as the code that asks the API looks at it. */
const call = {
  ...{ command: 'ADD', config: { cniVersion: '1.1.0', name: 'n' }, warn: () => {} },
  context: { invocation: { args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=d;K8S_POD_NAME=p;K8S_POD_UID=u1' } },
} as unknown as Call;

const metadata = { name: 'p', namespace: 'd', uid: 'u1', resourceVersion: '7', labels: {} };
const pool = {
  metadata: { ...metadata, annotations: { 'cni-plugins-ts/quarantine': '{"2":{"id":"c1","until":99}}' } },
  spec: {
    range: '10.1.0.0/24',
    allocations: { '2': { id: 'c1', podref: 'd/p', ifname: 'eth0' }, '-1': null, '99999999999999999999': 1 },
  },
};
const objects = [
  pool,
  { metadata: {}, items: [pool, pool] },
  { metadata: { continue: 'x' }, items: [pool] },
  { metadata: { ...metadata, annotations: { 'k8s.v1.cni.cncf.io/networks': '[{"name":"a"}]' } } },
  {
    metadata: { ...metadata, annotations: { 'k8s.v1.cni.cncf.io/resourceName': 'v/r' } },
    spec: { config: JSON.stringify(list) },
  },
  { metadata, spec: { containerid: 'c1', podref: 'd/p', ifname: 'eth0' } },
  {
    metadata,
    status: { allocations: [{ nodeName: 'N1', sliceRange: '10.1.0.0/28' }, null, { nodeName: 'n2' }] },
  },
  { metadata: { ...metadata, annotations: null, resourceVersion: { toString: 1 } }, spec: null, status: 1 },
];

const own = { id: 'c1', podref: 'd/p', ifname: 'eth0' };
const address = Address.parse('10.1.0.2');
/** What plugins ask of the API. */
const uses: readonly ((client: KubernetesClient) => Promise<unknown>)[] = [
  (client) => client.get('/version'),
  (client) => client.update('/api/v1/pods/p', { metadata }),
  (client) => client.remove('/api/v1/pods/p', { uid: 'u1' }),
  async (client) => {
    const pools = new IpPools(client, 'd', 'fuzz');
    const read = await pools.read('p', Prefix.parse('10.1.0.0/24'));
    if (!read) return;
    if (!read.entries.every((one) => one.address instanceof Address)) throw new TypeError('No address');
    read.takenAt(1);
    await pools.change(read, [{ address, allocation: own, until: 5 }]);
  },
  (client) => new IpPools(client, 'd', 'fuzz').readAll(['p']),
  (client) => new IpPools(client, 'd', 'fuzz').isHeldBy(address, 'c2'),
  (client) => new Reservations(client, 'd', new IpPools(client, 'd', 'fuzz')).has('', address, own),
  (client) =>
    new Reservations(client, 'd', new IpPools(client, 'd', 'fuzz')).release(
      '',
      address,
      { ...own, id: 'c2' },
      async () => true,
    ),
  async (client) => sliceOf(await readSlices(client, 'd', 'n'), 'n1', 'n'),
];

const kubeconfig = (server: string) => ({
  ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'c' },
  clusters: [{ name: 'k', cluster: { server, 'insecure-skip-tls-verify': true } }],
  contexts: [{ name: 'c', context: { cluster: 'k', user: 'u', namespace: 'd' } }],
  users: [{ name: 'u', user: { token: 'abc', username: 'n', password: 'p' } }],
});

export const podTargets: readonly Target[] = [
  {
    name: 'kubernetes-reply',
    samples: [
      ...objects.map((object) => httpAnswer(object)),
      httpAnswer({ kind: 'Status', message: 'no', reason: 'Conflict' }, '404 Not Found'),
      httpAnswer('<html>', '403 Forbidden'),
      httpAnswer('', '101 Switching Protocols', 'upgrade: x\r\nconnection: upgrade\r\n'),
    ],
    run: (answer, directory) =>
      withHttpServer(answer, async (port) => {
        const file = join(directory, 'kubeconfig');
        const origin = `http://127.0.0.1:${port}`;
        place(file, JSON.stringify(kubeconfig(origin)));
        using client = new KubernetesClient(readKubeconfig(file), { timeoutMs: 200 });
        for (const use of uses) await mayRefuseLater(() => use(client));
        const api = new PodApi(call, file);
        await mayRefuseLater(() => api.annotations());
        await mayRefuseLater(() => api.annotate({ a: 'b' }));
        await mayRefuseLater(() => definedNetwork(call, api, [directory], { namespace: 'd', name: 'n' }));
      }),
  },
  {
    name: 'kubeconfig',
    samples: [
      ...strangeJson(kubeconfig('https://[fd00::1]:6443/a/')),
      'current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\nclusters:\n- name: k\n' +
        '  cluster: {server: "https://192.0.2.1", certificate-authority-data: LS0tLS1CRUdJTiBY}\n' +
        'users:\n- &u\n  name: u\n  user:\n    tokenFile: token\n    <<: *u\n',
    ],
    run(input, directory) {
      place(join(directory, 'kubeconfig'), input);
      mayRefuse(() => requireCluster(readKubeconfig(join(directory, 'kubeconfig'))));
    },
  },
  {
    name: 'pod-annotation',
    samples: [
      'a/b@net1, c,d@net2',
      ...strangeJson([
        { name: 'a', namespace: 'b', interface: 'net1', ips: ['10.1.0.9/24'], mac: '02:00:00:00:00:01' },
        { name: 'c', 'default-route': ['10.1.0.1'], 'cni-args': { a: 1 }, deviceID: 'd', portMappings: [{}] },
        { name: 'd', interfaceRequest: 'x', bandwidth: {}, 'infiniband-guid': 'c2:11' },
      ]),
    ],
    run(input) {
      mayRefuse(() => {
        const selections = parseSelections(input.toString('utf8'), 'Annotation "a"');
        for (const { namespace, name, ifname, args } of selections)
          if (
            !isValidName(name) ||
            (namespace && !isValidName(namespace)) ||
            (ifname && ifnameProblem(ifname))
          )
            throw new TypeError(`Taken for names: ${namespace} ${name} ${ifname}`);
          else if (Object.values(args).some((value) => /[;=]/.test(value)))
            throw new TypeError(`Taken for CNI_ARGS: ${JSON.stringify(args)}`);
      });
    },
  },
  {
    name: 'network-definition',
    samples: strangeJson(
      list,
      { type: 'bridge' },
      { name: 'n', type: 'bridge', cniVersion: '0.3.1', ipam: {} },
    ),
    async run(input) {
      const definition = { namespace: 'd', name: 'n', config: input.toString('utf8'), resourceName: 'v/r' };
      const api = { definition: async () => definition } as unknown as PodApi;
      await mayRefuseLater(() => definedNetwork(call, api, [], definition));
    },
  },
  {
    name: 'kubelet-devices',
    samples: [
      '{"Data":{"PodDeviceEntries":[{"PodUID":"u1","ResourceName":"v/r"}]}}',
      ...strangeJson({
        Data: {
          PodDeviceEntries: [{ PodUID: 'u1', ResourceName: 'v/r', DeviceIDs: { '-1': ['0000:03:02.0'] } }],
        },
      }),
    ],
    run(input, directory) {
      place(join(directory, 'checkpoint'), input);
      const devices = new Devices('u1', join(directory, 'checkpoint'));
      mayRefuse(() => {
        for (let i = 0; i < 3; i++)
          if (!['string', 'undefined'].includes(typeof devices.next('v/r')?.id)) throw new TypeError('No ID');
      });
    },
  },
  {
    name: 'saved-delegates',
    samples: [
      ...strangeJson([saved]),
      ...[[{ Bytes: bytes, ifnameRequest: '../a' }], [saved, { Bytes: bytes }]].map((one) =>
        JSON.stringify(one),
      ),
    ],
    run(input, directory) {
      for (const path of usualDirectories(directory)) {
        place(join(path, 'c1'), input);
        const delegates = new SavedDelegates(path);
        mayRefuse(() => delegates.read('c1'));
        for (const { ifname } of delegates.load(attachment) ?? [])
          if (ifname && ifnameProblem(ifname)) throw new Error(`Taken for an interface: ${ifname}`);
      }
      // As operators see it.
      listRecords(directory);
      for (const path of usualDirectories(directory)) {
        const delegates = new SavedDelegates(path);
        delegates.save(attachment, '/n', delegates.load(attachment) ?? []);
        delegates.remove(attachment);
        if (delegates.load(attachment)) throw new Error('What was removed is there still');
      }
    },
  },
  {
    name: 'multus-cache',
    samples: [
      ...strangeJson({
        kind: 'cniCacheV1',
        containerId: 'c1',
        config: 'e30=',
        ifName: 'eth0',
        networkName: 'n',
        netns: '/n',
        cniArgs: [['A', 'b']],
        result,
      }),
      JSON.stringify(result),
      JSON.stringify({ ...result, cniVersion: { toString: 1 } }),
    ],
    run(input, directory) {
      mkdirSync(join(directory, 'results'));
      place(join(directory, 'results/n-c1-eth0'), input);
      mayRefuse(() => readCached(directory, attachment));
      place(join(directory, 'c1'), JSON.stringify([{ Bytes: bytes }]));
      const [one] = new SavedDelegates(directory).read('c1') ?? [];
      if (one && typeof one.netns !== 'string')
        throw new Error(`Read as a path: ${JSON.stringify(one.netns)}`);
      new SavedDelegates(directory).remove(attachment);
    },
  },
];

/** @throws TypeError when a part of it does not match its type. */
function requireCluster({ endpoint, tls, authorization, namespace = '' }: Cluster): void {
  const { host, port, isSecure } = endpoint;
  const texts: unknown[] = [
    host,
    namespace,
    authorization ?? '',
    tls.ca ?? '',
    tls.cert ?? '',
    tls.servername ?? '',
  ];
  if (!texts.every((one) => typeof one === 'string')) throw new TypeError(`Read as text: ${texts}`);
  if (!Number.isInteger(port) || port < 1 || port > 65535 || typeof isSecure !== 'boolean')
    throw new TypeError(`Read as an address: ${JSON.stringify(endpoint)}`);
}
