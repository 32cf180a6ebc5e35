/**
 * The rules of kube-proxy's nftables mode, as input of nft(8), with node ports on all addresses
 * (`--nodeport-addresses 0.0.0.0/0,::/0`). Source: kube-proxy 1.33, pkg/proxy/nftables.
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

export function nftablesRules(cluster: Cluster, services: readonly Service[]): string {
  const table = `${cluster.family === 4 ? 'ip' : 'ip6'} kube-proxy`;
  // Objects come before those that refer to them.
  return [
    `add table ${table}`,
    ...baseObjects(cluster).map((object) => `add ${object.replace(' ', ` ${table} `)}`),
    ...services.flatMap((service) => [
      ...objectsOf(cluster, service).map((object) => `add ${object.replace(' ', ` ${table} `)}`),
      ...elementsOf(service).map((element) => `add element ${table} ${element}`),
    ]),
    ...[...baseRules(cluster), ...services.flatMap((service) => rulesOf(cluster, service))].map(
      (rule) => `add rule ${table} ${rule}`,
    ),
    '',
  ].join('\n');
}

function baseObjects({ family }: Cluster): string[] {
  const address = `ipv${family}_addr`;
  return [
    `set cluster-ips { type ${address} ; }`,
    `map service-ips { type ${address} . inet_proto . inet_service : verdict ; }`,
    'map service-nodeports { type inet_proto . inet_service : verdict ; }',
    'chain filter-forward { type filter hook forward priority 0 ; }',
    'chain filter-output { type filter hook output priority 0 ; }',
    'chain nat-prerouting { type nat hook prerouting priority -100 ; }',
    'chain nat-output { type nat hook output priority -100 ; }',
    'chain nat-postrouting { type nat hook postrouting priority 100 ; }',
    ...['cluster-ips-check', 'mark-for-masquerade', 'masquerading', 'services'].map(
      (name) => `chain ${name}`,
    ),
  ];
}

function baseRules({ family, serviceCIDR }: Cluster): string[] {
  const ip = family === 4 ? 'ip' : 'ip6';
  return [
    `cluster-ips-check ${ip} daddr @cluster-ips reject`,
    `cluster-ips-check ${ip} daddr { ${serviceCIDR} } drop`,
    'filter-forward ct state new jump cluster-ips-check',
    'filter-output ct state new jump cluster-ips-check',
    `mark-for-masquerade mark set mark or ${masqueradeMark}`,
    `masquerading mark and ${masqueradeMark} == 0 return`,
    `masquerading mark set mark xor ${masqueradeMark}`,
    'masquerading masquerade fully-random',
    'nat-prerouting jump services',
    'nat-output jump services',
    'nat-postrouting jump masquerading',
    `services ${ip} daddr . meta l4proto . th dport vmap @service-ips`,
    `services fib daddr type local ${ip} daddr != ${family === 4 ? '127.0.0.0/8' : '::1'} meta l4proto . th dport vmap @service-nodeports`,
  ];
}

/** The chains of a Service, and its sets of clients that stay with an endpoint. */
function objectsOf({ family }: Cluster, service: Service): string[] {
  const { affinity, endpoints } = service;
  const chains = ['service', ...(isExternal(service) ? ['external'] : [])].map((kind) =>
    chainOf(kind, service),
  );
  const clients = `{ type ipv${family}_addr ; flags dynamic,timeout ; timeout ${affinity}s ; }`;
  return [
    ...[...chains, ...endpoints.map((endpoint) => chainOf('endpoint', service, endpoint))].map(
      (name) => `chain ${name}`,
    ),
    ...(affinity ? endpoints : []).map(
      (endpoint) => `set ${chainOf('affinity', service, endpoint)} ${clients}`,
    ),
  ];
}

/** Where packets to the addresses and the node port of a Service go. */
function elementsOf(service: Service): string[] {
  const { protocol = 'tcp', clusterIP, port, nodePort, externalIPs = [] } = service;
  const external = `goto ${chainOf('external', service)}`;
  return [
    `cluster-ips { ${clusterIP} }`,
    `service-ips { ${clusterIP} . ${protocol} . ${port} : goto ${chainOf('service', service)} }`,
    ...externalIPs.map((ip) => `service-ips { ${ip} . ${protocol} . ${port} : ${external} }`),
    ...(nodePort === undefined ? [] : [`service-nodeports { ${protocol} . ${nodePort} : ${external} }`]),
  ];
}

function rulesOf({ family, podCIDR }: Cluster, service: Service): string[] {
  const { protocol = 'tcp', clusterIP, endpoints, affinity, policy } = service;
  const ip = family === 4 ? 'ip' : 'ip6';
  const cluster = chainOf('service', service);
  const external = chainOf('external', service);
  const balance = (chain: string, among: readonly Endpoint[]) => [
    ...(affinity ? among : []).map(
      (one) =>
        `${chain} ${ip} saddr @${chainOf('affinity', service, one)} goto ${chainOf('endpoint', service, one)}`,
    ),
    `${chain} numgen random mod ${among.length} vmap { ${among
      .map((one, i) => `${i} : goto ${chainOf('endpoint', service, one)}`)
      .join(', ')} }`,
  ];
  const forOutside =
    policy === 'Local'
      ? [
          `${external} ${ip} saddr ${podCIDR} goto ${cluster}`,
          `${external} fib saddr type local jump mark-for-masquerade`,
          `${external} fib saddr type local goto ${cluster}`,
          ...balance(external, localEndpoints(service)),
        ]
      : [`${external} jump mark-for-masquerade`, `${external} goto ${cluster}`];
  return [
    `${cluster} ${ip} daddr ${clusterIP} ${ip} saddr != ${podCIDR} jump mark-for-masquerade`,
    ...balance(cluster, endpoints),
    ...(isExternal(service) ? forOutside : []),
    ...endpoints.flatMap((one) => {
      const chain = chainOf('endpoint', service, one);
      return [
        `${chain} ${ip} saddr ${one.ip} jump mark-for-masquerade`,
        ...(affinity ? [`${chain} update @${chainOf('affinity', service, one)} { ${ip} saddr }`] : []),
        `${chain} meta l4proto ${protocol} dnat to ${endpointText(one)}`,
      ];
    }),
  ];
}

function isExternal({ nodePort, externalIPs = [] }: Service): boolean {
  return nodePort !== undefined || externalIPs.length > 0;
}

function chainOf(kind: string, { name, protocol = 'tcp' }: Service, endpoint?: Endpoint): string {
  const where = endpoint && `${endpoint.ip.replaceAll(':', '.')}/${endpoint.port}`;
  const rest = `${name}/${protocol}/${where ? `__${where}` : ''}`;
  return `${kind}-${chainHash([rest], 8)}-${rest}`;
}
