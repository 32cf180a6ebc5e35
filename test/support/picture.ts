/** Hosts worth a picture: all kinds of networks, pods in every state, and one with very many pods. */

import { writeFileSync } from 'node:fs';
import { type Conflist, type PortMapping, sample } from './chain.ts';
import { command } from './command.ts';
import { type Host, makeHost, type Pod, startAgent, type Teardown } from './host.ts';
import { changed } from './outside.ts';
import { suites } from './plugin.ts';
import type { Output } from './run.ts';

/** Runs `cni …` in a host that is called "node-1". */
export function cniIn(host: Host, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Output> {
  const script = 'hostname node-1; exec "$0" "$@"';
  return host.tryRun(['unshare', '--uts', 'sh', '-c', script, command, ...args], {
    env: { CNI_PATH: suites.ours, ...env },
  });
}

/** How a pod is attached. */
export interface PodOptions {
  pod?: Pod;
  /** The pod's name in Kubernetes. */
  name?: string;
  ifname?: string;
  ports?: PortMapping[];
}

/** Attaches a pod to a configured network, as a runtime would. */
export async function addTo(host: Host, network: string, options: PodOptions = {}): Promise<Pod> {
  const { pod = await host.addPod(), name, ifname, ports } = options;
  const added = await cniIn(host, ['add', network, pod.netns], {
    ...(name && { CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${name}` }),
    ...(ifname && { CNI_IFNAME: ifname }),
    ...(ports && { CAP_ARGS: JSON.stringify({ portMappings: ports }) }),
  });
  if (added.exit !== 0) throw new Error(`${network}: ${added.stderr}`);
  return pod;
}

/** Configures networks on a host. */
export function configure(host: Host, ...networks: Conflist[]): void {
  for (const network of networks)
    writeFileSync(host.file(`/etc/cni/net.d/${network.name}.conflist`), JSON.stringify(network));
}

/** Gives a host an uplink "eth0" with a default route. @param options.ipv6 false for kernels without it. */
export async function addUplink(host: Host, { ipv6 = true } = {}): Promise<void> {
  const router = await host.addPod();
  for (const line of [
    `link add eth0 type veth peer name eth0 netns ${router.name}`,
    'link set eth0 up',
    `-n ${router.name} link set eth0 up`,
    'address add 192.0.2.10/24 dev eth0',
    ...(ipv6 ? ['address add 2001:db8::10/64 dev eth0 nodad'] : []),
    'route add default via 192.0.2.1',
  ])
    await host.run(['ip', ...line.split(' ')]);
}

/** Gives a host flannel's overlay, with the subnet of one other node behind it. */
export async function addOverlay(host: Host): Promise<void> {
  for (const line of [
    'link add flannel.1 mtu 1450 type vxlan id 1 local 192.0.2.10 dev eth0 dstport 8472 nolearning',
    'address add 10.244.1.0/32 dev flannel.1',
    'link set flannel.1 up',
    'route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink',
  ])
    await host.run(['ip', ...line.split(' ')]);
  const lines = [
    'FLANNEL_NETWORK=10.244.0.0/16',
    'FLANNEL_SUBNET=10.244.1.1/24',
    'FLANNEL_MTU=1450',
    'FLANNEL_IPMASQ=true',
  ];
  await host.run(['mkdir', '-p', '/run/flannel']);
  writeFileSync(host.file('/run/flannel/subnet.env'), lines.map((line) => `${line}\n`).join(''));
}

/** The name of a pod, with what would be markup in a page and a control sequence in a terminal. */
export const hostileName = '<script>alert("1&2")</script>\u001b[31m';

/**
 * A host with an agent, a bridge, two families, point-to-point links, a macvlan parent and flannel; one pod is broken,
 * one is gone, one has two networks, one has a hostile name.
 * @returns the pods by name.
 */
export async function makeVariedHost(t: Teardown): Promise<{ host: Host; pods: Record<string, Pod> }> {
  const host = await makeHost(t);
  await startAgent(t, host);
  await addUplink(host);
  await addOverlay(host);
  configure(
    host,
    sample('10-bridge.conflist'),
    sample('20-ptp.conflist'),
    sample('30-dual-stack.conflist'),
    {
      ...sample('40-flannel.conflist'),
      cniVersion: '1.0.0',
      plugins: changed('40-flannel.conflist', { delegate: { bridge: 'flannel0', isDefaultGateway: true } })
        .plugins,
    },
    sample('61-macvlan.conflist'),
  );
  const pods: Record<string, Pod> = {};
  pods['web-1'] = await addTo(host, 'podnet', {
    name: 'web-1',
    ports: [
      { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
      { hostPort: 8443, containerPort: 443, protocol: 'tcp' },
    ],
  });
  pods.broken = await addTo(host, 'podnet', { name: 'broken' });
  pods.gone = await addTo(host, 'podnet', { name: 'gone' });
  pods['dual-1'] = await addTo(host, 'dualnet', {
    name: 'dual-1',
    ports: [{ hostPort: 5353, containerPort: 53, protocol: 'udp' }],
  });
  pods['ptp-1'] = await addTo(host, 'ptpnet', { name: 'ptp-1' });
  await addTo(host, 'macnet', { pod: pods['dual-1'], name: 'dual-1', ifname: 'net1' });
  pods['mac-1'] = await addTo(host, 'macnet', { name: 'mac-1' });
  pods['overlay-1'] = await addTo(host, 'cbr0', { name: 'overlay-1' });
  await pods.broken.run(['ip', 'address', 'flush', 'dev', 'eth0']);
  await pods.gone.remove();
  return { host, pods };
}

/** A host with an agent, one bridge and many pods: every tenth publishes a port, one is broken. */
export async function makeFullHost(t: Teardown, number: number): Promise<Host> {
  const host = await makeHost(t);
  await startAgent(t, host);
  await addUplink(host);
  configure(host, sample('10-bridge.conflist'));
  const numbers = Array.from({ length: number }, (_, i) => i + 1).values();
  const work = async () => {
    for (const i of numbers) {
      const pod = await addTo(host, 'podnet', {
        name: `web-${i}-7d4b9c6f5d-x${1000 + i}`,
        ...(i % 10 === 0 && { ports: [{ hostPort: 8000 + i, containerPort: 80, protocol: 'tcp' }] }),
      });
      if (i === 7) await pod.run(['ip', 'link', 'set', 'eth0', 'down']);
    }
  };
  await Promise.all(Array.from({ length: 4 }, work));
  return host;
}
