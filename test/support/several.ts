/** A host whose pods have several networks: a bridge by default, and macvlan and others by name. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import type { AttachOptions, Conflist } from './chain.ts';
import { type Host, makeHostWithDevices, type Pod } from './host.ts';
import { addresses, files, links, snapshot } from './observe.ts';

/** A chain with addresses of its own subnet, 10.41.`number`.0/24, and the given main plugin. */
function network(name: string, number: number, main: object): Conflist {
  const ipam = { type: 'host-local', ranges: [[{ subnet: `10.41.${number}.0/24` }]] };
  return { cniVersion: '1.1.0', name, plugins: [{ type: 'bridge', ...main, ipam }] };
}

/** The pods' default network, with portmap behind the bridge. */
const pods = network('pods', 0, { bridge: 'br0', isDefaultGateway: true });
pods.plugins.push({ type: 'portmap', capabilities: { portMappings: true } });

/** Networks by name, each in a file of its own. */
export const named: Conflist[] = [
  pods,
  network('storage', 1, { type: 'macvlan', master: 'up0', capabilities: { ips: true, mac: true } }),
  network('backup', 2, { bridge: 'br2', isGateway: true }),
  network('uplink', 3, { bridge: 'br3', isDefaultGateway: true }),
];

/** Writes networks to where plugins look for them. */
export function writeNetworks(host: Host, networks: readonly Conflist[], directory = '/etc/cni/net.d'): void {
  mkdirSync(host.file(directory), { recursive: true });
  for (const [i, one] of networks.entries())
    writeFileSync(host.file(`${directory}/${i + 20}-${one.name}.conflist`), JSON.stringify(one));
}

/** Makes a host that has the networks by name. */
export async function makeHostWithNetworks(t: ExecutionContext): Promise<Host> {
  const host = await makeHostWithDevices(t);
  await host.run(['ip', 'link', 'set', 'up1', 'up']);
  writeNetworks(host, named);
  return host;
}

/** The network that a runtime knows. @param keys of its one plugin. */
export function several(type: 'multus' | 'genie', keys: object): Conflist {
  return { cniVersion: '1.1.0', name: 'several', plugins: [{ type, ...keys }] };
}

/** {@link several}, for a runtime that passes on the annotations of pods. */
export const annotatedMultus = several('multus', {
  clusterNetwork: 'pods',
  capabilities: { 'io.kubernetes.cri.pod-annotations': true },
});

/** How a runtime passes on a pod's annotations. */
export function annotated(
  annotations: Record<string, string>,
  pod = 'web',
  namespace = 'shop',
): AttachOptions {
  return {
    args: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${pod}`,
    capabilities: { 'io.kubernetes.cri.pod-annotations': annotations },
  };
}

/** The IPv4 addresses of a pod's interface. */
export async function ipv4Of(pod: Pod, ifname: string): Promise<string[]> {
  return (await addresses(pod, ifname)).filter((one) => !one.includes(':'));
}

/** Names of a pod's interfaces, except `lo`. */
export async function interfacesOf(pod: Pod): Promise<string[]> {
  const names = (await links(pod)).map(({ ifname }) => ifname);
  return names.filter((name) => name !== 'lo').sort();
}

/** Files below /var/lib/cni that mention a container. */
export function mentions(host: Host, { containerId }: Pod): string[] {
  return Object.entries(files(host, '/var/lib/cni'))
    .filter(([file, text]) => file.includes(containerId) || text.includes(containerId))
    .map(([file]) => file);
}

/** Everything on the host except routes, which lag behind when a bridge loses its last port. */
export async function settled(host: Host): Promise<object> {
  return { ...(await snapshot(host)), routes: [] };
}

/** What is saved of a container's networks. */
export function savedOf(
  host: Host,
  { containerId }: Pod,
  type = 'multus',
): { Name: string; Bytes: string; ifnameRequest: string }[] {
  return JSON.parse(readFileSync(host.file(`/var/lib/cni/${type}/${containerId}`), 'utf8'));
}
