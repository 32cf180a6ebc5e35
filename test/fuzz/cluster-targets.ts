/** What clusters share, and what nodes keep of it: the overlay and whereabouts. */

import { join } from 'node:path';
import { type Lease, leaseSubnets } from '../../agent/overlay/lease.ts';
import { parseNetworkConfig } from '../../agent/overlay/network-config.ts';
import { isOfNetwork, type Node, parseNode } from '../../agent/overlay/node.ts';
import { NodeTable } from '../../agent/overlay/node-table.ts';
import { readOverlaySettings } from '../../agent/overlay/settings.ts';
import { previousSubnets, writeSubnetFile } from '../../agent/overlay/subnet-file.ts';
import { AttachmentFiles } from '../../ipam/whereabouts/attachment-files.ts';
import { sharedIpam } from '../../ipam/whereabouts/config.ts';
import { EtcdBackend } from '../../ipam/whereabouts/etcd-backend.ts';
import { addressOf, ownerAt, ownerOf, parseHolding } from '../../ipam/whereabouts/keys.ts';
import { IpPool, type PoolObject } from '../../ipam/whereabouts/kubernetes/ip-pool.ts';
import { parseLegacy, withoutContainer } from '../../ipam/whereabouts/legacy.ts';
import { PendingReleases } from '../../ipam/whereabouts/pending.ts';
import { capacityOf, ignoredBounds, partsOf, resolvePools, subnetsOf } from '../../ipam/whereabouts/pools.ts';
import { digest } from '../../ipam/whereabouts/state.ts';
import { parseJson } from '../../lib/cni/json.ts';
import type { EtcdClient } from '../../lib/etcd/client.ts';
import { Address, Prefix } from '../../lib/ip.ts';
import { isObject } from '../../lib/object.ts';
import { httpAnswer, withHttpServer } from './answering.ts';
import { mayRefuse, mayRefuseLater, place, type Target } from './target.ts';
import { strangeJson } from './variants.ts';

const network = {
  ...{ EnableIPv6: true, Network: '10.244.0.0/16', SubnetLen: 24, SubnetMin: '10.244.1.0' },
  ...{ SubnetMax: '10.244.254.0', IPv6Network: 'fd00::/48', IPv6SubnetLen: 64 },
  Backend: { Type: 'vxlan', VNI: 1, Port: 8472, MTU: 1450, DirectRouting: true },
};
const prefix = '/coreos.com/network/subnets/';
const node = {
  ...{ PublicIP: '192.0.2.2', PublicIPv6: 'fd01::2', BackendType: 'vxlan' },
  ...{
    BackendData: { VNI: 1, VtepMAC: '02:00:00:00:00:01' },
    BackendV6Data: { VtepMAC: '02:00:00:00:00:02' },
  },
};
const reach = {
  backend: 'vxlan',
  publicIp: { 4: Address.parse('192.0.2.1'), 6: undefined },
  macs: { 4: undefined, 6: undefined },
};
/** An etcd that does all it is asked. */
const willing = {
  ask: async () => ({ header: {}, ID: '1', succeeded: true, responses: [{ response_put: {} }] }),
} as unknown as EtcdClient;

/** Leases a subnet in a network that has nodes already. */
async function lease(config: ReturnType<typeof parseNetworkConfig>, nodes: NodeTable): Promise<Lease> {
  const tenant = { client: willing, prefix, config, reach };
  const leased = await leaseSubnets(tenant, nodes.all, undefined);
  if (!leased || !isOfNetwork(config, leased.subnets))
    throw new TypeError(`Leased: ${JSON.stringify(leased)}`);
  nodes.othersThan(tenant, leased.subnets);
  return leased;
}

const owner = { node: 'n1', network: 'n', containerId: 'c1', ifname: 'eth0' };
const ownerPath = '/cni/addresses/of/n1/n/c1/eth0';
const holding = JSON.stringify({
  identity: 'pod a',
  addresses: [{ group: 'n', address: '10.1.0.2' }],
  host: 'h',
});
const waiting = {
  owner: ownerPath,
  holding,
  quarantine: 300,
  lists: ['/whereabouts/10.1.0.0/24'],
  cluster: 'k',
};
const flatFile = {
  ...{ range: '10.1.0.10-10.1.0.90/16', gateway: '10.1.0.1', exclude: ['10.1.0.16/29', '10.1.0.7'] },
  ...{ ipRanges: [{ range: 'fd00::/112', range_start: 'fd00::5', range_end: 'fd00::9' }], quarantine: 5 },
  ...{ etcd_host: '192.0.2.1:2379', kubernetes: { kubeconfig: '/k' }, log_level: 'debug' },
};

