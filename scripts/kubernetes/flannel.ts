/**
 * Stands in for flanneld, which Debian does not have: writes what flanneld does with --kube-subnet-mgr and
 * --ip-masq, and adds the routes of its backend host-gw. Sources: flannel's Documentation/configuration.md,
 * backends.md.
 */

import { sample } from '../../test/support/chain.ts';
import { until } from '../../test/support/observe.ts';
import { type ControlPlane, podNetwork } from './control-plane.ts';
import type { Machine } from './machine.ts';

/**
 * Connects the pods of all nodes, each of which gets a range of addresses from the controllers.
 * @returns the range of each node by its name.
 */
export async function connectPods(
  plane: ControlPlane,
  machines: readonly Machine[],
): Promise<Map<string, string>> {
  const ranges = new Map<string, string>();
  for (const { name } of machines)
    await until(`${name} is registered and has a range of addresses`, async () => {
      const get = ['get', 'node', name, '--output=jsonpath={.spec.podCIDR}'];
      ranges.set(name, (await plane.tryKubectl(get)).stdout);
      return ranges.get(name) !== '';
    });
  for (const { name, node } of machines) {
    const gateway = ranges.get(name)!.replace('.0/', '.1/');
    const lease = [`FLANNEL_NETWORK=${podNetwork}`, `FLANNEL_SUBNET=${gateway}`, 'FLANNEL_MTU=1500'];
    node.write('/run/flannel/subnet.env', [...lease, 'FLANNEL_IPMASQ=true', ''].join('\n'));
    for (const other of machines)
      if (other.name !== name)
        await node.run(['ip', 'route', 'add', ranges.get(other.name)!, 'via', other.address]);
    for (const rule of [
      ['--source', podNetwork, '--destination', podNetwork, '--jump', 'RETURN'],
      ['--source', podNetwork, '!', '--destination', '224.0.0.0/4', '--jump', 'MASQUERADE'],
    ])
      await node.run(['iptables', '--wait', '--table', 'nat', '--append', 'POSTROUTING', ...rule]);
    node.write('/etc/cni/net.d/40-flannel.conflist', sample('40-flannel.conflist'));
  }
  return ranges;
}
