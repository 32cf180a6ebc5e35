/**
 * multus: which network of a directory is the pods' default one, and which of a pod's networks gets the IPv6
 * default route, as the kernel would make a multipath route of several.
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { attach } from '../support/chain.ts';
import type { Pod } from '../support/host.ts';
import { ipJson } from '../support/observe.ts';
import {
  annotated,
  ipv4Of,
  makeHostWithNetworks,
  named,
  several,
  writeNetworks,
} from '../support/several.ts';

const annotation = 'k8s.v1.cni.cncf.io/networks';
const network = several('multus', {
  clusterNetwork: 'six0',
  capabilities: { 'io.kubernetes.cri.pod-annotations': true },
});
const dual = (number: number) => ({
  ...{ cniVersion: '1.1.0', name: `six${number}` },
  plugins: [
    {
      ...{ type: 'bridge', bridge: `six${number}`, isDefaultGateway: true },
      ipam: { type: 'host-local', ranges: [[{ subnet: `fd00:${number}::/64` }]] },
    },
  ],
});

/** Next hops of the default routes, as "INTERFACE GATEWAY". */
async function defaultHops(pod: Pod): Promise<string[]> {
  interface Hop {
    dev: string;
    gateway: string;
  }
  const all = await ipJson<Hop & { dst: string; nexthops?: Hop[] }>(pod, '-6', 'route', 'show');
  return all
    .filter(({ dst }) => dst === 'default')
    .flatMap(({ nexthops, ...only }) => nexthops ?? [only])
    .map(({ dev, gateway }) => `${dev} ${gateway}`);
}

for (const [whose, networks, expected] of [
  ['of the default network', 'six1,six2', 'eth0 fd00::1'],
  [
    'of the network that is to have it',
    '[{"name":"six1","default-route":[]},{"name":"six2"}]',
    'net1 fd00:1::1',
  ],
  ['that is asked for', '[{"name":"six1"},{"name":"six2","default-route":["fd00:2::9"]}]', 'net2 fd00:2::9'],
] as const)
  test(`the default route of IPv6 ${whose} stays alone`, async (t) => {
    const host = await makeHostWithNetworks(t);
    writeNetworks(host, [dual(0), dual(1), dual(2)]);
    const pod = await attach(host, network, annotated({ [annotation]: networks }));
    t.deepEqual(await defaultHops(pod.pod), [expected]);
    await pod.check();
    await pod.del();
  });

test('of a directory, the default network is that of the first file, be it of a list or of a single plugin', async (t) => {
  const host = await makeHostWithNetworks(t);
  const [pods, , backup] = named;
  const single = { name: 'backup', cniVersion: '1.1.0', ...backup!.plugins[0] };
  mkdirSync(host.file('/etc/cni/own'));
  writeFileSync(host.file('/etc/cni/own/10-cluster.conf'), JSON.stringify(single));
  writeFileSync(host.file('/etc/cni/own/87-podman-bridge.conflist'), JSON.stringify(pods));
  const own = several('multus', { clusterNetwork: '/etc/cni/own' });
  const { pod } = await attach(host, own);
  t.regex((await ipv4Of(pod, 'eth0'))[0]!, /^10\.41\.2\./);
  writeFileSync(host.file('/etc/cni/own/05-first.conflist'), JSON.stringify(pods));
  t.regex((await ipv4Of((await attach(host, own)).pod, 'eth0'))[0]!, /^10\.41\.0\./);
});
