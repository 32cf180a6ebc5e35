/**
 * The records of a network's name server, in the files that dnsmasq reads. The files have the names and
 * places that podman's dnsname gives them, so that each plugin can carry on with what the other has written.
 * Each of our lines ends in a comment that names its attachment. Sources: dnsmasq(8), hosts(5).
 */

import { Address } from '../../lib/ip.ts';

/** Names of one address. */
export interface HostRecord {
  /** The attachment, as {@link ownerOf} writes it; "" in lines that others wrote. */
  readonly owner: string;
  readonly address: Address;
  /** The first is the answer to a reverse look-up of the address. */
  readonly names: readonly string[];
}

/** A container's port, as an SRV record describes it. */
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
  /** The host's addresses that it listens on. */
  readonly servers: readonly Address[];
}

/** Settings of a network. */
export interface ServerSettings {
  readonly domain: string;
  /** Servers to ask for other names; the host's own when empty. */
  readonly upstreams: readonly string[];
}

/** What identifies an attachment in the files of its network. */
export function ownerOf({ containerId, ifname }: { containerId: string; ifname: string }): string {
  return `${containerId}/${ifname}`;
}

const ownerComment = /\t# cni ([A-Za-z0-9_.-]+\/[^\s/:]+)$/;
const hostLine = /^([0-9A-Fa-f.:]+)[ \t]+([A-Za-z0-9_. \t-]+?)[ \t]*$/;
const serviceLine = /^srv-host=([A-Za-z0-9_.-]+),([A-Za-z0-9_.-]+),(\d{1,5}),0,0$/;
const listenLine = /^listen-address=(.+)$/;

/** Reads the names of addresses, skipping malformed lines. */
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
