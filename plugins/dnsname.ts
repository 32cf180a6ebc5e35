/** dnsname: gives a network's containers on this host DNS names, which a dnsmasq serves. */

import { Resolver } from 'node:dns/promises';
import type { Call } from '../lib/cni/call.ts';
import { addressesInSandbox, knownAddresses } from '../lib/cni/interface.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import type { Dns, Result } from '../lib/cni/result.ts';
import { array, type InferShape, integer, object, record, string, withDefault } from '../lib/cni/schema.ts';
import { allowQueries, checkQueries, withdrawQueries } from '../lib/firewall/queries.ts';
import type { Queries } from '../lib/firewall/queries-backend.ts';
import { Address } from '../lib/ip.ts';
import { listAddresses } from '../lib/kernel/address.ts';
import { hostRecords, isName, type Named, namesInDns, serviceRecords } from './dnsname/names.ts';
import { type HostRecord, ownerOf, type Records } from './dnsname/records.ts';
import { NameServer, requireDnsmasq } from './dnsname/server.ts';

/** How long a look-up may take on CHECK, in milliseconds. */
const longestLookUp = 2000;

const config = {
  domainName: withDefault(
    string({ description: 'Domain of the names, such as "cluster.local"; "dns.podman" by default.' }),
    'dns.podman',
  ),
  remoteServers: array(string(), {
    description: 'Addresses of the servers that know all other names; by default those of the host.',
  }),
  args: object({
    cni: object({
      hostname: string({ description: "The pod's host name, where it is not the pod's name." }),
      subdomain: string({ description: "The pod's subdomain, which is the name of a headless Service." }),
    }),
  }),
  runtimeConfig: object({
    aliases: record(array(string()), { description: 'Further names of the container, by network.' }),
    portMappings: array(
      object({ containerPort: integer({ max: 65535 }), protocol: withDefault(string(), 'tcp') }),
    ),
  }),
};

type Config = InferShape<typeof config>;
type DnsCall = Call<Config>;

export const plugin = definePlugin({
  name: 'dnsname',
  summary: 'Gives the containers of a network names, which a name server on the host answers.',
  role: 'chained',
  config,
  validate,

  explain: ({ domainName, remoteServers }) => [
    `Names the container in the domain "${domainName}": by its name and its aliases, and in Kubernetes as Kubernetes does`,
    'Adds an SRV record for each published port',
    'Runs a dnsmasq for the network, at the gateway of its containers, while it has any on this host',
    `Asks ${remoteServers?.length ? remoteServers.join(' and ') : 'the name servers of the host'} for all other names`,
    'Lets the containers ask it through the firewall of the host',
  ],

  async add(call) {
    const result = requirePrevResult(call);
    validate(call.config);
    requireDnsmasq(call.programs);
    const named = namedOf(call, result);
    const queries = queriesOf(call, result);
    if (named.addresses.length === 0) return result;
    const servers = queries.map(({ to }) => to);
    const server = serverOf(call);
    const { domainName } = call.config;
    const own = { hosts: hostRecords(named, domainName), services: serviceRecords(named, domainName) };
    const owner = ownerOf(call);
    let kept: OwnRecords = { hosts: [], services: [] };
    const takeBack = (now: Records) => exchange(now, owner, kept);
    await server.update((before) => {
      kept = {
        hosts: before.hosts.filter((one) => one.owner === owner),
        services: before.services.filter((one) => one.owner === owner),
      };
      call.undo('take back the names', () => server.update(takeBack));
      // Whoever had one of these addresses before is gone.
      const isStale = ({ address }: HostRecord) => named.addresses.some((one) => one.equals(address));
      return { ...exchange(before, owner, own, isStale), servers: union(before.servers, servers) };
    });
    // The rules are the network's, and others may need them by then.
    await allowQueries(call.programs, queries, () =>
      call.undo('take back the rules for look-ups', () => forget(call, takeBack)),
    );
    return { ...result, dns: pointedAt(result.dns, servers, domainName) };
  },

  async del(call) {
    const addresses = knownAddresses(call).map(({ address }) => address);
    // Lines that podman's plugin wrote name no container.
    const isStale = (one: HostRecord) =>
      one.owner === '' && addresses.some((address) => address.equals(one.address));
    await forget(call, (records) => exchange(records, ownerOf(call), { hosts: [], services: [] }, isStale));
  },

  async check(call) {
    const result = requirePrevResult(call);
    const named = namedOf(call, result);
    const queries = queriesOf(call, result);
    if (named.addresses.length === 0) return;
    await checkQueries(call.programs, queries);
    for (const { names, address } of hostRecords(named, call.config.domainName))
      for (const { to } of queries)
        await checkName(call, `${names[0]}.${call.config.domainName}`, address, to);
  },

  status(call) {
    validate(call.config);
    requireDnsmasq(call.programs);
  },

  async gc(call) {
    const keep = new Set(call.validAttachments.map(ownerOf));
    await forget(call, (records) => ({
      ...records,
      hosts: records.hosts.filter(({ owner }) => owner === '' || keep.has(owner)),
      services: records.services.filter(({ owner }) => keep.has(owner)),
    }));
  },
});

