/**
 * Which capabilities a verb of a plugin needs: the plugin is run as root with only those that are given, and
 * the outcome is judged from outside. Everything else is done with all privileges, by an agent, which is
 * quicker.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { Attachment, type AttachOptions, type Conflist, type PluginConf, runNetworkVerb } from './chain.ts';
import { dropForwarded, useLegacyIptables } from './firewall.ts';
import { Host, makeHostWithDevices, type Pod, startAgent, type Teardown } from './host.ts';
import { endNameServer, nameDirectory, nameServer } from './name-server.ts';
import { files, networkSnapshot, runAll, snapshot } from './observe.ts';
import { lookAtOpenVswitch, OpenVswitch } from './open-vswitch.ts';
import type { Outcome } from './plugin.ts';

export const verbs = ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS'] as const;
export type PrivilegedVerb = (typeof verbs)[number];

/** What is tried: a plugin in a chain, on a host. */
export interface Subject {
  /** The plugin, and its variant if its privileges depend on that: `bridge, nftables`. */
  readonly name: string;
  /** Plugins of the chain before it. */
  readonly before?: readonly PluginConf[];
  readonly plugin: PluginConf;
  readonly options?: AttachOptions;
  /** DEL leaves the routes of the sandbox as they are, like the reference. */
  readonly leavesRoutes?: boolean;
  /** What the host must have, besides parents "up0" and "dev0". */
  prepare?(host: Host, t: Teardown): Promise<unknown>;
  /** What on the host shows whether the plugin did its work, besides what {@link snapshot} has. */
  look?(host: Host): Promise<unknown>;
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

/** The rules of iptables, in whichever variant the host has. */
async function lookAtIptables(host: Host): Promise<string[]> {
  const texts = await runAll(host, ['iptables-save', 'ip6tables-save']);
  return texts.flatMap((text) => text.split('\n')).filter((line) => line.startsWith('-A'));
}

const ovs = { type: 'ovs', bridge: 'br1', vlan: 7, link_state_check_retries: 50, ipam };

function addOpenVswitch(host: Host, t: Teardown): Promise<OpenVswitch> {
  return OpenVswitch.start(t, host);
}

/** Whether the name server runs, and its files, without the PID. */
async function lookAtNames(host: Host): Promise<unknown> {
  const directory = nameDirectory('net');
  return [nameServer(host, 'net') !== undefined, { ...files(host, directory), [`${directory}/pidfile`]: '' }];
}

/** Subjects for which the running kernel has everything. */
export const subjects: readonly Subject[] = [
  { name: 'bridge', plugin: { ...bridge, hairpinMode: true } },
  {
    name: 'bridge, masquerading by iptables',
    plugin: { ...bridge, ipMasq: true, ipMasqBackend: 'iptables' },
  },
  {
    name: 'bridge, masquerading by iptables-legacy',
    plugin: { ...bridge, ipMasq: true, ipMasqBackend: 'iptables' },
    prepare: useLegacyIptables,
    look: lookAtIptables,
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
    prepare: dropForwarded,
  },
  { name: 'bandwidth', before: [bridge], plugin: { type: 'bandwidth', ...limits } },
  { name: 'tuning', before: [bridge], plugin: tuning },
  { name: 'sbr', before: [bridge], plugin: { type: 'sbr' }, leavesRoutes: true },
  {
    name: 'dnsname',
    before: [bridge],
    plugin: { type: 'dnsname' },
    options: { args: 'IgnoreUnknown=1;K8S_POD_NAME=web' },
    prepare: async (host, t) => endNameServer(t, host, 'net'),
    look: lookAtNames,
  },
  { name: 'ovs', plugin: ovs, prepare: addOpenVswitch, look: lookAtOpenVswitch },
  {
    name: 'ovs-mirror-producer',
    before: [ovs],
    plugin: {
      type: 'ovs-mirror-producer',
      bridge: 'br1',
      mirrors: [{ name: 'm1', ingress: true, egress: true }],
    },
    prepare: addOpenVswitch,
    look: lookAtOpenVswitch,
  },
  {
    name: 'ovs-mirror-consumer',
    before: [ovs],
    plugin: { type: 'ovs-mirror-consumer', bridge: 'br1', mirrors: [{ name: 'm1' }] },
    prepare: addOpenVswitch,
    look: lookAtOpenVswitch,
  },
];

/** Subjects with kinds of interfaces that the running kernel may lack. */
export const guestSubjects: readonly Subject[] = [
  { name: 'ipvlan', plugin: { type: 'ipvlan', master: 'up0', ipam } },
  { name: 'vlan', plugin: { type: 'vlan', master: 'up0', vlanId: 7, ipam } },
  { name: 'vrf', before: [bridge], plugin: { type: 'vrf', vrfname: 'red' }, leavesRoutes: true },
  { name: 'dummy', plugin: { type: 'dummy', ipam } },
];

/** Capabilities by verb, for each subject: what docs/privileges.json holds. */
export type Privileges = Record<string, Partial<Record<PrivilegedVerb, string[]>>>;

/** The command that runs a program with only the capabilities that are given. */
export function setpriv(capabilities: readonly string[]): string[] {
  const set = ['-all', ...capabilities.map((name) => `+${name.replace(/^CAP_/, '').toLowerCase()}`)];
  return ['setpriv', `--bounding-set=${set.join(',')}`, '--inh-caps=-all', '--'];
}

/** A host on which programs have fewer privileges. */
export class LimitedHost extends Host {
  override readonly enter: readonly string[];

