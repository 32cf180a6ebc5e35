/** `cni explain FILE`: what ADD would do, step by step, without doing it. */

import type { CommandModule } from 'yargs';
import { isObject } from '../lib/cni/schema.ts';
import { ipamTypeOf, poolsOf, sizeOf } from './addresses.ts';
import { type NetworkList, type PluginEntry, readNetworkFile } from './libcni/conflist.ts';
import { count, paint, print } from './terminal.ts';

type Config = Readonly<Record<string, unknown>>;

export const explain: CommandModule<object, { file: string }> = {
  command: 'explain <file>',
  describe: 'Tell what a network does to a pod, without doing it',
  builder: (yargs) =>
    yargs
      .positional('file', { type: 'string', demandOption: true, describe: 'A network configuration' })
      .example('$0 explain /etc/cni/net.d/10-bridge.conflist', 'Step by step'),
  handler: ({ file }) => {
    const network = readNetworkFile(file);
    print(paint('bold', `ADD of network "${network.name}", in CNI ${network.cniVersion || '0.1.0'}`));
    network.plugins.forEach((plugin, i) => {
      print(`\n${paint('bold', `${i + 1}. ${plugin.type}`)}`);
      for (const step of stepsOf(plugin, network)) print(`   - ${step}`);
    });
    print(
      `\nDEL takes it back from the last plugin to the first, each told what ADD gave. ${afterwards(network)}`,
    );
  },
};

function afterwards({ cniVersion, disableCheck }: NetworkList): string {
  if (disableCheck) return 'CHECK is switched off by "disableCheck".';
  return cniVersion >= '0.4.0'
    ? 'CHECK asks each plugin whether all is as ADD left it.'
    : 'This version has no CHECK.';
}

/** What each plugin does with its configuration. A plugin of another suite is only named. */
function stepsOf({ type, config, capabilities }: PluginEntry, network: NetworkList): string[] {
  const steps = known[type]?.(config, network) ?? [
    'Runs the executable of that name, which is not of this suite',
  ];
  const asked = capabilities.length > 0 ? [`The runtime passes: ${capabilities.join(', ')}`] : [];
  return [...asked, ...steps.filter((step) => step !== '')];
}

const text = (value: unknown, otherwise: string) =>
  typeof value === 'string' && value !== '' ? value : otherwise;
const when = (condition: unknown, step: string) => (condition ? step : '');
const mtu = (config: Config) => when(config.mtu, `Sets the MTU to ${config.mtu}`);
const master = (config: Config) =>
  config.master ? `"${config.master}"` : 'the interface of the default route';

function addresses(config: Config): string[] {
  const ipam = isObject(config.ipam) ? config.ipam : {};
  const type = ipamTypeOf(config);
  if (!type) return ['Gives the interface no address: there is no "ipam"'];
  const pools = poolsOf(config).map(
    (pool) => `${pool.range} (${count(Number(sizeOf(pool)), 'address', 'addresses')}) of ${pool.subnet}`,
  );
  const routes = Array.isArray(ipam.routes)
    ? ipam.routes.flatMap((route) => (isObject(route) ? [String(route.dst)] : []))
    : [];
  return [
    pools.length > 0
      ? `Takes ${pools.length > 1 ? 'addresses' : 'an address'} from "${type}": ${pools.join('; ')}`
      : `Asks "${type}" for an address`,
    when(type === 'host-local', `Remembers it in ${text(ipam.dataDir, '/var/lib/cni/networks')}`),
    when(routes.length > 0, `Adds routes in the container: ${routes.join(', ')}`),
  ];
}

const masquerading = (config: Config) =>
  when(
    config.ipMasq,
    `Masquerades what leaves the subnet, by ${text(config.ipMasqBackend, 'iptables, or nftables where that is not installed')}`,
  );

