/** What a node of the cluster runs: containerd, the kubelet and kube-proxy. */

import { containerdConfiguration } from '../../test/runtimes/support/containerd.ts';
import { programPath } from './build.ts';
import { type ControlPlane, podNetwork } from './control-plane.ts';
import { toolsImage } from './images.ts';
import { type Machine, startDaemon, succeeds, untilReady } from './machine.ts';

const containerdDirectory = '/run/containerd';
const socket = `${containerdDirectory}/socket`;
const kubeconfig = '/var/lib/kubelet/kubeconfig';

/** The address of the cluster's DNS server among those of Services, see manifests/dns.yaml. */
export const dnsAddress = '10.96.0.10';

/**
 * Starts everything; it ends with the machine. The kubelet registers the node, which is not ready as long as
 * there is no network configuration.
 * @param images archives of the images that pods run.
 */
export async function startNode(
  machine: Machine,
  plane: ControlPlane,
  images: readonly string[],
): Promise<void> {
  const { node, name, address } = machine;
  await node.run(['sh', '-c', coverCgroups, 'sh', node.cgroup]);
  await node.run(['sh', '-c', keepKernelSettings]);
  await startContainerd(machine, images);
  node.write(kubeconfig, plane.kubeconfig());
  // Names outside of the cluster are not looked up.
  node.write('/run/resolv.conf', '');
  node.write('/var/lib/kubelet/config.json', kubeletConfiguration);
  await startDaemon(machine, 'kubelet', [
    programPath('kubelet'),
    `--kubeconfig=${kubeconfig}`,
    '--config=/var/lib/kubelet/config.json',
    '--container-runtime=remote',
    `--container-runtime-endpoint=unix://${socket}`,
    `--hostname-override=${name}`,
    `--node-ip=${address}`,
    '--cert-dir=/var/lib/kubelet/pki',
  ]);
  node.write('/var/lib/kubelet/proxy.json', proxyConfiguration(name));
  await startDaemon(machine, 'kube-proxy', [
    programPath('kube-proxy'),
    '--config=/var/lib/kubelet/proxy.json',
  ]);
  for (const [daemon, port] of [
    ['kubelet', 10248],
    ['kube-proxy', 10256],
  ] as const)
    await untilReady(machine, daemon, () =>
      succeeds(machine, ['curl', '--silent', '--fail', `http://127.0.0.1:${port}/healthz`]),
    );
}

/**
 * The kubelet wants kernel settings that belong to the whole machine rather than to a namespace. It finds the
 * values that it wants here, so that it leaves the machine's as they are.
 * Source: setupKernelTunables in Kubernetes' pkg/kubelet/cm/container_manager_linux.go.
 */
const keepKernelSettings = `set -e
  for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \\
      kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=/run/settings/\${setting%=*}
    mkdir -p "$(dirname $file)"
    echo \${setting#*=} > $file
    mount --bind $file /proc/sys/\${setting%=*}
  done`;

async function startContainerd(machine: Machine, images: readonly string[]): Promise<void> {
  const { node } = machine;
  const configuration = containerdConfiguration(containerdDirectory, '/opt/cni/bin', toolsImage);
  node.write(`${containerdDirectory}/config.toml`, configuration);
  await startDaemon(machine, 'containerd', [
    ...['sh', '-c', inOwnCgroups, 'sh'],
    ...['containerd', '--config', `${containerdDirectory}/config.toml`],
  ]);
  const ctr = ['ctr', '--address', socket, '--namespace', 'k8s.io'];
  await untilReady(machine, 'containerd', () => succeeds(machine, [...ctr, 'version']));
  for (const image of images) await node.run([...ctr, 'images', 'import', image]);
}

/**
 * containerd makes the control groups of pods below the root of each hierarchy. On the node, that root is a
 * group of its own, removed with the node. A cpuset without processors and memory accepts no processes.
 */
const coverCgroups = `set -e
  for hierarchy in $(find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d); do
    group=$hierarchy$1
    mkdir -p $group
    for file in cpuset.cpus cpuset.mems; do
      [ ! -e $group/$file ] || cat $hierarchy/$file > $group/$file
    done
    mount --bind $group $hierarchy
  done`;

/** Runs a program for which the node's groups are the roots of all hierarchies, as they are mounted. */
const inOwnCgroups = `
  for hierarchy in $(find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d); do
    echo $$ > $hierarchy/cgroup.procs
  done
  exec unshare --cgroup "$@"`;

const kubeletConfiguration = {
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
  authorization: { mode: 'AlwaysAllow' },
  clusterDNS: [dnsAddress],
  clusterDomain: 'cluster.local',
  resolvConf: '/run/resolv.conf',
  volumePluginDir: '/var/lib/kubelet/volume-plugins',
  // The node shares the machine with whatever else runs there.
  cgroupsPerQOS: false,
  enforceNodeAllocatable: [],
  failSwapOn: false,
  evictionHard: {},
  imageGCHighThresholdPercent: 100,
  oomScoreAdj: 0,
};

/** @param node whose proxy it is. */
function proxyConfiguration(node: string): object {
  return {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    clientConnection: { kubeconfig },
    hostnameOverride: node,
    mode: 'iptables',
    clusterCIDR: podNetwork,
    oomScoreAdj: 0,
    // The limits of connection tracking are those of the whole machine.
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
  };
}
