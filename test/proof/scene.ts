/** A host on which plugins are killed and failed, and what it looks like from outside. */

import { renameSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { defaultSocket } from '../../agent/agent.ts';
import { Attachment, pluginConfig, runNetworkVerb, validKeys } from '../support/chain.ts';
import { type Host, makeHost, type Pod, startAgent, type Teardown } from '../support/host.ts';
import { links, until } from '../support/observe.ts';
import { type Outcome, runPlugin, succeeded, suites, type Verb } from '../support/plugin.ts';
import type { Start } from './injection.ts';
import { Neighbour, Outside } from './neighbour.ts';
import { type Picture, pictureOf } from './observer.ts';
import { attachmentOptions, mappingsOf, type Subject } from './subjects.ts';

/** How long the kernel may take to remove a namespace, in milliseconds. */
const longestSettling = 60_000;

/** How a scene is set. */
export interface SceneOptions {
  /** Whether there is a living attachment besides the one of each case; by default where there can be one. */
  readonly hasNeighbour?: boolean;
  /** Whether an agent does the calls that are not tampered with, which is quicker. */
  readonly hasAgent?: boolean;
  /** Whether the host has had attachments, which leave some things by design; true when left out. */
  readonly isUsed?: boolean;
}

/** A host with one network, used for one case after another as long as it is found clean. */
export class Scene {
  readonly host: Host;
  readonly subject: Subject;
  private neighbour: Neighbour | undefined;
  private outside!: Outside;
  /** PID of the agent. */
  private agent: number | undefined;
  private usesAgent = true;
  /** What the host looks like without any other attachment. */
  private before: Picture = {};
  /** The interfaces that it has then. */
  private readonly ports = new Set<string>();
  private readonly gone = new WeakSet<Pod>();
  private readonly cleanups: (() => void | Promise<void>)[];

  private constructor(host: Host, subject: Subject, cleanups: (() => void | Promise<void>)[]) {
    this.host = host;
    this.subject = subject;
    this.cleanups = cleanups;
  }

  /** Makes a host. */
  static async open(subject: Subject, options: SceneOptions = {}): Promise<Scene> {
    const { isUsed = true, hasNeighbour = isUsed && !subject.isExclusive, hasAgent = true } = options;
    const cleanups: (() => void | Promise<void>)[] = [];
    const t: Teardown = { teardown: (step) => void cleanups.push(step) };
    const scene = new Scene(await makeHost(t, { mayHaveAgent: false }), subject, cleanups);
    try {
      await scene.set(t, { isUsed, hasNeighbour, hasAgent });
    } catch (error) {
      await scene.close();
      throw error;
    }
    return scene;
  }

  private async set(t: Teardown, { isUsed, hasNeighbour, hasAgent }: Required<SceneOptions>): Promise<void> {
    const { host, subject } = this;
    this.outside = await Outside.of(host);
    await subject.prepare?.(host, t);
    if (hasAgent) this.agent = (await startAgent(t, host)).pid;
    // Some things stay after the last DEL by design: a bridge, shared chains. The agent opens some for good.
    if (isUsed) await this.liveOnce(hasAgent);
    // Longer than the half minute after which the kernel forgets connections by itself, which pictures show.
    if (mappingsOf(subject).length > 0)
      await host.run(['sh', '-c', 'echo 600 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout']);
    if (hasNeighbour) this.neighbour = await Neighbour.attach(t, host, subject, this.outside);
    for (const { ifname } of await links(host)) this.ports.add(ifname);
    this.before = await this.settledPicture();
  }

  private async liveOnce(hasAgent: boolean): Promise<void> {
    const first = await this.attachment();
    await first.add();
    if (hasAgent) await first.tryCheck();
    await first.del();
    await this.remove(first.pod);
    if (hasAgent) succeeded(await this.collect());
  }

  /** Takes the host away. */
  async close(): Promise<void> {
    for (const step of this.cleanups.reverse()) await step();
  }

  /** The living attachment beside those of the cases, where there is one. */
  get neighbourAttachment(): Attachment | undefined {
    return this.neighbour?.attachment;
  }

  /** A new pod, not attached yet. */
  async attachment(): Promise<Attachment> {
    const { host, subject } = this;
    const pod = await host.addPod();
    if (subject.ifname === 'lo') await pod.useLoopback();
    return new Attachment(host, pod, subject.network, attachmentOptions(subject));
  }

  /** Sends packets to the ports that are mapped, so that the kernel tracks where they are translated to. */
  async sendPackets(): Promise<void> {
    for (const { hostPort, protocol } of mappingsOf(this.subject))
      if (protocol === 'udp') await this.outside.sendUdp(hostPort);
  }

  /**
   * Chooses whether the agent does the next calls, or plugins by themselves: its socket is then moved out of
   * the way.
   */
  useAgent(isUsed: boolean): void {
    if (this.agent === undefined || isUsed === this.usesAgent) return;
    const [socket, aside] = [defaultSocket, `${defaultSocket}.aside`].map((path) => this.host.file(path));
    if (isUsed) renameSync(aside!, socket!);
    else renameSync(socket!, aside!);
    this.usesAgent = isUsed;
  }

  /** Takes a pod's namespace away, unless it is gone already. */
  async remove(pod: Pod): Promise<void> {
    if (this.gone.has(pod)) return;
    this.gone.add(pod);
    if (this.subject.isDevice) await this.fallBack(pod);
    await pod.remove();
  }

  /**
   * Does with a pod's interfaces what the kernel does with physical devices when a namespace ends: they move
   * to the host, down, and keep their names. It would delete a veth pair, which stands for one here.
   */
  private async fallBack(pod: Pod): Promise<void> {
    for (const { ifname } of await links(pod))
      if (ifname !== 'lo') await pod.run(['ip', 'link', 'set', ifname, 'netns', String(this.host.pid)]);
  }

  /**
   * As {@link remove}, and waits until the kernel has removed the pod's interfaces: as long as the other end
   * of a veth pair exists, what was made for it is rightly kept.
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
    const pods = [pod, this.neighbour?.attachment.pod].filter((one) => one !== undefined);
    const { host, subject } = this;
    return { ...(await pictureOf(host, pods, this.agent)), more: (await subject.look?.(host)) ?? [] };
  }

  /**
   * Compares the host with what it was before the case, and checks whether the neighbour can still be
   * reached.
   * @param isIgnored whether the file at a path may be different.
   * @returns what is still different after some time, "" when nothing is.
   */
  async difference(isIgnored?: (path: string) => boolean): Promise<string> {
    const difference = await this.differenceFrom(this.before, undefined, isIgnored);
    const isConnected = (await this.neighbour?.isConnected()) ?? true;
    return [difference, isConnected ? '' : 'The neighbour is not connected any more']
      .filter(Boolean)
      .join('\n');
  }

  /** As {@link difference}, from another picture. @param pod whose inside was part of it. */
  async differenceFrom(before: Picture, pod?: Pod, isIgnored = (_path: string) => false): Promise<string> {
    const wanted = without(before, isIgnored);
    for (const end = Date.now() + longestSettling; ; ) {
      const now = without(await this.picture(pod), isIgnored);
      if (isDeepStrictEqual(now, wanted)) return '';
      if (Date.now() > end) return mostOf(differences(wanted, now)).join('\n') || 'The order is different';
    }
  }

  /** How one verb of one plugin of the chain is started. @param overrides of the environment. */
  start(verb: Verb, index: number, attachment: Attachment): Start {
    const { network } = this.subject;
    const plugin = network.plugins[index]!;
    // For neither does libcni set capabilities, a prevResult or the variables of an attachment.
    const isOfNetwork = verb === 'GC' || verb === 'STATUS';
    const config = {
      ...pluginConfig(network, plugin, isOfNetwork ? {} : attachment.options.capabilities),
      ...(verb === 'GC'
        ? validKeys(this.valid())
        : isOfNetwork
          ? {}
          : attachment.result && { prevResult: attachment.result }),
    };
    return {
      type: plugin.type,
      stdin: JSON.stringify(config),
      env: {
        CNI_COMMAND: verb,
        CNI_CONTAINERID: isOfNetwork ? '' : attachment.pod.containerId,
        CNI_NETNS: isOfNetwork ? '' : attachment.pod.netns,
        CNI_IFNAME: isOfNetwork ? '' : attachment.options.ifname,
        CNI_PATH: suites.ours,
        ...(!isOfNetwork && attachment.options.args !== undefined && { CNI_ARGS: attachment.options.args }),
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
    const { pod, options } = this.neighbour?.attachment ?? {};
    return pod ? [{ containerID: pod.containerId, ifname: options!.ifname! }] : [];
  }

  /** A {@link picture} that stays the same for a moment: the kernel does some things asynchronously. */
  async settledPicture(pod?: Pod): Promise<Picture> {
    for (let last = await this.picture(pod); ; ) {
      const now = await this.picture(pod);
      if (isDeepStrictEqual(now, last)) return now;
      last = now;
    }
  }
}

/** What is different in a picture, in lines that begin with "+" or "-". */
export function differences(before: Picture, now: Picture): string[] {
  const flat = (picture: Picture) => new Set(flatten(picture));
  const [old, current] = [flat(before), flat(now)];
  return [
    ...[...current].filter((line) => !old.has(line)).map((line) => `+ ${line}`),
    ...[...old].filter((line) => !current.has(line)).map((line) => `- ${line}`),
  ];
}

/** The first lines of each kind: an interface has about a hundred settings. */
function mostOf(lines: readonly string[]): string[] {
  const counts = new Map<string, number>();
  return lines.filter((line) => {
    const kind = /^\S+ \S+/.exec(line)![0];
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
    return counts.get(kind)! <= 10;
  });
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
