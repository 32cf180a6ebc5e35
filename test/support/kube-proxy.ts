/** Services on a node without a cluster: the rules that kube-proxy would write for them, in either mode. */

import type { Host } from './host.ts';
import { iptablesRules } from './kube-proxy/iptables.ts';
import { nftablesRules } from './kube-proxy/nftables.ts';
import type { Cluster, Service } from './kube-proxy/service.ts';

export type ProxyMode = 'iptables' | 'nftables';
export const proxyModes: readonly ProxyMode[] = ['iptables', 'nftables'];

/** Writes the rules for all Services of one family, on a host that has no rules of kube-proxy's yet. */
export async function proxyServices(
  host: Host,
  mode: ProxyMode,
  cluster: Cluster,
  services: readonly Service[],
): Promise<void> {
  if (mode === 'nftables') {
    await host.run(['nft', '-f', '-'], { stdin: nftablesRules(cluster, services) });
    return;
  }
  const restore = cluster.family === 4 ? 'iptables-restore' : 'ip6tables-restore';
  await host.run([restore, '--noflush'], { stdin: iptablesRules(cluster, services) });
  // As kube-proxy does for node ports on 127.0.0.1, which has no counterpart in IPv6.
  if (cluster.family === 4)
    await host.run(['sh', '-c', 'echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet']);
}
