/**
 * The rules of kube-proxy's iptables mode, as input of iptables-restore(8). Source: kube-proxy 1.33,
 * pkg/proxy/iptables.
 */

import {
  type Cluster,
  chainHash,
  type Endpoint,
  endpointText,
  localEndpoints,
  masqueradeMark,
  type Service,
} from './service.ts';

/** A table's chains and rules, in the order in which they were added. */
class Table {
  private readonly chains: string[] = [];
  private readonly rules: string[] = [];
  private readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  /** Declares a chain. @returns its name. */
  chain(name: string): string {
    this.chains.push(`:${name} - [0:0]`);
    return name;
  }

  append(chain: string, comment: string, rule: string): void {
    this.add('-A', chain, comment, rule);
  }

  /** Inserts a jump to one of kube-proxy's chains at the head of a built-in chain, before CNI's jumps. */
  hook(chain: string, comment: string, target: string): void {
    this.add('-I', chain, comment, `-j ${target}`);
  }

  private add(how: '-A' | '-I', chain: string, comment: string, rule: string): void {
    this.rules.push(`${how} ${chain}${comment && ` -m comment --comment "${comment}"`} ${rule}`);
  }

  toString(): string {
    return [`*${this.name}`, ...this.chains, ...this.rules, 'COMMIT', ''].join('\n');
  }
}

export function iptablesRules(cluster: Cluster, services: readonly Service[]): string {
  return `${filterTable()}${natTable(cluster, services)}`;
}

/** Accepts packets marked for masquerading, and answers. */
function filterTable(): Table {
  const table = new Table('filter');
  const forward = table.chain('KUBE-FORWARD');
  table.hook('FORWARD', 'kubernetes forwarding rules', forward);
  table.append(forward, '', '-m conntrack --ctstate INVALID -j DROP');
  const mark = `-m mark --mark ${masqueradeMark}/${masqueradeMark}`;
  table.append(forward, 'kubernetes forwarding rules', `${mark} -j ACCEPT`);
  const answers = '-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT';
  table.append(forward, 'kubernetes forwarding conntrack rule', answers);
  return table;
}

function natTable(cluster: Cluster, services: readonly Service[]): Table {
  const table = new Table('nat');
  for (const name of ['KUBE-SERVICES', 'KUBE-NODEPORTS', 'KUBE-POSTROUTING', 'KUBE-MARK-MASQ'])
    table.chain(name);
  for (const hook of ['PREROUTING', 'OUTPUT'])
    table.hook(hook, 'kubernetes service portals', 'KUBE-SERVICES');
  table.hook('POSTROUTING', 'kubernetes postrouting rules', 'KUBE-POSTROUTING');
  table.append('KUBE-MARK-MASQ', '', `-j MARK --or-mark ${masqueradeMark}`);
  table.append('KUBE-POSTROUTING', '', `-m mark ! --mark ${masqueradeMark}/${masqueradeMark} -j RETURN`);
  table.append('KUBE-POSTROUTING', '', `-j MARK --xor-mark ${masqueradeMark}`);
  const masquerade = '-j MASQUERADE --random-fully';
  table.append('KUBE-POSTROUTING', 'kubernetes service traffic requiring SNAT', masquerade);
  for (const service of services) addService(table, cluster, service);
  table.append(
    'KUBE-SERVICES',
    'kubernetes service nodeports; NOTE: this must be the last rule in this chain',
    `-m addrtype --dst-type LOCAL${cluster.family === 6 ? ' ! -d ::1/128' : ''} -j KUBE-NODEPORTS`,
  );
  return table;
}

function addService(table: Table, { podCIDR }: Cluster, service: Service): void {
  const { name, protocol = 'tcp', clusterIP, port, nodePort, externalIPs = [], endpoints, policy } = service;
  const hash = chainHash([name, protocol], 16);
  const to = (ip: string) => `-m ${protocol} -p ${protocol} -d ${ip} --dport ${port}`;
  for (const endpoint of endpoints) addEndpoint(table, service, endpoint);
  const cluster = table.chain(`KUBE-SVC-${hash}`);
  table.append('KUBE-SERVICES', `${name} cluster IP`, `${to(clusterIP)} -j ${cluster}`);
  table.append(cluster, `${name} cluster IP`, `${to(clusterIP)} ! -s ${podCIDR} -j KUBE-MARK-MASQ`);
  balance(table, service, cluster, endpoints);
  if (nodePort === undefined && externalIPs.length === 0) return;

  const external = table.chain(`KUBE-EXT-${hash}`);
  for (const ip of externalIPs)
    table.append('KUBE-SERVICES', `${name} external IP`, `${to(ip)} -j ${external}`);
  if (nodePort !== undefined) {
    const match = `-m ${protocol} -p ${protocol} --dport ${nodePort}`;
    table.append('KUBE-NODEPORTS', name, `${match} -j ${external}`);
  }
  if (policy !== 'Local') {
    table.append(external, `masquerade traffic for ${name} external destinations`, '-j KUBE-MARK-MASQ');
    table.append(external, '', `-j ${cluster}`);
    return;
  }
  const local = table.chain(`KUBE-SVL-${hash}`);
  const ofNode = '-m addrtype --src-type LOCAL';
  table.append(external, `pod traffic for ${name} external destinations`, `-s ${podCIDR} -j ${cluster}`);
  table.append(external, `masquerade LOCAL traffic for ${name}`, `${ofNode} -j KUBE-MARK-MASQ`);
  table.append(external, `route LOCAL traffic for ${name}`, `${ofNode} -j ${cluster}`);
  table.append(external, '', `-j ${local}`);
  balance(table, service, local, localEndpoints(service));
}

/** Sends each connection to one of the endpoints: the one that its client stays with, or any. */
function balance(table: Table, service: Service, chain: string, endpoints: readonly Endpoint[]): void {
  const { name, affinity } = service;
  for (const endpoint of affinity ? endpoints : []) {
    const target = endpointChain(service, endpoint);
    const known = `-m recent --name ${target} --rcheck --seconds ${affinity} --reap`;
    table.append(chain, name, `${known} -j ${target}`);
  }
  for (const [i, endpoint] of endpoints.entries()) {
    const left = endpoints.length - i;
    const share = `-m statistic --mode random --probability ${(1 / left).toFixed(10)} `;
    const jump = `${left > 1 ? share : ''}-j ${endpointChain(service, endpoint)}`;
    table.append(chain, `${name} -> ${endpointText(endpoint)}`, jump);
  }
}

function addEndpoint(table: Table, service: Service, endpoint: Endpoint): void {
  const { name, protocol = 'tcp', affinity } = service;
  const chain = table.chain(endpointChain(service, endpoint));
  const note = affinity ? `-m recent --name ${chain} --set ` : '';
  table.append(chain, name, `-s ${endpoint.ip} -j KUBE-MARK-MASQ`);
  const translate = `-m ${protocol} -p ${protocol} -j DNAT --to-destination ${endpointText(endpoint)}`;
  table.append(chain, name, `${note}${translate}`);
}

function endpointChain({ name, protocol = 'tcp' }: Service, endpoint: Endpoint): string {
  return `KUBE-SEP-${chainHash([name, protocol, endpointText(endpoint)], 16)}`;
}
