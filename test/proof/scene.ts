/** A host on which plugins are killed and failed, and what it looks like from outside. */

import { isDeepStrictEqual } from 'node:util';
import { Attachment, type AttachOptions, pluginConfig, runNetworkVerb, validKeys } from '../support/chain.ts';
import { type Host, makeHost, type Pod, startAgent, type Teardown } from '../support/host.ts';
import { links, networkSnapshot, runAll, snapshot, until } from '../support/observe.ts';
import { type Outcome, runPlugin, suites, type Verb } from '../support/plugin.ts';
import type { Start } from './injection.ts';
import type { Subject } from './subjects.ts';

/** How long the kernel may take to do away with a namespace, in milliseconds. */
const longestSettling = 20_000;

/** Sysctls of the host that plugins change. */
const sysctls = ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding', 'net.ipv4.conf.all.route_localnet'];

/** What a host, or a pod, looks like. */
export type Picture = Record<string, unknown>;

/** A host with one network, used for one case after another as long as it is found clean. */
export class Scene {
  readonly host: Host;
  readonly subject: Subject;
  /** A living attachment that nothing may happen to. */
  readonly neighbour: Attachment | undefined;
  /** What the host looks like without any other attachment. */
  private before: Picture = {};
  /** The interfaces that it has then. */
  private readonly ports = new Set<string>();
  private readonly gone = new WeakSet<Pod>();
  private readonly cleanups: (() => void | Promise<void>)[];

  private constructor(
    host: Host,
    subject: Subject,
    cleanups: (() => void | Promise<void>)[],
    neighbour: Attachment | undefined,
  ) {
    this.host = host;
    this.subject = subject;
    this.cleanups = cleanups;
    this.neighbour = neighbour;
  }

  /**
   * Makes a host.
   * @param options.hasNeighbour whether there is a living attachment besides the one of each case.
   * @param options.hasAgent whether an agent does what is not tampered with; it is quicker.
   */
  static async open(subject: Subject, { hasNeighbour = false, hasAgent = true } = {}): Promise<Scene> {
    const cleanups: (() => void | Promise<void>)[] = [];
    const t: Teardown = { teardown: (step) => void cleanups.push(step) };
    const host = await makeHost(t, { mayHaveAgent: false });
    await subject.prepare?.(host);
    if (hasAgent) await startAgent(t, host);
    const scene = new Scene(host, subject, cleanups, undefined);
    // Some things stay after the last DEL by design: a bridge, shared chains.
    const first = await scene.attachment();
    await first.add();
    await first.del();
    await first.pod.remove();
    await subject.prepare?.(host);
    const neighbour = hasNeighbour ? await scene.attachment({ portMappings: [] }) : undefined;
    await neighbour?.add();
    const whole = neighbour ? new Scene(host, subject, cleanups, neighbour) : scene;
    for (const { ifname } of await links(host)) whole.ports.add(ifname);
    whole.before = await whole.settledPicture();
    return whole;
  }

  /** Takes the host away. */
  async close(): Promise<void> {
    for (const step of this.cleanups.reverse()) await step();
  }

  /** A new pod, not attached yet. */
  async attachment(capabilities: AttachOptions['capabilities'] = this.subject.capabilities ?? {}) {
    return new Attachment(this.host, await this.host.addPod(), this.subject.network, { capabilities });
  }

  /** Takes a pod's namespace away, unless it is gone already. */
  async remove(pod: Pod): Promise<void> {
    if (this.gone.has(pod)) return;
    this.gone.add(pod);
    await pod.remove();
  }

  /**
   * As {@link remove}, and waits until the kernel has done away with the pod's interfaces: as long as the other
   * end of a veth pair exists, what was made for it is rightly kept.
   */
  async removeWholly(pod: Pod): Promise<void> {
    await this.remove(pod);
    await until("the pod's interfaces are gone", async () => {
      const present = await links(this.host);
      return present.every(({ ifname }) => !/^veth/.test(ifname) || this.ports.has(ifname));
    });
  }

  /** What the host, and the neighbour's pod, look like now. @param pod whose inside is looked at as well. */
  async picture(pod?: Pod): Promise<Picture> {
    const { host, neighbour } = this;
    const inside = [pod, neighbour?.pod].filter((one) => one !== undefined);
    const commands = ['tc qdisc', 'iptables-save', 'ip6tables-save', `sysctl ${sysctls.join(' ')}`];
    const [all, [qdiscs = '', rules4 = '', rules6 = '', values = ''], ...pods] = await Promise.all([
      snapshot(host),
      runAll(host, commands),
      ...inside.map((one) => insideOf(one)),
    ]);
    // Node.js names the hint of nobody: which handles the kernel gave to shared rules.
    const shown = Object.entries(all.files as Record<string, string>).filter(
      ([path]) => !path.startsWith('/run/cni/iptables/') || path.endsWith('.tmp'),
    );
    return {
      ...all,
      files: Object.fromEntries(shown),
      qdiscs: lines(qdiscs.replace(/ refcnt \d+/g, '').replace(/qdisc (\S+) \S+:/g, 'qdisc $1')),
      iptables: [...rulesOf(rules4), ...rulesOf(rules6)],
      sysctls: lines(values),
      pods: { ...pods },
    };
  }

