/** The chains of plugins into which faults are injected. */

import { mkdirSync, writeFileSync } from 'node:fs';
import type { AttachOptions, Conflist, PluginConf, PortMapping } from '../support/chain.ts';
import { dropForwarded, useLegacyIptables } from '../support/firewall.ts';
import type { Host, Teardown } from '../support/host.ts';
import { endNameServer, nameServer } from '../support/name-server.ts';
import { lookAtOpenVswitch, OpenVswitch } from '../support/open-vswitch.ts';
import { named, writeNetworks } from '../support/several.ts';

/** A chain, and the host that it needs. */
export interface Subject {
  readonly network: Conflist;
  /** What the runtime passes besides port mappings. */
  readonly capabilities?: Record<string, unknown>;
  /** CNI_IFNAME, "eth0" when left out. */
  readonly ifname?: string;
  /** CNI_ARGS. */
  readonly args?: string;
  /** Whether there can be only one attachment at a time. */
  readonly isExclusive?: boolean;
  /** Whether the interface is a device of the host, and comes back when the namespace ends. */
  readonly isDevice?: boolean;
  /**
   * Whether each system call is tried with one way of cleaning up and with one error, in turn, instead of
   * all: for chains whose plugins are mostly tried in others.
   */
  readonly isSampled?: boolean;
  /** Makes what the chain expects of its host. */
  prepare?(host: Host, t: Teardown): Promise<unknown>;
  /** What the plugins change on the host besides what is looked at anyway. */
  look?(host: Host): Promise<unknown>;
}

/** All that could be tried at a call, or one of it in turn. @param nth which call. */
export function toTry<T>({ isSampled }: Subject, all: readonly T[], nth: number): readonly T[] {
  return isSampled && all.length > 0 ? [all[nth % all.length]!] : all;
}

/** Whether a chain maps the ports that the runtime passes. */
export function mapsPorts({ plugins }: Conflist): boolean {
  return plugins.some(({ type }) => type === 'portmap');
}

/** The ports that the runtime passes. @param nth which attachment: each has ports of its own. */
export function mappingsOf({ network }: Subject, nth = 0): PortMapping[] {
  if (!mapsPorts(network)) return [];
  return [
    { hostPort: 8080 + nth, containerPort: 80, protocol: 'tcp' },
    { hostPort: 5353 + nth, containerPort: 53, protocol: 'udp' },
  ];
}

/** How the runtime attaches a pod. @param nth see {@link mappingsOf}. */
export function attachmentOptions(subject: Subject, nth = 0): AttachOptions & { ifname: string } {
  const { capabilities = {}, ifname = 'eth0', args } = subject;
  const portMappings = mappingsOf(subject, nth);
  return { ifname, ...(args !== undefined && { args }), capabilities: { ...capabilities, portMappings } };
}

const hostLocal = {
  type: 'host-local',
  ranges: [[{ subnet: '10.31.0.0/24' }], [{ subnet: 'fd00:31::/64' }]],
  routes: [{ dst: '0.0.0.0/0' }],
};

const tuning = {
  type: 'tuning',
  mtu: 1400,
  allmulti: true,
  sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' },
};

const bandwidth = {
  type: 'bandwidth',
  ingressRate: 1_000_000,
  ingressBurst: 1_000_000,
  egressRate: 1_000_000,
  egressBurst: 1_000_000,
};

const bridge = { type: 'bridge', bridge: 'br0', isGateway: true };

/** The capability by which a runtime passes the annotations of a pod. */
const annotationKey = 'io.kubernetes.cri.pod-annotations';
const annotated = { [annotationKey]: true };

const networkName = 'proof';

