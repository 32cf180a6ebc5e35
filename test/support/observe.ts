/** An independent look at the kernel: what `ip`, `iptables-save`, `nft`, `ping` and real connections say. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Host, Namespace, Teardown } from './host.ts';

/** A link as `ip -d -j link` shows it. */
export interface IpLink {
  ifindex: number;
  ifname: string;
  address: string;
  mtu: number;
  flags: string[];
  operstate: string;
  master?: string;
  link?: string;
  link_index?: number;
  promiscuity: number;
  linkinfo?: {
    info_kind?: string;
    info_data?: Record<string, unknown>;
    info_slave_data?: Record<string, unknown>;
  };
  addr_info?: IpAddress[];
}

/** An address as `ip -j addr` shows it. */
export interface IpAddress {
  family: 'inet' | 'inet6';
  local: string;
  prefixlen: number;
  scope: string;
  tentative?: boolean;
  dadfailed?: boolean;
  nodad?: boolean;
}

/** A route as `ip -d -j route` shows it. */
export interface IpRoute {
  dst: string;
  gateway?: string;
  dev?: string;
  prefsrc?: string;
  metric?: number;
  table?: string;
  scope?: string;
  protocol?: string;
  metrics?: { mtu?: number; advmss?: number }[];
}

/** Runs `ip -d -j …`, for example `ipJson<IpRoute>(pod, '-6', 'route')`. */
export async function ipJson<T>(ns: Namespace, ...args: string[]): Promise<T[]> {
  return parseIpJson<T>(await ns.run(['ip', '-d', '-j', ...args]));
}

function parseIpJson<T>(text: string): T[] {
  return text.trim() === ''
    ? []
    : (JSON.parse(text) as T[]).filter((item) => Object.keys(item as object).length);
}

/** Every link of a namespace with its addresses. */
export function links(ns: Namespace): Promise<IpLink[]> {
  return ipJson<IpLink>(ns, 'addr');
}

/** One link with its addresses, undefined when there is none of that name. */
export async function link(ns: Namespace, name: string): Promise<IpLink | undefined> {
  return (await links(ns)).find(({ ifname }) => ifname === name);
}

/** A link's addresses with prefix lengths, sorted, without the kernel's own link-local ones. */
export async function addresses(ns: Namespace, name: string): Promise<string[]> {
  const found = await link(ns, name);
  return (found?.addr_info ?? [])
    .filter(({ family, scope }) => !(family === 'inet6' && scope === 'link'))
    .map(({ local, prefixlen }) => `${local}/${prefixlen}`)
    .sort();
}

/** Routes of one family's main table, or of another table ("all" for every one). */
export function routes(ns: Namespace, family: 4 | 6 = 4, table = 'main'): Promise<IpRoute[]> {
  return ipJson<IpRoute>(ns, `-${family}`, 'route', 'show', 'table', table);
}

/** The rules of one iptables table, without counters and comments: `:CHAIN POLICY` and `-A …` lines. */
export async function iptablesSave(ns: Namespace, table = 'nat', family: 4 | 6 = 4): Promise<string[]> {
  const program = family === 4 ? 'iptables-save' : 'ip6tables-save';
  const text = await ns.run([program, '-t', table]);
  return text
    .split('\n')
    .filter((line) => line.startsWith(':') || line.startsWith('-A'))
    .map((line) => line.replace(/ \[\d+:\d+\]$/, ''));
}

/** The objects of `nft -j list ruleset`. */
export async function nftJson(ns: Namespace): Promise<Record<string, Record<string, unknown>>[]> {
  const { nftables } = JSON.parse(await ns.run(['nft', '-j', 'list', 'ruleset'])) as {
    nftables: Record<string, Record<string, unknown>>[];
  };
  return nftables.filter((object) => !object.metainfo);
}

/** Reads a sysctl, given by its path below /proc/sys. */
export async function sysctl(ns: Namespace, path: string): Promise<string> {
  return (await ns.run(['cat', `/proc/sys/${path}`])).trim();
}