  /**
   * Compares the host with what it was before the case.
   * @param isIgnored tells by a file's path whether it may be different.
   * @returns what is different once the kernel has had its time, "" when nothing is.
   */
  async difference(isIgnored?: (path: string) => boolean): Promise<string> {
    await this.subject.prepare?.(this.host);
    return this.differenceFrom(this.before, undefined, isIgnored);
  }

  /** As {@link difference}, from another picture. @param pod whose inside was part of it. */
  async differenceFrom(before: Picture, pod?: Pod, isIgnored = (_path: string) => false): Promise<string> {
    const wanted = without(before, isIgnored);
    for (const end = Date.now() + longestSettling; ; ) {
      const now = without(await this.picture(pod), isIgnored);
      if (isDeepStrictEqual(now, wanted)) return '';
      if (Date.now() > end) return differences(wanted, now).join('\n') || 'The order is different';
    }
  }

  /** How one verb of one plugin of the chain is started. @param overrides of the environment. */
  start(verb: Verb, index: number, attachment: Attachment): Start {
    const { network } = this.subject;
    const plugin = network.plugins[index]!;
    const isGc = verb === 'GC';
    const config = {
      ...pluginConfig(network, plugin, isGc ? {} : attachment.options.capabilities),
      ...(isGc ? validKeys(this.valid()) : attachment.result && { prevResult: attachment.result }),
    };
    return {
      type: plugin.type,
      stdin: JSON.stringify(config),
      env: {
        CNI_COMMAND: verb,
        CNI_CONTAINERID: isGc ? '' : attachment.pod.containerId,
        CNI_NETNS: isGc ? '' : attachment.pod.netns,
        CNI_IFNAME: isGc ? '' : 'eth0',
        CNI_PATH: suites.ours,
      },
    };
  }

  /** Runs one verb of one plugin of the chain as it is. */
  async run(
    verb: Verb,
    index: number,
    attachment: Attachment,
    env: NodeJS.ProcessEnv = {},
  ): Promise<Outcome> {
    const { type, stdin, env: own } = this.start(verb, index, attachment);
    return await runPlugin(this.host, type, verb, { config: stdin, env: { ...own, ...env } });
  }

  /** GC of the whole chain: only the neighbour's attachment is valid. */
  async collect(): Promise<Outcome> {
    return await runNetworkVerb(this.host, this.subject.network, 'GC', { valid: this.valid() });
  }

  private valid(): { containerID: string; ifname: string }[] {
    return this.neighbour ? [{ containerID: this.neighbour.pod.containerId, ifname: 'eth0' }] : [];
  }

  /** A {@link picture} that stays the same for a moment: the kernel does some things when it finds the time. */
  async settledPicture(pod?: Pod): Promise<Picture> {
    for (let last = await this.picture(pod); ; ) {
      const now = await this.picture(pod);
      if (isDeepStrictEqual(now, last)) return now;
      last = now;
    }
  }
}

async function insideOf(pod: Pod): Promise<Picture> {
  const [network, values] = await Promise.all([
    networkSnapshot(pod),
    pod.tryRun(['sysctl', '-a', '--pattern', 'conf.eth0.(arp_filter|accept_ra|disable_ipv6)']),
  ]);
  return { ...network, sysctls: lines(values.stdout) };
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

/** What of a picture is different, in lines that begin with "+" or "-". */
export function differences(before: Picture, now: Picture): string[] {
  const flat = (picture: Picture) => new Set(flatten(picture));
  const [old, current] = [flat(before), flat(now)];
  return [
    ...[...current].filter((line) => !old.has(line)).map((line) => `+ ${line}`),
    ...[...old].filter((line) => !current.has(line)).map((line) => `- ${line}`),
  ];
}

/** A picture without some of its files. */
function without(picture: Picture, isIgnored: (path: string) => boolean): Picture {
  const shown = Object.entries(picture.files as object).filter(([path]) => !isIgnored(path));
  return { ...picture, files: Object.fromEntries(shown) };
}

/** A picture as lines that name their place. */
function flatten(value: unknown, path = ''): string[] {
  if (Array.isArray(value)) return value.map((item) => `${path} ${JSON.stringify(item)}`);
  if (typeof value === 'object' && value !== null)
    return Object.entries(value).flatMap(([key, item]) => flatten(item, `${path}/${key}`));
  return [`${path} ${JSON.stringify(value)}`];
}