/** Every subject by name. Those of {@link guestSubjects} need kinds of interfaces that the kernel may lack. */
export const subjects: Readonly<Record<string, Subject>> = {
  iptables: {
    network: networkOf(
      {
        type: 'bridge',
        bridge: 'br0',
        isGateway: true,
        ipMasq: true,
        ipMasqBackend: 'iptables',
        hairpinMode: true,
        ipam: hostLocal,
      },
      { type: 'portmap', backend: 'iptables', capabilities: { portMappings: true } },
      { type: 'firewall', backend: 'iptables', ingressPolicy: 'same-bridge' },
      bandwidth,
      tuning,
    ),
  },
  nftables: {
    network: networkOf(
      {
        type: 'bridge',
        bridge: 'br0',
        isGateway: true,
        ipMasq: true,
        ipMasqBackend: 'nftables',
        macspoofchk: true,
        ipam: hostLocal,
      },
      {
        type: 'portmap',
        backend: 'nftables',
        conditionsV4: ['ip', 'saddr', '!=', '203.0.113.0/24'],
        capabilities: { portMappings: true },
      },
      { type: 'firewall', backend: 'nftables', ingressPolicy: 'isolated' },
    ),
    async prepare(host) {
      await dropForwarded(host);
      // The plugin accepts what containers initiate; what is mapped is up to the operator.
      await host.run(['nft', 'add rule inet filter forward ct status dnat accept']);
    },
  },
  ptp: { network: networkOf({ type: 'ptp', ipMasq: true, ipam: hostLocal }, { type: 'sbr' }) },
  macvlan: {
    network: networkOf({ type: 'macvlan', master: 'up0', ipam: hostLocal }),
    prepare: (host) => addPair(host, 'up0', 'up1'),
  },
  tap: { network: networkOf({ type: 'tap', ipam: hostLocal }) },
  'host-device': {
    network: networkOf({ type: 'host-device', device: 'dev0', ipam: hostLocal }),
    isExclusive: true,
    isDevice: true,
    // Down, as it is when it is returned.
    prepare: (host) => addPair(host, 'dev0', 'dev1', 'down'),
  },
  'iptables-legacy': {
    network: networkOf({ type: 'ptp', ipMasq: true, ipMasqBackend: 'iptables', ipam: hostLocal }),
    isSampled: true,
    prepare: useLegacyIptables,
  },
  dnsname: {
    network: networkOf({ ...bridge, ipam: hostLocal }, { type: 'dnsname' }),
    args: 'IgnoreUnknown=1;K8S_POD_NAME=web',
    isSampled: true,
    prepare: async (host, t) => endNameServer(t, host, networkName),
    look: async (host) => nameServer(host, networkName) !== undefined,
  },
  ovs: {
    network: networkOf(
      { type: 'ovs', bridge: 'br1', vlan: 7, ipam: hostLocal },
      { type: 'ovs-mirror-producer', bridge: 'br1', mirrors: [{ name: 'm1', ingress: true, egress: true }] },
    ),
    isSampled: true,
    prepare: (host, t) => OpenVswitch.start(t, host),
    look: lookAtOpenVswitch,
  },
  'ovs-mirror-consumer': {
    network: networkOf(
      { type: 'ovs', bridge: 'br1' },
      { type: 'ovs-mirror-consumer', bridge: 'br1', mirrors: [{ name: 'm1' }] },
    ),
    isExclusive: true,
    isSampled: true,
    prepare: (host, t) => OpenVswitch.start(t, host),
    look: lookAtOpenVswitch,
  },
  multus: {
    network: networkOf({ type: 'multus', clusterNetwork: 'pods', capabilities: annotated }),
    capabilities: { [annotationKey]: { 'k8s.v1.cni.cncf.io/networks': 'backup' } },
    isSampled: true,
    prepare: async (host) => writeNetworks(host, named),
  },
  genie: {
    network: networkOf({ type: 'genie', default_plugin: 'pods', capabilities: annotated }),
    capabilities: { [annotationKey]: { cni: 'backup' } },
    isSampled: true,
    prepare: async (host) => writeNetworks(host, named),
  },
  loopback: { network: networkOf({ type: 'loopback' }), ifname: 'lo' },
  static: {
    network: networkOf({
      type: 'static',
      ipam: { type: 'static', addresses: [{ address: '10.31.0.9/24' }] },
    }),
  },
  'host-local': { network: networkOf({ type: 'host-local', ipam: hostLocal }) },
  flannel: {
    network: networkOf({ type: 'flannel' }),
    async prepare(host) {
      mkdirSync(host.file('/run/flannel'), { recursive: true });
      writeFileSync(
        host.file('/run/flannel/subnet.env'),
        'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
      );
    },
  },
};

/** Subjects for User Mode Linux. */
export const guestSubjects: Readonly<Record<string, Subject>> = {
  ipvlan: {
    network: networkOf({ type: 'ipvlan', master: 'up0', ipam: hostLocal }),
    prepare: (host) => addPair(host, 'up0', 'up1'),
  },
  vlan: {
    network: networkOf({ type: 'vlan', master: 'up0', vlanId: 7, ipam: hostLocal }),
    prepare: (host) => addPair(host, 'up0', 'up1'),
  },
  vrf: {
    network: networkOf({ type: 'ptp', ipam: hostLocal }, { type: 'vrf', vrfname: 'blue' }),
  },
  dummy: { network: networkOf({ type: 'dummy', ipam: hostLocal }) },
};

/** Plugins of the suite that are in no subject, and why. */
export const exceptions: Readonly<Record<string, string>> = {
  dhcp: 'leases are those of a daemon and of a server; test/network/dhcp*.test.ts ends and restarts them',
  whereabouts: 'needs etcd; proved by npm run addresses -- lives',
};

function networkOf(...plugins: PluginConf[]): Conflist {
  return { cniVersion: '1.1.0', name: networkName, plugins };
}

/** Gives a host a veth pair. */
function addPair(host: Host, name: string, peer: string, state = 'up'): Promise<string> {
  return host.run(['ip', 'link', 'add', name, state, 'type', 'veth', 'peer', 'name', peer]);
}
