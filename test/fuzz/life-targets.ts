/**
 * Verbs with all their effects, called as a runtime does in a pod's life, on a host of their own with a
 * bystander on it.
 */

import { answerOf, plugins, sampleList } from './calls.ts';
import {
  type Beginning,
  beginAnew,
  hasLinkKind,
  pictureOfBystander,
  pictureOfHost,
  pictureOfPod,
  pluginPath,
  program,
  sandbox,
} from './own-host.ts';
import type { Target } from './target.ts';
import { variantsOf } from './variants.ts';

const prevResult = {
  cniVersion: '1.1.0',
  interfaces: [
    { name: 'uplink', mac: '02:00:00:00:00:02' },
    { name: 'eth0', mac: '02:00:00:00:00:01', sandbox },
  ],
  ips: [{ address: '10.1.0.2/24', gateway: '10.1.0.1', interface: 1 }],
};
/** The same from a plugin that made a bridge, and below it how the host gets that bridge. */
const behindBridge = {
  ...prevResult,
  interfaces: [{ name: 'br0' }, ...prevResult.interfaces],
  ips: [{ ...prevResult.ips[0], interface: 2 }],
};
const bridged = ['link add br0 up type bridge', 'link set uplink master br0'];
const portMappings = [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }];
/** A plugin with all its effects. */
interface Life {
  readonly type: string;
  /** Distinguishes lives of one plugin. */
  readonly variant?: string;
  /** The sample network with the plugin; without one, its configuration is only {@link more}. */
  readonly file?: string;
  /** Keys that the sample lacks. */
  readonly more: Readonly<Record<string, unknown>>;
  /** Keys of another call, such as one that is refused only after something has been done. */
  readonly other: Readonly<Record<string, unknown>>;
  /** The pod already has an "eth0". */
  readonly ifname: string;
  readonly args?: string;
  /** What the host must have. */
  readonly beginning?: Beginning;
  /** It gives an answer and does nothing. */
  readonly isIdle?: true;
}

const ipam = { type: 'host-local', ranges: [[{ subnet: '10.3.0.0/24' }]], routes: [{ dst: '0.0.0.0/0' }] };
const fixed = {
  type: 'static',
  addresses: [{ address: '10.9.0.2/24' }],
  routes: [{ dst: '10.7.0.0/16', gw: '10.6.0.1' }],
};
/** The IPAM plugin gives an address, and the route is refused once the interface exists. */
const late = { ipam: fixed };
/** What plugins that use a host interface as their parent, or move it, have in common. */
const onParent = {
  other: late,
  ifname: 'eth1',
  beginning: { links: ['link add up0 up type veth peer name up1', 'link set up1 up'] },
};
const delegate = { type: 'bridge', bridge: 'cni9', ipam };
const annotations = {
  'io.kubernetes.cri.pod-annotations': { 'k8s.v1.cni.cncf.io/networks': 'further@net1', cni: 'further' },
};
const further = JSON.stringify({
  cniVersion: '1.1.0',
  name: 'further',
  plugins: [{ type: 'ptp', ipam: { ...ipam, ranges: [[{ subnet: '10.4.0.0/24' }]] } }],
});
const networks: Beginning = { files: { '/etc/cni/net.d/50-further.conflist': further } };

