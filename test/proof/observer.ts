/** What a host looks like from outside: all of it that a plugin or the agent may change. */

import { lstatSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { namesIn } from '../../lib/directory.ts';
import type { Host, Pod } from '../support/host.ts';
import { networkSnapshot, runAll, snapshot } from '../support/observe.ts';

/** What a host, or a pod, looks like. */
export type Picture = Record<string, unknown>;

/** Directories of a host that plugins and the agent write to. */
const directories = ['/run/cni', '/run/containers', '/run/flannel', '/var/lib/cni', '/etc/cni'];

/**
 * Files that may or may not be there, and belong to no attachment: locks, sockets, and hints other than
 * temporary files.
 */
const passing =
  /^\/run\/cni\/(?:(?:iptables|programs)\.lock|(?:agent|dhcp)\.sock(?:\.lock|\.aside)?|iptables\/.*(?<!\.tmp))$|\/last_reserved_ip\.[^/]*$/;

/** Files with the ID of a server, which may have been started anew. */
const pidFile = /\/dnsname\/[^/]+\/pidfile$/;

/** Keys in the output of `ip` whose values change by themselves, or follow from others. */
const changing = [
  ...[
    'ifindex',
    'link_index',
    'link_netnsid',
    'operstate',
    'id',
    'no',
    'state',
    'root_port',
    'root_path_cost',
  ],
  ...['bridge_id', 'root_id', 'designated_bridge', 'designated_root', 'designated_port', 'designated_cost'],
  ...['preferred_life_time', 'valid_life_time', 'tentative', 'topology_change', 'topology_change_detected'],
  ...['hold_timer', 'message_age_timer', 'forward_delay_timer', 'hello_timer', 'tcn_timer', 'gc_timer'],
  ...['topology_change_timer', 'config_pending'],
];

/** Multicast MAC addresses. */
const groups = /^(?:33:33|01)/;

/** Flags that tell whether the other end is up. */
const carrierFlags = ['LOWER_UP', 'NO-CARRIER', 'M-DOWN'];

/** What is looked at in any namespace besides {@link networkSnapshot}. */
const commands = ['ip -d -j addr', 'ip -j neigh show nud permanent', 'tc qdisc'];

/** Kernel settings of a namespace. */
const settings =
  'grep -rs "" /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf || :';

/** What is looked at on the host alone. */
const hostCommands = [
  settings,
  'bridge -j fdb show',
  'bridge -j vlan show',
  'iptables-save',
  'ip6tables-save',
  'conntrack -L -p udp 2>/dev/null || :',
  'conntrack -L -f ipv6 -p udp 2>/dev/null || :',
];

/**
 * Looks at a host.
 * @param pods whose insides are looked at as well.
 * @param agent PID of the agent, whose open files are counted.
 */
export async function pictureOf(
  host: Host,
  pods: readonly Pod[],
  agent: number | undefined,
): Promise<Picture> {
  const [all, texts, ...insides] = await Promise.all([
    snapshot(host),
    runAll(host, [...hostCommands, ...commands]),
    ...pods.map((pod) => insideOf(pod)),
  ]);
  const [values = '', fdb = '', vlans = '', rules4 = '', rules6 = '', flows4 = '', flows6 = '', ...details] =
    texts;
  return {
    ...all,
    ...detailsOf(details),
    sysctls: lines(values),
    fdb: parse(fdb).filter(isStatic).sort(byText),
    vlans: parse(vlans).sort(byText),
    iptables: [...rulesOf(rules4), ...rulesOf(rules6)],
    // Flows from several senders look alike.
    flows: [...new Set([...translatedFlows(flows4), ...translatedFlows(flows6)])].sort(),
    files: Object.assign({}, ...directories.map((directory) => filesBelow(host, directory))),
    ...(agent !== undefined && { descriptors: descriptorsOf(agent) }),
    pods: { ...insides },
  };
}

async function insideOf(pod: Pod): Promise<Picture> {
  const [network, [values = '', ...details]] = await Promise.all([
    networkSnapshot(pod),
    runAll(pod, [settings, ...commands]),
  ]);
  return { ...network, ...detailsOf(details), sysctls: lines(values) };
}

/** What {@link commands} have printed. */
function detailsOf([links = '', neighbours = '', qdiscs = '']: readonly string[]): Picture {
  return {
    links: parse(links).map(steady).sort(byText),
    neighbours: parse(neighbours).map(steady).sort(byText),
    qdiscs: lines(qdiscs.replace(/ refcnt \d+/g, '').replace(/qdisc (\S+) \S+:/g, 'qdisc $1')),
  };
}

/** Whether an entry was set: neither learned by a bridge, nor added by the kernel for a multicast group. */
function isStatic({ mac, state }: Record<string, unknown>): boolean {
  return !groups.test(String(mac)) && (state === 'permanent' || state === 'static');
}

function parse(text: string): Record<string, unknown>[] {
  const all = text.trim() === '' ? [] : (JSON.parse(text) as Record<string, unknown>[]);
  return all.filter((one) => Object.keys(one).length > 0);
}

function byText(a: unknown, b: unknown): number {
  return JSON.stringify(a) < JSON.stringify(b) ? -1 : 1;
}

/** What `ip` says of something, without what changes by itself. */
function steady(value: unknown): unknown {
  if (Array.isArray(value))
    return value.filter((one) => !carrierFlags.includes(one) && !isOfKernel(one)).map(steady);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !changing.includes(key))
      .map(([key, item]) => [key, steady(item)]),
  );
}

