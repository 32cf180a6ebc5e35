/** Services as kube-proxy knows them, and what its rules for them have in common in both modes. */

import { createHash } from 'node:crypto';

/** One port of a Service, over one family. */
export interface Service {
  /** Namespace and name, such as "default/web". */
  name: string;
  /** TCP when left out. */
  protocol?: 'tcp' | 'udp';
  clusterIP: string;
  port: number;
  nodePort?: number;
  /** The addresses by which `externalIPs` and the load balancer reach the node, on `port`. */
  externalIPs?: readonly string[];
  /** externalTrafficPolicy; Cluster when left out. */
  policy?: 'Cluster' | 'Local';
  /** Seconds for which a client stays with its endpoint (sessionAffinity ClientIP). */
  affinity?: number;
  endpoints: readonly Endpoint[];
}

export interface Endpoint {
  ip: string;
  port: number;
  /** It is on another node. */
  remote?: boolean;
}

/** What kube-proxy is told of the cluster, for one family. */
export interface Cluster {
  family: 4 | 6;
  /** The addresses of all pods (`--cluster-cidr`). */
  podCIDR: string;
  serviceCIDR: string;
}

/** The mark on packets to be masqueraded. Source: `--iptables-masquerade-bit`, 14 by default. */
export const masqueradeMark = '0x4000';

/** The hash that distinguishes chains of one kind. @param length number of characters. */
export function chainHash(parts: readonly string[], length: number): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const digest = createHash('sha256').update(parts.join('')).digest();
  return Array.from(digest.subarray(0, length), (byte) => alphabet[byte % 32]).join('');
}

/** Address and port in one. */
export function endpointText({ ip, port }: Endpoint): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** The endpoints for traffic from outside under externalTrafficPolicy Local. */
export function localEndpoints({ endpoints }: Service): Endpoint[] {
  return endpoints.filter(({ remote }) => !remote);
}
