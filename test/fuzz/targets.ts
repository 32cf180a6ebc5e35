/**
 * Everything that is fuzzed: all input that is read from outside the process.
 *
 * | From | Read by | Targets |
 * |---|---|---|
 * | runtimes | plugins: configuration, "prevResult", environment, CNI_ARGS | config-*, cni-args, verbs-* |
 * | | launcher and agent: their protocol | agent-protocol, agent-socket |
 * | operators | lib/networks/conflist.ts, cli/validate | network-list, networks-planted |
 * | | cli/attachment.ts, TRACEPARENT, lib/cni/log | command-arguments, log-settings |
 * | | ipam/host-local/resolv-conf.ts, lib/kubernetes/kubeconfig.ts | resolv-conf, kubeconfig |
 * | | lib/cni/flat-file.ts, agent/overlay/settings.ts | whereabouts-flat-file, overlay-settings |
 * | pods | annotations, by multus and genie | pod-annotation, verbs-multus, verbs-genie |
 * | | aliases of devices in their sandbox | host-device-alias |
 * | the kernel | lib/netlink, lib/kernel | netlink-*, nftables-expressions |
 * | programs | iptables, dbus-send, other plugins | iptables-listing, firewalld-reply, plugin-* |
 * | servers | etcd: lib/etcd, whereabouts, the overlay | etcd-reply, whereabouts-etcd, -keys, overlay-* |
 * | | Kubernetes API: lib/kubernetes, lib/networks | kubernetes-reply, network-definition |
 * | | Kubernetes API: whereabouts | kubernetes-reply, whereabouts-pool |
 * | | OVSDB, DHCP servers | ovsdb-reply, dhcp-packet |
 * | | the DHCP daemon, the agent | dhcp-reply, agent-status-reply |
 * | clients | the DHCP daemon's socket | dhcp-request, dhcp-socket |
 * | the disk | state of host-local, tuning, dhcp, firewall | host-local-disk, tuning-*, dhcp-*, firewall-* |
 * | | of whereabouts, multus and genie | whereabouts-waiting, saved-delegates |
 * | | of flannel and dnsname | flannel-*, overlay-subnet-file, dnsname-* |
 * | | of runtimes and Multus: their caches | libcni-cache, cache-planted, multus-cache, result-cache |
 * | | of the kubelet: lib/networks/devices.ts | kubelet-devices |
 * | | hints in /run/cni, locks and sockets | confirmed-rules, result-cache, locks-and-sockets-planted |
 * | | anything at all, for `cni bugreport` | bug-report |
 *
 * What is left out: HTTP itself, such as requests for the agent's metrics, which Node.js parses; /proc and
 * /sys, /etc/services and the files of an installation, which only root can write.
 */

import { clusterTargets } from './cluster-targets.ts';
import { commandTargets } from './command-targets.ts';
import { diskTargets } from './disk-targets.ts';
import { hostTargets } from './host-targets.ts';
import { inputTargets } from './input-targets.ts';
import { netlinkTargets } from './netlink-targets.ts';
import { plantedTargets } from './planted-targets.ts';
import { podTargets } from './pod-targets.ts';
import { replyTargets } from './reply-targets.ts';
import { socketTargets } from './socket-targets.ts';
import type { Target } from './target.ts';
import { wireTargets } from './wire-targets.ts';

export const targets: readonly Target[] = [
  ...inputTargets,
  ...diskTargets,
  ...commandTargets,
  ...plantedTargets,
  ...wireTargets,
  ...netlinkTargets,
  ...socketTargets,
  ...replyTargets,
  ...podTargets,
  ...clusterTargets,
  ...hostTargets,
];
