/**
 * The DNS names of an attachment: podman's, and those that Kubernetes gives to pods. Source: the DNS
 * specification of Kubernetes, version 1.1.0.
 */

import { readFileSync } from 'node:fs';
import type { Address } from '../../lib/ip.ts';
import { type HostRecord, ownerOf, type ServiceRecord } from './records.ts';

/** What a runtime says about a container. */
export interface Named {
  readonly containerId: string;
  readonly ifname: string;
  readonly addresses: readonly Address[];
  /** Name of the pod or container; "" when the runtime gives none. */
  readonly name: string;
  /** The Kubernetes namespace; "" outside Kubernetes. */
  readonly namespace: string;
  /** As in the pod's specification; "" when it has none. */
  readonly hostname: string;
  readonly subdomain: string;
  readonly aliases: readonly string[];
  /** Its published ports. */
  readonly ports: readonly { readonly containerPort: number; readonly protocol: string }[];
}

const label = /^[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/;
const longestName = 253;

/** Whether a name is valid in DNS. No other name may get into dnsmasq's files. */
export function isName(name: string): boolean {
  return name.length <= longestName && name.split('.').every((part) => label.test(part));
}

/** What {@link isName} requires, for messages. */
export const namesInDns = `a name in DNS has labels of at most 63 letters, digits, "-" and "_" with dots between them, and at most ${longestName} characters`;

/** The names of a container's addresses. @param domain of the network. */
export function hostRecords(named: Named, domain: string): HostRecord[] {
  const { name, containerId, namespace, aliases, addresses } = named;
  const plain = [name || containerId.slice(0, 12), ...aliases];
  return addresses.flatMap((address) => {
    const all = [
      ...plain,
      ...(namespace ? [`${dashed(address)}.${namespace}.pod.${domain}`] : []),
      ...(isInSubdomain(named) ? [subdomainName(named, domain), subdomainOf(named, domain)] : []),
    ];
    const names = [...new Set(all.filter(isName))];
    return names.length > 0 ? [{ owner: ownerOf(named), address, names }] : [];
  });
}

/** SRV records of a container's ports, by port number and by the service's name in /etc/services. */
export function serviceRecords(named: Named, domain: string): ServiceRecord[] {
  const { name, containerId, ports } = named;
  const own = `${name || containerId.slice(0, 12)}.${domain}`;
  const places = [
    { at: own, target: own },
    ...(isInSubdomain(named)
      ? [{ at: subdomainOf(named, domain), target: subdomainName(named, domain) }]
      : []),
  ];
  const records = new Map<string, ServiceRecord>();
  for (const { containerPort: port, protocol } of ports)
    for (const portName of [`${port}`, serviceName(port, protocol)].filter((one) => one !== undefined))
      for (const { at, target } of places) {
        const service = `_${portName}._${protocol}.${at}`;
        if (isName(service) && isName(target))
          records.set(service, { owner: ownerOf(named), service, target, port });
      }
  return [...records.values()];
}

function isInSubdomain({ name, hostname, namespace, subdomain }: Named): boolean {
  return namespace !== '' && subdomain !== '' && (hostname || name) !== '';
}

/** The name of a headless Service, which all pods of the subdomain share. */
function subdomainOf({ namespace, subdomain }: Named, domain: string): string {
  return `${subdomain}.${namespace}.svc.${domain}`;
}

function subdomainName(named: Named, domain: string): string {
  return `${named.hostname || named.name}.${subdomainOf(named, domain)}`;
}

/** "10-244-1-139"; for IPv6, with "-" in place of each ":". */
function dashed(address: Address): string {
  return `${address}`.replaceAll(/[.:]/g, '-').replace(/^-/, '0-').replace(/-$/, '-0');
}

/** Source: services(5). */
function serviceName(port: number, protocol: string): string | undefined {
  let text: string;
  try {
    text = readFileSync('/etc/services', 'utf8');
  } catch {
    return undefined; // Not every host has the file.
  }
  return new RegExp(`^([a-z0-9][a-z0-9-]*)[ \\t]+${port}/${protocol}\\b`, 'm').exec(text)?.[1];
}
