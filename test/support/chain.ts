/**
 * Running a conflist as runtimes do through libcni: plugins in order with each other's result, DEL in reverse
 * with the final one, capabilities turned into runtimeConfig. Source: CNI specification 1.1.0, section 3.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeCached } from '../../cli/libcni/cache.ts';
import type { Host, Pod } from './host.ts';
import {
  type Outcome,
  type PrintedResult,
  runPlugin,
  type Suite,
  succeeded,
  withPatience,
} from './plugin.ts';

/** The configuration of one plugin. */
export interface PluginConf {
  type: string;
  capabilities?: Record<string, boolean>;
  [key: string]: unknown;
}

/** The configuration of a network. */
export interface Conflist {
  cniVersion: string;
  name: string;
  plugins: PluginConf[];
  [key: string]: unknown;
}

/** A port of the `portMappings` capability. */
export interface PortMapping {
  hostPort: number;
  containerPort: number;
  protocol?: string;
  hostIP?: string;
}

/** How a runtime attaches a container, where that differs from the defaults of the tests. */
export interface AttachOptions {
  containerId?: string;
  netns?: string;
  ifname?: string;
  args?: string;
  /** Values for capabilities, as the CRI hands them over: portMappings, ips, mac, bandwidth, … */
  capabilities?: { portMappings?: PortMapping[]; [key: string]: unknown };
  suite?: Suite;
  env?: NodeJS.ProcessEnv;
  /** Whether results get lost. */
  isUnheard?: boolean;
  /** Milliseconds until a call is killed; the default of run.ts when left out. */
  timeout?: number;
}

/** Reads one of the sample networks in conf/. */
export function sample(name: string): Conflist {
  return JSON.parse(readFileSync(join(import.meta.dirname, '../../conf', name), 'utf8')) as Conflist;
}

/** One pod's connection to one network. */
export class Attachment {
  readonly host: Host;
  readonly pod: Pod;
  readonly network: Conflist;
  readonly options: AttachOptions;
  /** The final result of the chain, which CHECK and DEL pass on. */
  result: PrintedResult | undefined;

  constructor(host: Host, pod: Pod, network: Conflist, options: AttachOptions = {}) {
    this.host = host;
    this.pod = pod;
    this.network = network;
    this.options = options;
  }

  /**
   * Runs ADD of each plugin until one fails.
   * @param before the first plugin's prevResult, for a network that is the rest of a chain.
   * @returns the outcome of the last one run.
   */
  async tryAdd(options: AttachOptions = {}, before?: PrintedResult): Promise<Outcome> {
    this.result = before;
    let outcome!: Outcome;
    for (const plugin of this.network.plugins) {
      outcome = await this.call('ADD', plugin, options);
      if (outcome.exit !== 0) return outcome;
      this.result = outcome.result;
    }
    return outcome;
  }

  /** Runs CHECK of each plugin until one fails. @returns the outcome of the last one run. */
  async tryCheck(options: AttachOptions = {}): Promise<Outcome> {
    let outcome!: Outcome;
    for (const plugin of this.network.plugins) {
      outcome = await this.call('CHECK', plugin, options);
      if (outcome.exit !== 0) return outcome;
    }
    return outcome;
  }

  /** Runs DEL of each plugin, last one first, until one fails. @returns the outcome of the last one run. */
  async tryDel(options: AttachOptions = {}): Promise<Outcome> {
    let outcome!: Outcome;
    for (const plugin of this.network.plugins.toReversed()) {
      outcome = await this.call('DEL', plugin, options);
      if (outcome.exit !== 0) return outcome;
    }
    return outcome;
  }

  /**
   * ADD of the whole chain, after DEL once more when a server did not answer in time, as runtimes do.
   * @returns the final result. @throws Error when a plugin fails.
   */
  async add(options: AttachOptions = {}): Promise<PrintedResult> {
    const remove = () => {
      this.result = undefined;
      return this.del(options);
    };
    return succeeded(await withPatience(() => this.tryAdd(options), remove)).result!;
  }

  /** CHECK of the whole chain. @throws Error when a plugin finds fault. */
  async check(options: AttachOptions = {}): Promise<void> {
    succeeded(await withPatience(() => this.tryCheck(options)));
  }