/**
 * Waits until something holds, such as what the kernel does asynchronously.
 * @throws Error when it does not hold within three minutes, which is long enough on a busy machine.
 */
export async function until(what: string, isSo: () => Promise<boolean> | boolean): Promise<void> {
  for (const end = Date.now() + 180_000; !(await isSo()); await sleep(20))
    if (Date.now() > end) throw new Error(`It did not come about that ${what}`);
}

/**
 * True when one of three echo requests, one a second, is answered: ping(8) fails at once while its own
 * address is still being checked for duplicates, which takes a second or two.
 */
export async function ping(ns: Namespace, address: string, ...options: string[]): Promise<boolean> {
  const argv = ['ping', '-n', '-c', '1', '-W', '1', ...options, address];
  for (let tries = 3; tries > 0; tries--) {
    const nextTry = sleep(1000);
    if ((await ns.tryRun(argv)).exit === 0) return true;
    await nextTry;
  }
  return false;
}

/** What dig(1) says of a name. @param options such as "+tcp". */
export async function dig(
  from: Namespace,
  server: string,
  name: string,
  ...options: string[]
): Promise<string[]> {
  const argv = ['dig', `@${server}`, '+short', '+time=5', '+tries=3', name, ...options];
  return (await from.run(argv)).split('\n').filter(Boolean).sort();
}

/** What an echo server answers: its own label, and whom it sees at the other end. */
export interface Echo {
  label: string;
  peer: string;
  said: string;
}

const echo = join(import.meta.dirname, 'echo.ts');

/**
 * Starts an echo server in a namespace; it runs until the test ends.
 * @param address "::" listens in both families.
 */
export async function serve(
  t: Teardown,
  ns: Namespace,
  protocol: 'tcp' | 'udp',
  port: number,
  label: string,
  address = '::',
): Promise<void> {
  await ns.start(t, [process.execPath, echo, 'serve', protocol, address, String(port), label]);
}

/** Talks to an echo server from a namespace. @returns undefined when nobody answers within two seconds. */
export async function ask(
  ns: Namespace,
  protocol: 'tcp' | 'udp',
  address: string,
  port: number,
): Promise<Echo | undefined> {
  const output = await ns.tryRun([process.execPath, echo, 'ask', protocol, address, String(port)]);
  return output.exit === 0 ? (JSON.parse(output.stdout) as Echo) : undefined;
}

/** As {@link ask}, where an answer is expected: asks again until there is one. */
export async function reach(...asked: Parameters<typeof ask>): Promise<Echo> {
  let answer: Echo | undefined;
  const [, protocol, address, port] = asked;
  await until(`${protocol} port ${port} of ${address} answers`, async () => {
    answer = await ask(...asked);
    return answer !== undefined;
  });
  return answer!;
}

/**
 * Talks to many echo servers at once, over TCP, until all have answered or none has for some seconds.
 * @returns what each answered, in the order of the targets; undefined where nobody did.
 */
export async function askAll(
  ns: Namespace,
  targets: readonly (readonly [address: string, port: number])[],
): Promise<(Echo | undefined)[]> {
  const argv = [process.execPath, echo, 'ask-all', ...targets.flat().map(String)];
  const lines = (await ns.run(argv)).split('\n');
  return targets.map((_, i) => (lines[i] ? (JSON.parse(lines[i]) as Echo) : undefined));
}

/**
 * Everything of a host that a plugin may change, in a form that can be compared: links, addresses, routes,
 * rules, firewall, files below /var/lib/cni and /run/cni. MAC addresses, counters and link-local addresses
 * are left out.
 *
 * Some things stay after the last DEL by design (a bridge, shared chains): to see that nothing else does,
 * take the first picture after one ADD and DEL.
 */
export async function snapshot(host: Host): Promise<Record<string, unknown>> {
  // These locks appear once two calls have wanted to change rules at the same time, a call has started a
  // program, or a daemon has run.
  const names = ['iptables.lock', 'programs.lock', 'agent.sock.lock', 'dhcp.sock.lock'];
  const locks = names.map((name) => `/run/cni/${name}`);
  const runtimeFiles = Object.entries(files(host, '/run/cni')).filter(([path]) => !locks.includes(path));
  return {
    ...(await networkSnapshot(host)),
    files: { ...files(host, '/var/lib/cni'), ...Object.fromEntries(runtimeFiles) },
    sandboxes: readdirSync(host.file('/run/netns')).sort(),
  };
}