const lives: readonly Life[] = [
  {
    type: 'bridge',
    file: '10-bridge.conflist',
    more: { macspoofchk: true, mtu: 1400 },
    other: late,
    ifname: 'eth1',
  },
  {
    type: 'portmap',
    file: '10-bridge.conflist',
    more: { backend: 'iptables', runtimeConfig: { portMappings }, prevResult },
    other: { conditionsV4: ['-m', 'none-such'] },
    ifname: 'eth0',
  },
  {
    type: 'portmap',
    variant: 'nftables',
    more: { backend: 'nftables', runtimeConfig: { portMappings }, prevResult, snat: true },
    other: { conditionsV4: ['none-such'] },
    ifname: 'eth0',
  },
  {
    type: 'firewall',
    variant: 'iptables',
    file: '80-firewall.conflist',
    more: { backend: 'iptables', prevResult: behindBridge },
    other: { iptablesAdminChainName: '-x' },
    ifname: 'eth0',
    beginning: { links: bridged, rules: 'add chain ip filter FORWARD { policy drop; }' },
  },
  {
    type: 'firewall',
    variant: 'nftables',
    file: '81-firewall-nftables.conflist',
    more: { backend: 'nftables', prevResult: behindBridge },
    other: { ingressPolicy: 'same-bridge' },
    ifname: 'eth0',
    beginning: {
      links: bridged,
      rules: `table inet filter {\nchain forward { type filter hook forward priority filter; policy drop; }\n}`,
    },
  },
  {
    type: 'tuning',
    file: '50-tuning.conflist',
    more: { prevResult },
    other: { mtu: 1_000_000 },
    ifname: 'eth0',
  },
  {
    type: 'ptp',
    file: '20-ptp.conflist',
    more: { mtu: 1400 },
    other: { ipam: { ...fixed, addresses: [{ address: '10.9.0.2/24', gateway: '10.9.0.1' }] } },
    ifname: 'eth1',
  },
  {
    type: 'macvlan',
    file: '61-macvlan.conflist',
    more: { master: 'up0', ipam },
    ...onParent,
  },
  {
    type: 'host-device',
    file: '66-host-device.conflist',
    more: { device: 'up0', ipam },
    ...onParent,
  },
  { type: 'tap', file: '65-tap.conflist', more: { ipam }, other: late, ifname: 'eth1' },
  {
    type: 'bandwidth',
    file: '51-bandwidth.conflist',
    more: { prevResult },
    other: { ingressBurst: 1 },
    ifname: 'eth0',
  },
  {
    type: 'sbr',
    file: '52-sbr.conflist',
    more: { prevResult, table: 300 },
    other: { table: 254 },
    ifname: 'eth0',
  },
  {
    type: 'flannel',
    file: '40-flannel.conflist',
    more: { subnetFile: '/run/flannel/subnet.env' },
    other: { delegate: { type: 'ptp', isDefaultGateway: 1 } },
    ifname: 'eth1',
    beginning: {
      files: {
        '/run/flannel/subnet.env':
          'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
      },
    },
  },
  {
    type: 'dnsname',
    file: '82-dnsname.conflist',
    more: { prevResult, runtimeConfig: { aliases: { n: ['web'] }, portMappings } },
    other: { runtimeConfig: { portMappings: [{ containerPort: 80, protocol: '(' }] } },
    ifname: 'eth0',
    args: 'IgnoreUnknown=1;K8S_POD_NAME=pod',
    beginning: { links: ['addr add 10.1.0.1/24 dev uplink'] },
  },
  {
    type: 'host-local',
    more: { ipam: { ...ipam, dataDir: '/var/lib/cni/networks' } },
    other: { ipam: {} },
    ifname: 'eth1',
  },
  {
    type: 'static',
    more: { ipam: fixed },
    other: { ipam: { type: 'static' } },
    ifname: 'eth1',
    isIdle: true,
  },
  {
    type: 'multus',
    more: { delegates: [delegate], confDir: '/etc/cni/net.d', runtimeConfig: annotations },
    other: { delegates: [{ ...delegate, ipam: fixed }] },
    ifname: 'eth1',
    beginning: networks,
  },
  {
    type: 'genie',
    more: { confDir: '/etc/cni/net.d', runtimeConfig: annotations },
    other: { default_plugin: 'none-such' },
    ifname: 'eth1',
    beginning: networks,
  },
  {
    type: 'ipvlan',
    more: { master: 'up0', ipam },
    ...onParent,
  },
  {
    type: 'vlan',
    more: { master: 'up0', vlanId: 7, ipam },
    ...onParent,
  },
  { type: 'dummy', more: { ipam }, other: late, ifname: 'eth1' },
  { type: 'vrf', more: { vrfname: 'red', prevResult }, other: { table: 254 }, ifname: 'eth0' },
];

/** Kinds of interfaces that a kernel may lack, with what "ip link" must be told of them. */
const rareKinds: Readonly<Record<string, readonly string[]>> = {
  ...{ dummy: [], ipvlan: [], macvlan: [] },
  vlan: ['id', '7'],
  vrf: ['table', '9'],
};
const possible = lives.filter(({ type }) => !rareKinds[type] || hasLinkKind(type, rareKinds[type]));

/** Calls each verb, as a runtime does in a pod's life. */
function lifeOf({ type, variant, file, more, other, ifname, args = '', beginning, isIdle }: Life): Target {
  const plugin = plugins.find(({ name }) => name === type)!;
  const sampled = file ? sampleList(file).plugins.find((one) => one.type === type) : { type };
  const config = { ...sampled, cniVersion: '1.1.0', name: 'n', ...more };
  const environment = `CNI_CONTAINERID=c1\0CNI_IFNAME=${ifname}\0CNI_NETNS=${sandbox}\0CNI_ARGS=${args}\n`;
  const [valid, ...others] = [config, { ...config, ...other }, ...variantsOf(config)].map(
    (one) => environment + JSON.stringify(one),
  ) as [string, ...string[]];
  return {
    name: ['verbs', type, variant].filter(Boolean).join('-'),
    samples: [valid, ...others],
    begin: () => beginAnew(beginning),
    async run(input) {
      const text = input.toString('utf8');
      const end = text.indexOf('\n');
      const pairs = text
        .slice(0, Math.max(end, 0))
        .split('\0')
        .map((pair) => pair.split(/=(.*)/s));
      const given = Object.fromEntries(pairs.map(([key = '', value = '']) => [key, value]));
      const bystander = pictureOfBystander();
      const pod = pictureOfPod();
      const host = text === valid && !isIdle ? pictureOfHost() : undefined;
      for (const command of ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS']) {
        const call = { ...given, CNI_COMMAND: command, CNI_PATH: pluginPath };
        const answer = await answerOf(plugin, text.slice(end + 1), call, { program, find });
        const isRefused = answer !== undefined && 'code' in answer;
        if (text === valid && isRefused && command !== 'CHECK')
          throw new Error(`${command} was refused for no reason: ${JSON.stringify(answer)}`);
        if (command !== 'ADD' && command !== 'STATUS') continue;
        if (command === 'ADD' && isRefused && pictureOfPod() !== pod)
          throw new Error(`ADD was refused and changed the pod: ${pictureOfPod()}, before: ${pod}`);
        if (command === 'ADD' && host !== undefined && pictureOfHost() === host)
          throw new Error('ADD has done nothing, so that nothing is tried here');
        const now = pictureOfBystander();
        if (now !== bystander) throw new Error(`A bystander was changed: ${now}, before: ${bystander}`);
      }
    },
  };
}

const find = (name: string) => {
  const found = plugins.find((one) => one.name === name);
  return found && Promise.resolve(found);
};

export const lifeTargets: readonly Target[] = possible.map(lifeOf);