  /** DEL of the whole chain. @throws Error when a plugin fails. */
  async del(options: AttachOptions = {}): Promise<void> {
    succeeded(await withPatience(() => this.tryDel(options)));
  }

  /** The pod's first address, without its prefix length. */
  get ip(): string {
    return this.result!.ips![0]!.address.split('/')[0]!;
  }

  private call(command: 'ADD' | 'DEL' | 'CHECK', plugin: PluginConf, more: AttachOptions): Promise<Outcome> {
    const options = { ...this.options, ...more };
    return runPlugin(this.host, plugin.type, command, {
      ...options,
      pod: this.pod,
      config: {
        ...pluginConfig(this.network, plugin, options.capabilities),
        ...(this.result && { prevResult: this.result }),
      },
    });
  }
}

/** Attaches a pod to a network. @throws Error when ADD fails. */
export async function attach(
  host: Host,
  network: Conflist,
  options: AttachOptions & { pod?: Pod } = {},
): Promise<Attachment> {
  const { pod = await host.addPod(), ...rest } = options;
  const attachment = new Attachment(host, pod, network, rest);
  await attachment.add();
  return attachment;
}

/** The suite that does the ADD and the one that goes on from there, both ways round. */
export const suitePairs: readonly (readonly [Suite, Suite])[] = [
  ['ours', 'reference'],
  ['reference', 'ours'],
];

/** ADD by one suite, CHECK and DEL by the other. @throws Error when either fails. */
export async function liveWithBoth(
  host: Host,
  network: Conflist,
  [adder, other]: readonly [Suite, Suite],
): Promise<Attachment> {
  // The newest version that the reference plugins of Debian 12 support.
  const one = await attach(host, { ...network, cniVersion: '1.0.0' }, { suite: adder });
  await one.check({ suite: other });
  await one.del({ suite: other });
  return one;
}

/** What GC gets; null stands for none, as Go writes an empty list. */
type ValidAttachments = { containerID: string; ifname: string }[] | null;

/** The keys that GC adds to a plugin's configuration: under the specification's name, and under libcni's. */
export function validKeys(valid: ValidAttachments): object {
  return { 'cni.dev/valid-attachments': valid, 'cni.dev/attachments': valid };
}

/** Runs STATUS or GC of each plugin until one fails. @returns the outcome of the last one run. */
export async function runNetworkVerb(
  host: Host,
  network: Conflist,
  command: 'STATUS' | 'GC',
  options: { suite?: Suite; valid?: ValidAttachments; env?: NodeJS.ProcessEnv } = {},
): Promise<Outcome> {
  const { suite = 'ours', valid, env = {} } = options;
  const keys = valid === undefined ? {} : validKeys(valid);
  let outcome!: Outcome;
  for (const plugin of network.plugins) {
    outcome = await runPlugin(host, plugin.type, command, {
      suite,
      env,
      // libcni sets these to "".
      containerId: '',
      netns: '',
      ifname: '',
      config: { ...pluginConfig(network, plugin), ...keys },
    });
    if (outcome.exit !== 0) return outcome;
  }
  return outcome;
}

/** A plugin's own configuration, as derived from its network's. */
export function pluginConfig(
  { name, cniVersion }: Conflist,
  plugin: PluginConf,
  capabilities: Record<string, unknown> = {},
): object {
  const wanted = Object.entries(capabilities).filter(([key]) => plugin.capabilities?.[key]);
  return {
    ...plugin,
    name,
    cniVersion,
    ...(wanted.length > 0 && { runtimeConfig: Object.fromEntries(wanted) }),
  };
}

/** Writes an attachment into libcni's cache, as runtimes do. */
export function remember(host: Host, { pod, network, options, result }: Attachment): void {
  writeCached(host.file('/var/lib/cni'), {
    network: network.name,
    containerId: options.containerId ?? pod.containerId,
    ifname: options.ifname ?? 'eth0',
    config: Buffer.from(JSON.stringify(network)),
    netns: pod.netns,
    args: [],
    capabilityArgs: {},
    result: { ...result },
  });
}