function validate({ domainName, remoteServers = [] }: Config): void {
  if (!isName(domainName))
    throw new Error(
      `"domainName" is ${JSON.stringify(domainName.slice(0, 300))}, but ${namesInDns}. Use another one`,
    );
  for (const one of remoteServers)
    if (!Address.tryParse(one))
      throw new Error(`"remoteServers" has "${one}". Give addresses, such as "192.0.2.53"`);
}

function serverOf({ network, programs, config }: DnsCall): NameServer {
  return new NameServer(network, programs, {
    domain: config.domainName,
    upstreams: config.remoteServers ?? [],
  });
}

/**
 * The names of the container. A name that is not valid in DNS is left out with a warning: Kubernetes and
 * podman allow such names, too.
 */
function namedOf(call: DnsCall, result: Result): Named {
  const { config, containerId, ifname, network } = call;
  const args = call.args(['K8S_POD_NAME', 'K8S_POD_NAMESPACE', 'K8S_POD_INFRA_CONTAINER_ID', 'K8S_POD_UID']);
  const { hostname, subdomain } = config.args?.cni ?? {};
  const { aliases = {}, portMappings = [] } = config.runtimeConfig ?? {};
  const usable = (where: string, name = ''): string => {
    if (name === '' || isName(name)) return name;
    call.warn(`${where} is left out, as it is ${JSON.stringify(name.slice(0, 300))}, but ${namesInDns}`);
    return '';
  };
  return {
    ...{ containerId, ifname },
    name: usable('CNI_ARGS: K8S_POD_NAME', args.K8S_POD_NAME),
    namespace: usable('CNI_ARGS: K8S_POD_NAMESPACE', args.K8S_POD_NAMESPACE),
    hostname: usable('"args.cni.hostname"', hostname),
    subdomain: usable('"args.cni.subdomain"', subdomain),
    aliases: (aliases[network] ?? [])
      .map((alias) => usable('"runtimeConfig.aliases"', alias))
      .filter(Boolean),
    addresses: addressesInSandbox(call, result).map(({ address }) => address.address),
    ports: portMappings.flatMap(({ containerPort, protocol }) =>
      containerPort && /^(?:tcp|udp|sctp)$/i.test(protocol)
        ? [{ containerPort, protocol: protocol.toLowerCase() }]
        : [],
    ),
  };
}

/**
 * The host's addresses at which the container can query the name server: its gateways.
 * @throws Error when the host has none of them.
 */
function queriesOf(call: DnsCall, result: Result): Queries[] {
  const local = listAddresses(call.host).map(({ prefix }) => prefix.address);
  const ips = addressesInSandbox(call, result);
  const queries = ips.flatMap(({ address, gateway }) =>
    gateway && local.some((one) => one.equals(gateway))
      ? [{ network: call.network, from: address.network, to: gateway }]
      : [],
  );
  if (ips.length > 0 && queries.length === 0)
    throw new Error(
      'The host has none of the gateways of the container, so that the container could ask no name server there. Set "isGateway" to true in the configuration of the plugin before, or use "ptp"',
    );
  return queries;
}

/** What a container adds to the records of its network. */
type OwnRecords = Pick<Records, 'hosts' | 'services'>;

/** Replaces an owner's records. @param isStale selects other owners' host records to remove as well. */
function exchange(
  records: Records,
  owner: string,
  own: OwnRecords,
  isStale: (record: HostRecord) => boolean = () => false,
): Records {
  const isOther = (record: { owner: string }) => record.owner !== owner;
  return {
    ...records,
    hosts: [...records.hosts.filter((one) => isOther(one) && !isStale(one)), ...own.hosts],
    services: [...records.services.filter(isOther), ...own.services],
  };
}

/** Removes records; with the network's last host record, also the firewall rules that admit its queries. */
async function forget(call: DnsCall, change: (records: Records) => Records): Promise<void> {
  await serverOf(call).update(async (records, programs) => {
    const after = change(records);
    if (after.hosts.length === 0) await withdrawQueries(programs, call.network);
    return after;
  });
}

function union(one: readonly Address[], other: readonly Address[]): Address[] {
  return [...one, ...other.filter((address) => !one.some((each) => each.equals(address)))];
}

/** Resolver settings with our servers and domain first. */
function pointedAt(dns: Dns, servers: readonly Address[], domain: string): Dns {
  const first = (own: readonly string[], others: readonly string[] = []) => [...new Set([...own, ...others])];
  return {
    ...dns,
    nameservers: first(servers.map(String), dns.nameservers),
    search: first([domain], dns.search),
  };
}

/** Looks up a name from the sandbox. @throws Error unless the server answers with the address. */
async function checkName(
  { sandbox }: DnsCall,
  name: string,
  address: Address,
  server: Address,
): Promise<void> {
  const resolver = new Resolver({ timeout: longestLookUp, tries: 1 });
  resolver.setServers([`${server}`]);
  let found: string[];
  try {
    // The query is sent before this returns, from a socket of the sandbox.
    found = await sandbox.netns.run(() =>
      address.family === 4 ? resolver.resolve4(name) : resolver.resolve6(name),
    );
  } catch (error) {
    throw new Error(
      `The name server at ${server} does not know "${name}": ${(error as Error).message}. Add any container to the network to start it again, or delete the container and add it again`,
    );
  }
  if (!found.some((one) => Address.tryParse(one)?.equals(address)))
    throw new Error(
      `The name server at ${server} says that "${name}" is ${found.join(', ')}, but the container has ${address}. Delete the container and add it again`,
    );
}
