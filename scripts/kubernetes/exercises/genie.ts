/** Several networks per pod, by genie. */

import { files } from '../../../test/support/observe.ts';
import type { Claims } from '../../claims.ts';
import { podsOf } from '../api.ts';
import { eventually, inPod } from '../clients.ts';
import { applyManifest, type Cluster, patience } from '../cluster.ts';
import { networkOf } from './networks.ts';

const genieNetwork = networkOf('genienet', {
  type: 'genie',
  capabilities: { portMappings: true },
  default_plugin: 'cbr0',
  kubernetes: { kubeconfig: '/etc/cni/net.d/multus.d/multus.kubeconfig' },
});

const lan = networkOf('lan', {
  type: 'macvlan',
  master: 'eth0',
  ipam: { type: 'host-local', ranges: [[{ subnet: '203.0.113.0/24' }]] },
});

/** A pod with CNI-Genie's annotation, while genie is its node's network. */
export async function genie(cluster: Cluster, claims: Claims): Promise<void> {
  const { plane } = cluster;
  const { name, node } = cluster.nodes[0]!;
  node.write('/etc/cni/net.d/60-lan.conflist', lan);
  node.write('/etc/cni/net.d/05-genie.conflist', genieNetwork);
  await applyManifest(plane, 'twofold.yaml');
  await plane.kubectl(['wait', 'pod/twofold', '--for=condition=Ready', patience]);
  const [pod] = await podsOf(cluster, 'twofold');
  const { stdout } = await inPod(cluster, pod!).run(['ip', '-o', '-4', 'address']);
  await claims.check(
    `genie on ${name}: a pod whose annotation "cni" names two networks has ${pod!.address} on eth0, and an address of the other on eth1`,
    Promise.resolve(
      stdout.includes(` ${pod!.address}/24 `) && / eth1 +inet 203\.0\.113\.\d+\/24 /.test(stdout),
    ),
  );
  await plane.kubectl(['delete', 'pod', 'twofold', '--wait', patience]);
  const reserved = () =>
    Object.keys(files(node, '/var/lib/cni/networks/lan')).filter((path) => /\/[0-9.]+$/.test(path));
  await claims.check(
    `genie on ${name}: once it is deleted, its addresses are free`,
    eventually(async () => reserved().length === 0),
  );
  await node.run(['rm', '/etc/cni/net.d/05-genie.conflist', '/etc/cni/net.d/60-lan.conflist']);
}