  constructor(host: Host, capabilities: readonly string[]) {
    super(host.pid);
    this.enter = [...host.enter, ...setpriv(capabilities)];
  }
}

/** The same host, with the socket of its agent hidden from programs. */
async function withoutAgent(t: Teardown, host: Host): Promise<Host> {
  // Sandboxes that are made later must be visible.
  await host.run(['mount', '--make-rshared', '/run']);
  const hide = 'mount --bind /dev/null /run/cni/agent.sock; echo ready; exec cat >/dev/null';
  const child = await host.start(t, ['unshare', '--mount', '--propagation', 'slave', 'sh', '-ec', hide]);
  return new Host(child.pid!);
}

/** What is on the host, and in a sandbox. */
type Picture = [host: unknown, pod: Record<string, unknown>];

/** The outcome of a try. */
export interface Trial {
  /** It did what it does with all privileges, without a complaint. */
  readonly works: boolean;
  readonly outcome: Outcome;
  /** For a failed try: what was there before it, and what was there after it, or after DEL. */
  readonly pictures: readonly [before: unknown, after: unknown];
}

/** A subject on a host. */
export class Privileged {
  readonly host: Host;
  readonly subject: Subject;
  private readonly limited: Host;
  private readonly network: Conflist;

  private constructor(host: Host, limited: Host, subject: Subject) {
    this.host = host;
    this.limited = limited;
    this.subject = subject;
    this.network = { cniVersion: '1.1.0', name: 'net', plugins: [] };
  }

  /** Makes a host, with everything on it that plugins leave there for good. */
  static async prepare(t: Teardown, subject: Subject): Promise<Privileged> {
    const host = await makeHostWithDevices(t, { mayHaveAgent: false });
    await subject.prepare?.(host, t);
    await startAgent(t, host);
    const one = new Privileged(host, await withoutAgent(t, host), subject);
    for (const verb of ['ADD', 'GC'] as const) await one.attempt(verb, undefined);
    return one;
  }

  /** Tries a verb. @param capabilities all when undefined. */
  async attempt(verb: PrivilegedVerb, capabilities: readonly string[] | undefined): Promise<Trial> {
    const host = capabilities ? new LimitedHost(this.limited, capabilities) : this.host;
    if (verb === 'STATUS') {
      const outcome = await runNetworkVerb(host, this.ownNetwork(), 'STATUS');
      return { works: isFine(outcome), outcome, pictures: [0, 0] };
    }
    const pod = await this.host.addPod();
    await pod.useLoopback();
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
   * A minimal set of capabilities that a verb works with: none of them can be left out.
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
      // IPAM plugins have no interface to check here, but their CHECK looks at their files.
      full.result = outcome.result ?? base.result;
      const works = isFine(outcome) && (await full.tryCheck()).exit === 0;
      await full.del();
      return { works, outcome, pictures: [before, after] };
    }
    full.result = limited.result = succeededResult(await full.tryAdd({}, base.result));
    if (verb === 'GC') {
      const outcome = await runNetworkVerb(host, this.ownNetwork(), 'GC', { valid: [] });
      const after = isFine(outcome) && (await this.picture(pod));
      await runNetworkVerb(this.host, this.ownNetwork(), 'GC', { valid: [] });
      const works = after !== false && isSame(after, await this.picture(pod));
      await full.del();
      // What is in the sandbox goes with it.
      return { works, outcome, pictures: [before[0], (await this.picture(pod))[0]] };
    }
    const outcome = await (verb === 'DEL' ? limited.tryDel() : limited.tryCheck());
    const lasting = ([onHost, { routes, ...inPod }]: Picture) =>
      this.subject.leavesRoutes ? [onHost, inPod] : [onHost, inPod, routes];
    const look = async () => lasting(await this.picture(pod));
    const isGone = (after: unknown) => isSame(after, lasting(before));
    let after: unknown;
    if (verb === 'DEL' && isFine(outcome)) {
      after = await look();
      // The kernel may be about to notice what was done before.
      for (let tries = 0; !isGone(after) && tries < 10; tries++) {
        await sleep(500);
        after = await look();
      }
    }
    const works = isFine(outcome) && (verb === 'CHECK' || isGone(after));
    await full.del();
    return { works, outcome, pictures: [lasting(before), after ?? (await look())] };
  }

  private attachment(host: Host, pod: Pod, plugins: readonly PluginConf[]): Attachment {
    return new Attachment(host, pod, { ...this.network, plugins: [...plugins] }, this.subject.options);
  }

  private ownNetwork(): Conflist {
    return { ...this.network, plugins: [this.subject.plugin] };
  }

  private async picture(pod: Pod): Promise<Picture> {
    const { host, subject } = this;
    const [onHost, more, inPod] = await Promise.all([
      snapshot(host),
      subject.look?.(host),
      networkSnapshot(pod),
    ]);
    return [{ ...onHost, more }, inPod];
  }
}

/** Those that may be needed; that verbs work with these alone shows that no other one is. */
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