const known: Record<string, (config: Config, network: NetworkList) => string[]> = {
  bridge(config) {
    const bridge = text(config.bridge, 'cni0');
    const gateway = config.isGateway || config.isDefaultGateway;
    return [
      `Makes bridge "${bridge}" unless it is there, and sets it up`,
      `Makes a pair of interfaces: one in the container, the other a port of "${bridge}"`,
      mtu(config),
      when(config.hairpinMode, 'Lets the container reach itself through the bridge (hairpin mode)'),
      when(config.portIsolation, 'Keeps it from other isolated ports of the bridge'),
      when(config.promiscMode, 'Puts the bridge into promiscuous mode'),
      when(config.vlan, `Puts the port into VLAN ${config.vlan}`),
      when(config.vlanTrunk, `Passes tagged VLANs: ${JSON.stringify(config.vlanTrunk)}`),
      when(config.macspoofchk, 'Drops frames that bear another MAC address than its own'),
      ...addresses(config),
      when(gateway, `Gives "${bridge}" the gateway address, and switches forwarding on`),
      when(config.isDefaultGateway, 'Makes it the default route of the container'),
      masquerading(config),
      when(config.ipam, 'Announces the addresses on the bridge'),
    ];
  },
  ptp: (config) => [
    'Makes a pair of interfaces between the node and the container',
    mtu(config),
    ...addresses(config),
    'Routes everything of the container over it by the gateway, and the address to it on the node; switches forwarding on',
    masquerading(config),
  ],
  loopback: () => ['Sets "lo" of the container up'],
  macvlan: (config) => [
    `Makes a macvlan interface in mode "${text(config.mode, 'bridge')}" on ${master(config)}`,
    mtu(config),
    ...addresses(config),
  ],
  ipvlan: (config) => [
    `Makes an ipvlan interface in mode "${text(config.mode, 'l2')}" on ${master(config)}`,
    mtu(config),
    ...addresses(config),
  ],
  vlan: (config) => [
    `Makes an interface in VLAN ${config.vlanId ?? 0} of ${master(config)}`,
    mtu(config),
    ...addresses(config),
  ],
  dummy: (config) => ['Makes an interface that leads nowhere', ...addresses(config)],
  tap: (config) => [
    'Makes a TAP interface',
    mtu(config),
    when(config.bridge, `Makes it a port of bridge "${config.bridge}" in the container`),
    ...addresses(config),
  ],
  'host-device': (config) => [
    `Moves ${text(config.device, text(config.hwaddr, text(config.pciBusID, text(config.kernelpath, 'the device that the runtime names'))))} of the node into the container`,
    ...addresses(config),
  ],
  portmap: (config) => [
    `Leads the ports that the runtime passes to the container, by ${text(config.backend, 'iptables, or nftables where that is not installed')}`,
    'Refuses a port that another container has',
    when(config.snat !== false, 'Lets the node itself and the container reach them as well (snat)'),
    when(config.masqAll, 'Gives every connection the address of the node'),
    'Forgets tracked UDP connections to these ports',
  ],
  firewall: (config) => [
    `Lets connections of the container, and answers to them, through the firewall of the node, by ${text(config.backend, 'firewalld where it runs, else iptables')}`,
    when(
      config.ingressPolicy && config.ingressPolicy !== 'open',
      `Keeps the bridge apart from others: "${config.ingressPolicy}"`,
    ),
  ],
  bandwidth: (config) => [
    when(
      config.ingressRate,
      `Limits what it receives to ${config.ingressRate} bit/s, with bursts of ${config.ingressBurst} bit`,
    ),
    when(
      config.egressRate,
      `Limits what it sends to ${config.egressRate} bit/s, with bursts of ${config.egressBurst} bit`,
    ),
    when(!config.ingressRate && !config.egressRate, 'Limits traffic to what the runtime passes'),
  ],
  tuning: (config) =>
    Object.entries(config).flatMap(([key, value]) =>
      key === 'sysctl' && isObject(value)
        ? Object.entries(value).map(
            ([name, setting]) => `Sets ${name} to ${String(setting)} in the container`,
          )
        : ['mac', 'mtu', 'promisc', 'allmulti', 'txQLen'].includes(key)
          ? [`Sets ${key} of the interface to ${String(value)}`]
          : [],
    ),
  sbr: () => [
    'Moves the routes of the interface to a table of its own, which packets from its addresses look up',
  ],
  vrf: (config) => [`Puts the interface into VRF "${text(config.vrfname, '?')}", made unless it is there`],
  flannel: (config, network) => {
    const delegate = isObject(config.delegate) ? config.delegate : {};
    return [
      `Reads the subnet that flanneld leased from ${text(config.subnetFile, '/run/flannel/subnet.env')}`,
      `Runs "${text(delegate.type, 'bridge')}" for network "${network.name}" with that subnet, and its MTU`,
      `Remembers the configuration in ${text(config.dataDir, '/var/lib/cni/flannel')}`,
    ];
  },
};