/** The address that the kernel gives to an interface by itself. */
function isOfKernel(one: unknown): boolean {
  const { family, scope } = (one ?? {}) as { family?: string; scope?: string };
  return family === 'inet6' && scope === 'link';
}

function lines(text: string): string[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .sort();
}

/** Rules without counters and dates. */
function rulesOf(text: string): string[] {
  return text
    .split('\n')
    .filter((line) => /^[*:-]/.test(line))
    .map((line) => line.replace(/ \[\d+:\d+\]$/, ''));
}

/** UDP connections to whose destination the kernel applies NAT. */
function translatedFlows(text: string): string[] {
  const flow = /src=\S+ dst=(\S+) sport=\d+ dport=(\d+) .*?src=(\S+) dst=\S+ sport=(\d+) dport=\d+/;
  return lines(text).flatMap((line) => {
    const [, to, port, from, containerPort] = flow.exec(line) ?? [];
    return to === undefined || to === from ? [] : [`UDP ${to} ${port} to ${from} ${containerPort}`];
  });
}

/** What is below a directory, by path: the contents of files, and what everything else is. */
function filesBelow(host: Host, directory: string): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (path: string) => {
    for (const name of namesIn(host.file(path))) {
      const child = join(path, name);
      if (passing.test(child)) continue;
      const what = describe(host.file(child));
      if (what !== undefined) found[child] = what;
      if (what === 'a directory') walk(child);
    }
  };
  walk(directory);
  return found;
}

/** @returns undefined for what has disappeared meanwhile. */
function describe(path: string): string | undefined {
  try {
    const stats = lstatSync(path);
    if (stats.isFile()) {
      const text = readFileSync(path, 'latin1');
      return pidFile.test(path) ? `the ID of "${commandOf(Number(text))}"` : text;
    }
    if (stats.isDirectory()) return 'a directory';
    return stats.isSymbolicLink() ? `a link to ${readlinkSync(path)}` : 'a socket or the like';
  } catch {
    return undefined;
  }
}

/** How a process was started; "" when there is none. */
function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}

/** How many files of each kind a process has open. */
function descriptorsOf(pid: number): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of namesIn(`/proc/${pid}/fd`)) {
    const kind = targetOf(`/proc/${pid}/fd/${name}`).replace(/:\[\d+\]$/, '');
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

function targetOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ''; // It was closed meanwhile.
  }
}
