/**
 * What the name server of a network knows, in the files that dnsmasq reads. Names and places of the files
 * are those of podman's dnsname, so that either goes on with what the other has written. Each line of ours
 * ends in a comment that names its attachment. Sources: dnsmasq(8), hosts(5).
 */

import { Address } from '../../lib/ip.ts';

/** Names of one address. */
export interface HostRecord {
  /** What {@link ownerOf} makes of the attachment; "" in lines that others wrote. */
  readonly owner: string;
  readonly address: Address;
  /** The first is the one that a look-up of the address gives. */
  readonly names: readonly string[];
}

/** A port of a container, as an SRV record has it. */
export interface ServiceRecord {
  readonly owner: string;
  /** Such as "_http._tcp.web.dns.podman". */
  readonly service: string;
  readonly target: string;
  readonly port: number;
}

/** Everything that a name server is told. */
export interface Records {
  readonly hosts: readonly HostRecord[];
  readonly services: readonly ServiceRecord[];
  /** Addresses of the host that it answers at. */
  readonly servers: readonly Address[];
}

/** Settings of a network. */
export interface ServerSettings {
  readonly domain: string;
  /** Where questions about other names go; the host's own servers when there are none. */
  readonly upstreams: readonly string[];
}

/** What stands for an attachment in the files of its network. */
export function ownerOf({ containerId, ifname }: { containerId: string; ifname: string }): string {
  return `${containerId}/${ifname}`;
}

const ownerComment = /\t# cni ([A-Za-z0-9_.-]+\/[^\s/:]+)$/;
const hostLine = /^([0-9A-Fa-f.:]+)[ \t]+([A-Za-z0-9_. \t-]+?)[ \t]*$/;
const serviceLine = /^srv-host=([A-Za-z0-9_.-]+),([A-Za-z0-9_.-]+),(\d{1,5}),0,0$/;
const listenLine = /^listen-address=(.+)$/;

/** Reads the names of addresses. Lines that make no sense are left out. */
export function parseHosts(text: string): HostRecord[] {
  return lines(text).flatMap(({ line, owner }) => {
    const [, host = '', names = ''] = hostLine.exec(line) ?? [];
    const address = Address.tryParse(host);
    return address ? [{ owner, address, names: names.split(/[ \t]+/) }] : [];
  });
}

/** Writes what {@link parseHosts} reads. */
export function formatHosts(hosts: readonly HostRecord[]): string {
  return hosts
    .map(({ address, names, owner }) => `${address}\t${names.join(' ')}${commentOf(owner)}\n`)
    .join('');
}

/** Reads services and addresses from the configuration of dnsmasq. */
export function parseConfig(text: string): Pick<Records, 'services' | 'servers'> {
  const all = lines(text);
  return {
    services: all.flatMap(({ line, owner }) => {
      const [, service = '', target = '', port] = serviceLine.exec(line) ?? [];
      return port ? [{ owner, service, target, port: Number(port) }] : [];
    }),
    servers: all.flatMap(({ line }) => Address.tryParse(listenLine.exec(line)?.[1] ?? '') ?? []),
  };
}

/**
 * Writes the configuration of dnsmasq.
 * @param directory where its files are.
 */
export function formatConfig(
  { services, servers }: Pick<Records, 'services' | 'servers'>,
  { domain, upstreams }: ServerSettings,
  directory: string,
): string {
  return [
    '# Written by the CNI plugin dnsname, which writes it anew for each container.',
    ...(upstreams.length > 0 ? ['no-resolv', ...upstreams.map((one) => `server=${one}`)] : []),
    'strict-order',
    `local=/${domain}/`,
    `domain=${domain}`,
    'expand-hosts',
    `pid-file=${directory}/pidfile`,
    'except-interface=lo',
    'bind-dynamic',
    'no-hosts',
    ...servers.map((address) => `listen-address=${address}`),
    `addn-hosts=${directory}/addnhosts`,
    ...services.map(
      ({ service, target, port, owner }) => `srv-host=${service},${target},${port},0,0${commentOf(owner)}`,
    ),
    '',
  ].join('\n');
}

function lines(text: string): { line: string; owner: string }[] {
  return text.split('\n').map((whole) => {
    const [comment, owner] = ownerComment.exec(whole) ?? [];
    return comment ? { line: whole.slice(0, -comment.length), owner: owner! } : { line: whole, owner: '' };
  });
}

function commentOf(owner: string): string {
  return owner && `\t# cni ${owner}`;
}
