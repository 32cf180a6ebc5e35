/**
 * Which capabilities a verb of a plugin takes: the plugin is run as root with no more than those that are
 * given, and what comes of it is judged from outside. Everything else is done with all privileges.
 */

import { Attachment, type AttachOptions, type Conflist, type PluginConf, runNetworkVerb } from './chain.ts';
import { Host, type Pod } from './host.ts';
import { networkSnapshot, snapshot } from './observe.ts';
import type { Outcome } from './plugin.ts';

export const verbs = ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS'] as const;
export type PrivilegedVerb = (typeof verbs)[number];

/** What is tried. */
export interface Subject {
  /** The plugin, and what of it if its privileges depend on that: `bridge, nftables`. */
  readonly name: string;
  /** Plugins of the chain before it. */
  readonly before?: readonly PluginConf[];
  readonly plugin: PluginConf;
  readonly options?: AttachOptions;
  /** DEL leaves the routes of the sandbox as they are, like the reference. */
  readonly leavesRoutes?: boolean;
  /** Those that can be judged; all when left out. */
  readonly verbs?: readonly PrivilegedVerb[];
  /** What the host must have, besides parents "up0" and "dev0". */
  prepare?(host: Host): Promise<unknown>;
}

const ipam = {
  type: 'host-local',
  ranges: [[{ subnet: '10.43.0.0/24' }], [{ subnet: 'fd00:43::/64' }]],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
};
const bridge = { type: 'bridge', bridge: 'br0', isGateway: true, ipam };
const portMappings = [
  { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
  { hostPort: 5353, containerPort: 53, protocol: 'udp' },
];
const portmap = { type: 'portmap', capabilities: { portMappings: true } };
const options = { capabilities: { portMappings } };
const limits = { ingressRate: 1e6, ingressBurst: 1e6, egressRate: 1e6, egressBurst: 1e6 };
const tuning = {
  type: 'tuning',
  mac: '02:00:00:00:00:77',
  mtu: 1400,
  sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' },
};

/** A firewall that drops forwarded packets. */
function addFirewall(host: Host): Promise<string> {
  const base = 'type filter hook forward priority filter; policy drop;';
  return host.run(['nft', `add table inet filter; add chain inet filter forward { ${base} }`]);
}

/** Those that the running kernel has all parts for. */
export const subjects: readonly Subject[] = [
  { name: 'bridge', plugin: { ...bridge, hairpinMode: true } },
  {
    name: 'bridge, masquerading by iptables',
    plugin: { ...bridge, ipMasq: true, ipMasqBackend: 'iptables' },
  },
  {
    name: 'bridge, masquerading by iptables-legacy',
    plugin: { ...bridge, ipMasq: true, ipMasqBackend: 'iptables' },
    // CHECK asks iptables; the pictures, which tell whether DEL and GC work, do not show its rules.
    verbs: ['ADD', 'CHECK'],
    prepare: (host) =>
      host.run(['mount', '--bind', '/usr/sbin/xtables-legacy-multi', '/usr/sbin/xtables-nft-multi']),
  },
  {
    name: 'bridge, masquerading and macspoofchk by nftables',
    plugin: { ...bridge, ipMasq: true, ipMasqBackend: 'nftables', macspoofchk: true },
  },
  { name: 'ptp', plugin: { type: 'ptp', ipam } },
  { name: 'macvlan', plugin: { type: 'macvlan', master: 'up0', ipam } },
  { name: 'host-device', plugin: { type: 'host-device', device: 'dev0', ipam } },
  { name: 'tap', plugin: { type: 'tap', owner: 107, group: 107, ipam } },
  { name: 'loopback', plugin: { type: 'loopback' }, options: { ifname: 'lo' } },
  { name: 'host-local', plugin: { type: 'host-local', ipam } },
  {
    name: 'static',
    plugin: { type: 'static', ipam: { type: 'static', addresses: [{ address: '10.43.0.9/24' }] } },
  },
  {
    name: 'portmap, iptables',
    before: [bridge],
    plugin: { ...portmap, backend: 'iptables' },
    options,
  },
  {
    name: 'portmap, nftables',
    before: [bridge],
    plugin: { ...portmap, backend: 'nftables' },
    options,
  },
  { name: 'firewall, iptables', before: [bridge], plugin: { type: 'firewall', backend: 'iptables' } },
  {
    name: 'firewall, nftables',
    before: [bridge],
    plugin: { type: 'firewall', backend: 'nftables' },
    prepare: addFirewall,
  },
  { name: 'bandwidth', before: [bridge], plugin: { type: 'bandwidth', ...limits } },
  { name: 'tuning', before: [bridge], plugin: tuning },
  { name: 'sbr', before: [bridge], plugin: { type: 'sbr' }, leavesRoutes: true },
];

/** Capabilities by verb, for each subject: what docs/privileges.json holds. */
export type Privileges = Record<string, Partial<Record<PrivilegedVerb, string[]>>>;

/** Runs a program with no more than the capabilities that are given. */
export function setpriv(capabilities: readonly string[]): string[] {
  const set = ['-all', ...capabilities.map((name) => `+${name.replace(/^CAP_/, '').toLowerCase()}`)];
  return ['setpriv', `--bounding-set=${set.join(',')}`, '--inh-caps=-all', '--'];
}

/** A host on which programs have fewer privileges. */
class LimitedHost extends Host {
  override readonly enter: readonly string[];

  constructor(host: Host, capabilities: readonly string[]) {
    super(host.pid);
    this.enter = [...host.enter, ...setpriv(capabilities)];
  }
}

/** What is on the host, and in a sandbox. */
type Picture = [host: unknown, pod: Record<string, unknown>];

/** What came of a try. */
export interface Trial {
  /** It did what it does with all privileges, without a complaint. */
  readonly works: boolean;
  readonly outcome: Outcome;
  /** For a try that failed: what was there before it, and what was there after it, or after DEL. */
  readonly pictures: readonly [before: unknown, after: unknown];
}

/** A subject on a host. */
export class Privileged {
  readonly host: Host;
  readonly subject: Subject;
  private readonly network: Conflist;

  constructor(host: Host, subject: Subject) {
    this.host = host;
    this.subject = subject;
    this.network = { cniVersion: '1.1.0', name: 'net', plugins: [] };
  }

  /** Has everything made that stays for good. */
  async prepare(): Promise<void> {
    await this.subject.prepare?.(this.host);
    for (const verb of ['ADD', 'GC'] as const) await this.attempt(verb, undefined);
  }

  /** Tries a verb. @param capabilities all when undefined. */
  async attempt(verb: PrivilegedVerb, capabilities: readonly string[] | undefined): Promise<Trial> {
    const host = capabilities ? new LimitedHost(this.host, capabilities) : this.host;
    if (verb === 'STATUS') {
      const outcome = await runNetworkVerb(host, this.ownNetwork(), 'STATUS');
      return { works: isFine(outcome), outcome, pictures: [0, 0] };
    }
    const pod = await this.host.addPod();
    // An interface that was up keeps its addresses.
    for (const state of ['up', 'down']) await pod.run(['ip', 'link', 'set', 'lo', state]);
    const base = this.attachment(this.host, pod, this.subject.before ?? []);
    if (this.subject.before) await base.add();
    try {
      return await this.attemptOn(verb, host, base);
    } finally {
      if (this.subject.before) await base.del();
      await pod.remove();
    }
  }

  /**
   * The fewest capabilities that a verb works with: none of them can be left out.
   * @param guesses sets to try first, in this order.
   */
  async find(verb: PrivilegedVerb, guesses: readonly (readonly string[])[]): Promise<string[]> {
    const works = async (capabilities: readonly string[]) => (await this.attempt(verb, capabilities)).works;
    let found: readonly string[] | undefined;
    for (const guess of [...guesses, candidates]) if (!found && (await works(guess))) found = guess;
    if (!found) throw new Error(`${this.subject.name}: ${verb} does not work with ${candidates}`);
    for (const one of found) {
      const rest: readonly string[] = found.filter((other) => other !== one);
      if (await works(rest)) found = rest;
    }
    return [...found].sort();
  }

  private async attemptOn(verb: PrivilegedVerb, host: Host, base: Attachment): Promise<Trial> {
    const { pod } = base;
    const before = await this.picture(pod);
    const plugins = [this.subject.plugin];
    const [limited, full] = [host, this.host].map((one) => this.attachment(one, pod, plugins)) as [
      Attachment,
      Attachment,
    ];
    if (verb === 'ADD') {
      const outcome = await limited.tryAdd({}, base.result);
      const after = await this.picture(pod);
      // IPAM plugins have no CHECK before the interface is there, but the file tells.
      full.result = outcome.result ?? base.result;
      const works = isFine(outcome) && (await full.tryCheck()).exit === 0;
      await full.del();
      return { works, outcome, pictures: [before, after] };
    }
    full.result = limited.result = succeededResult(await full.tryAdd({}, base.result));
    if (verb === 'GC') {
      const outcome = await runNetworkVerb(host, this.ownNetwork(), 'GC', { valid: [] });
      const after = await this.picture(pod);
      await runNetworkVerb(this.host, this.ownNetwork(), 'GC', { valid: [] });
      const works = isFine(outcome) && isSame(after, await this.picture(pod));
      await full.del();
      // What is in the sandbox goes with it.
      return { works, outcome, pictures: [before[0], (await this.picture(pod))[0]] };
    }
    const outcome = await (verb === 'DEL' ? limited.tryDel() : limited.tryCheck());
    const lasting = ([onHost, { routes, ...inPod }]: Picture) =>
      this.subject.leavesRoutes ? [onHost, inPod] : [onHost, inPod, routes];
    const after = await this.picture(pod);
    const works = isFine(outcome) && (verb === 'CHECK' || isSame(lasting(after), lasting(before)));
    await full.del();
    return { works, outcome, pictures: [lasting(before), lasting(await this.picture(pod))] };
  }

  private attachment(host: Host, pod: Pod, plugins: readonly PluginConf[]): Attachment {
    return new Attachment(host, pod, { ...this.network, plugins: [...plugins] }, this.subject.options);
  }

  private ownNetwork(): Conflist {
    return { ...this.network, plugins: [this.subject.plugin] };
  }

  private async picture(pod: Pod): Promise<Picture> {
    return [await snapshot(this.host), await networkSnapshot(pod)];
  }
}

/** Those that may be needed; that no other one is, trying these alone shows. */
const candidates = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_DAC_READ_SEARCH',
  'CAP_FOWNER',
  'CAP_IPC_LOCK',
  'CAP_KILL',
  'CAP_NET_ADMIN',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SYS_ADMIN',
  'CAP_SYS_MODULE',
  'CAP_SYS_NICE',
  'CAP_SYS_PTRACE',
  'CAP_SYS_RESOURCE',
];

function isFine({ exit, stderr }: Outcome): boolean {
  return exit === 0 && stderr === '';
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function succeededResult({ exit, result, stdout, stderr }: Outcome) {
  if (exit !== 0 || !result) throw new Error(`ADD failed with all privileges: ${stdout}${stderr}`);
  return result;
}