/** Runs shell commands that must all succeed, entering the namespace once. @returns what each of them printed. */
export async function runAll(ns: Namespace, commands: readonly string[]): Promise<string[]> {
  const script = commands.map((command) => `${command}\nprintf '\\0'\n`).join('');
  return (await ns.run(['sh', '-ec', script])).split('\0').slice(0, -1);
}

/**
 * Whether no IPv6 address of a link is still being checked for duplicates, which takes a second once the link
 * is up, and the kernel has a route to each. It adds them later, even if there is nothing to check.
 * @param routes what `ip -6 route show table all` prints.
 */
function hasSettled({ ifname, flags, addr_info = [] }: IpLink, routes: string): boolean {
  const isPending = ({ family, local, scope, tentative, dadfailed }: IpAddress) =>
    family === 'inet6' &&
    scope !== 'link' &&
    !dadfailed &&
    (tentative || !routes.includes(`local ${local} dev ${ifname} `));
  return !flags.includes('LOWER_UP') || !addr_info.some(isPending);
}

/** The part of {@link snapshot} that any namespace has. */
export async function networkSnapshot(ns: Namespace): Promise<Record<string, unknown>> {
  let all: IpLink[] = [];
  let texts: string[] = [];
  await until('the kernel has a route to each address', async () => {
    const [shown = '', ...others] = await runAll(ns, [
      'ip -d -j addr',
      'ip -4 route show table all',
      'ip -6 route show table all',
      'ip -4 rule',
      'ip -6 rule',
      'nft --stateless list ruleset',
    ]);
    all = parseIpJson<IpLink>(shown);
    texts = others;
    return all.every((one) => hasSettled(one, texts[1]!));
  });
  const [routes4 = '', routes6 = '', rules4 = '', rules6 = '', ruleset = ''] = texts;
  const lines = (text: string) =>
    text
      .split('\n')
      .filter((line) => line !== '')
      // A namespace that has had a VRF keeps the kernel's l3mdev rule.
      .filter((line) => !/^1000:.*l3mdev-table/.test(line))
      // Whether the kernel has noticed a lost carrier yet is a matter of milliseconds.
      .map((line) => line.replace(/ linkdown\b/, ''))
      .sort();
  const settled = (line: string) => !/fe80::|ff00::/.test(line);
  return {
    links: all
      .map(({ ifname, mtu, master, flags, linkinfo, addr_info = [] }) => ({
        ifname,
        mtu,
        master,
        up: flags.includes('UP'),
        promiscuous: flags.includes('PROMISC'),
        kind: linkinfo?.info_kind,
        addresses: addr_info
          .filter(({ family, scope }) => !(family === 'inet6' && scope === 'link'))
          .map(({ local, prefixlen }) => `${local}/${prefixlen}`),
      }))
      .sort((a, b) => (a.ifname < b.ifname ? -1 : 1)),
    routes: [...lines(routes4), ...lines(routes6)].filter(settled),
    rules: [...lines(rules4), ...lines(rules6)],
    ruleset: ruleset.split('\n'),
  };
}

/**
 * Contents of the files below a directory of a host, by path, without host-local's "last_reserved_ip" hints.
 */
export function files(host: Host, directory: string): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (path: string) => {
    let entries: import('node:fs').Dirent[];
    try {
      entries = readdirSync(host.file(path), { withFileTypes: true });
    } catch {
      return; // It was never made.
    }
    for (const entry of entries) {
      const child = join(path, entry.name);
      if (entry.isDirectory()) walk(child);
      else if (entry.isFile() && !entry.name.startsWith('last_reserved_ip.'))
        found[child] = readFileSync(host.file(child), 'latin1');
    }
  };
  walk(directory);
  return found;
}