const base64 = (text: string) => Buffer.from(text).toString('base64');
const header = { revision: '5' };
const kvs = [{ key: base64(ownerPath), value: base64(holding), lease: '7' }];
const etcdAnswers = [
  { header, kvs, count: '1' },
  ...[true, false].map((succeeded) => ({
    ...{ header, succeeded },
    responses: [{ response_range: { kvs, count: '1' } }, { response_range: {} }, { response_range: { kvs } }],
  })),
];

export const clusterTargets: readonly Target[] = [
  {
    name: 'overlay-network',
    samples: strangeJson(network, { Network: '10.0.0.0/8', Backend: { Type: 'host-gw' } }),
    async run(input) {
      await mayRefuseLater(async () => {
        const config = parseNetworkConfig(input.toString('utf8'));
        await lease(config, new NodeTable(prefix, config, [], () => {}));
      });
    },
  },
  {
    name: 'overlay-node',
    // The key comes first, then its value.
    samples: [
      ...['10.244.3.0-24', '10.244.0.0-17&fd00:0:0:8000::-49'].map(
        (key) => `${key}\n${JSON.stringify(node)}`,
      ),
      ...strangeJson(node).map((value) => `10.244.3.0-24&fd00:0:0:3::-64\n${value}`),
    ],
    async run(input) {
      const [key = '', ...value] = input.toString('utf8').split('\n');
      const kv = { key: `${prefix}${key}`, value: value.join('\n'), lease: '7' };
      mayRefuse(() => requireNode(parseNode(key, kv.value)));
      for (const IPv6SubnetLen of [64, 126])
        await mayRefuseLater(async () => {
          const config = parseNetworkConfig(JSON.stringify({ ...network, IPv6SubnetLen }));
          const nodes = new NodeTable(prefix, config, [kv], () => {});
          nodes.change({ kv, isDeleted: false });
          await lease(config, nodes);
        });
    },
  },
  {
    name: 'overlay-settings',
    samples: [
      'null',
      ...strangeJson({
        ...{
          'etcd-endpoints': 'http://192.0.2.1:2379,https://[fd00::1]',
          'etcd-prefix': '/a/b',
          iface: 'eth0',
        },
        ...{
          'public-ip': '192.0.2.2',
          'public-ipv6': 'fd00::2',
          'subnet-lease-renew-margin': 60,
          'ip-masq': true,
        },
      }),
    ],
    run(input, directory) {
      place(join(directory, 'settings'), input);
      mayRefuse(() => readOverlaySettings(join(directory, 'settings')));
    },
  },
  {
    name: 'overlay-subnet-file',
    samples: [
      'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
      'FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
    ],
    run(input, directory) {
      const file = join(directory, 'subnet.env');
      place(file, input);
      const config = parseNetworkConfig(JSON.stringify(network));
      const subnets = previousSubnets(file);
      if (!subnets) return;
      isOfNetwork(config, subnets);
      writeSubnetFile(file, config, subnets, 1450, true);
      if (!previousSubnets(file)?.[4].network.equals(subnets[4].network))
        throw new Error(`Written and read: ${subnets[4]}, ${previousSubnets(file)?.[4]}`);
    },
  },
  {
    name: 'whereabouts-flat-file',
    samples: strangeJson(flatFile, { range: '10.1.0.0/24', node_slice_size: '/28' }),
    run(input, directory) {
      const configuration_path = join(directory, 'whereabouts.conf');
      place(configuration_path, input);
      mayRefuse(() => {
        const ipam = sharedIpam({ ipam: { type: 'whereabouts', configuration_path } });
        subnetsOf(ipam);
        ignoredBounds(ipam);
        for (const pool of resolvePools(ipam)) {
          const given = partsOf(pool).reduce(
            (sum, { first, last }) => sum + last.value - first.value + 1n,
            0n,
          );
          if (given !== capacityOf(pool)) throw new TypeError(`${given} of ${capacityOf(pool)} addresses`);
        }
      });
    },
  },
  {
    name: 'whereabouts-waiting',
    samples: strangeJson(waiting, { ...waiting, holding: undefined, lists: [1] }),
    async run(input, directory) {
      const path = join(directory, 'n');
      const name = digest(ownerPath);
      place(join(path, name), input);
      const files = new AttachmentFiles(path);
      const read = files.read(name);
      if (read && typeof read.owner.containerId !== 'string') throw new Error('Read without an owner');
      files.of(owner);
      for (const step of new PendingReleases(path).steps(async () => true)) await step();
      if (files.has(owner)) throw new Error('It waits still');
      files.write({ owner, guess: parseHolding(holding), quarantine: 1, lists: [] });
      if (files.of(owner)?.guess?.places.length !== 1) throw new Error('What was written cannot be read');
    },
  },
  {
    name: 'whereabouts-keys',
    samples: [
      ownerPath,
      '/cni/addresses/of/%/n/c1/eth0',
      '/cni/addresses/in/n/4-0a010002',
      holding,
      '{"owner":"x"}',
      '10.1.0.2 c1\n10.1.0.3 c2',
    ],
    run(input) {
      const text = input.toString('utf8');
      // Whatever is in it, none of these fail.
      for (const read of [ownerOf, ownerAt, addressOf, parseLegacy]) read(text);
      withoutContainer('/a', text, 'c1');
      for (const { address, group } of parseHolding(text).places)
        if (!(address instanceof Address) || typeof group !== 'string')
          throw new Error(`Read as a place: ${text}`);
    },
  },
  {
    name: 'whereabouts-pool',
    samples: strangeJson({
      metadata: {
        name: 'p',
        resourceVersion: '7',
        annotations: { 'cni-plugins-ts/quarantine': '{"2":{"id":"c1","until":9}}' },
      },
      spec: {
        range: '10.1.0.0/24',
        allocations: { '2': { id: 'c1', podref: 'd/p' }, '255': {}, '256': null },
      },
    }),
    run: (input) =>
      mayRefuse(() => {
        const allocation = { id: 'c2', podref: 'd/q' };
        const value = parseJson(input.toString('utf8'));
        const { metadata, spec } = isObject(value) ? value : {};
        // The client accepts no object without a name.
        const object = { metadata: { ...(isObject(metadata) && metadata), name: 'p' }, spec };
        const pool = new IpPool(object as PoolObject, Prefix.parse('10.1.0.0/16'));
        const address = Address.parse('10.1.0.9');
        for (const one of pool.entries)
          if (one.address.family !== 4) throw new TypeError(`${one.address} in IPv4`);
        JSON.stringify([
          [...pool.takenAt(5)].length,
          pool.at(address),
          pool.patch([{ address, allocation, until: 9 }]),
        ]);
        for (const usable of resolvePools({ range: '10.1.0.0/24' })) mayRefuse(() => pool.usableOf(usable));
      }),
  },
  {
    name: 'whereabouts-etcd',
    samples: etcdAnswers.map((one) => httpAnswer(one)),
    run: (answer) =>
      withHttpServer(answer, async (port) => {
        const ipam = { type: 'whereabouts', range: '10.1.0.0/29', etcd_host: `127.0.0.1:${port}` };
        const backend = new EtcdBackend({ ipam, owner, identity: 'pod a', podref: 'd/p' }, 200);
        const [pool] = await backend.pools();
        const uses = [
          () => backend.check([Address.parse('10.1.0.2')]),
          () => backend.probe(),
          () => backend.announce(),
          () => backend.countUsed(pool!),
          () => backend.release(backend.releaseOf([Address.parse('10.1.0.2')])),
          () => backend.leftBehind(false),
        ];
        for (const use of uses) await mayRefuseLater(use);
      }),
  },
];

/** @throws TypeError when a part of it does not match its type. */
function requireNode({ backend, publicIp, macs, subnets }: Node): void {
  const { 4: v4, 6: v6 } = publicIp;
  if (typeof backend !== 'string' || (v4 && v4.family !== 4) || (v6 && v6.family !== 6) || !subnets[4])
    throw new TypeError(`Read as a node: ${JSON.stringify({ backend, publicIp, subnets })}`);
  for (const mac of [macs[4], macs[6]])
    if (mac !== undefined && !/^([0-9a-f]{2}:)+[0-9a-f]{2}$/.test(mac))
      throw new TypeError(`Read as a MAC: ${mac}`);
}
