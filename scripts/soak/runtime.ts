/**
 * A runtime as careless as can be: its calls are killed, it forgets pods, and after a restart it knows only
 * what is in libcni's cache. Each call is done by this suite with its agent, by this suite without it, or by
 * the reference plugins, chosen at random.
 */

import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { defaultCacheDir, listCache, removeCached } from '../../cli/libcni/cache.ts';
import type { AttachmentId } from '../../lib/attachment.ts';
import type { PrintedResult } from '../../test/support/plugin.ts';
import { tryRun } from '../../test/support/run.ts';
import type { Contender } from '../bench/call.ts';
import { ours } from '../bench/measure.ts';
import type { Random } from '../random.ts';
import { configsOf, type Outcome } from './call.ts';
import { collect, reservationsOf } from './collection.ts';
import { Gates } from './gate.ts';
import type { Kill } from './kills.ts';
import type { SoakNetwork } from './networks.ts';
import { lifeOf, Pod } from './pod.ts';
import { recordedResult, removeRecord, writeRecord } from './records.ts';
import {
  isFull,
  judge,
  killFor,
  killOfLauncher,
  orphansLive,
  settlingTime,
  type Tools,
  triesAtMost,
} from './tools.ts';

/** How likely it is that the result of ADD is lost before DEL. */
const cacheLossProbability = 0.1;

/** What came of an ADD. */
export type Attached = 'attached' | 'full' | 'failed';

/** The runtime of a soak. */
export class Runtime {
  /** Pods that are attached, by container ID. */
  readonly attached = new Map<string, Pod>();
  /** Pods whose DEL has succeeded, until the observer has seen that nothing of them is left. */
  readonly gone = new Map<string, { readonly pod: Pod }>();
  private readonly options: Tools;
  private readonly gates: Gates<SoakNetwork>;
  private restarting: Promise<void> | undefined;
  /** Pods whose call the agent may still be doing, though its launcher was killed. */
  private readonly withAgent = new Set<string>();
  /** Until when the reference may have removed an address from the firewall that was another pod's. */
  private readonly spoiled = new Map<string, number>();

  constructor(options: Tools) {
    this.options = options;
    this.gates = new Gates(options.networks);
  }

  /** Has a pod come and go with each suite on each network, so that everything that stays is there. */
  async prepare(): Promise<void> {
    const { networks, findings, caller } = this.options;
    for (const network of networks)
      for (const [i, contender] of network.contenders.entries()) {
        const pod = new Pod(-1 - i, network);
        await pod.create();
        let result: PrintedResult | undefined;
        for (const command of ['ADD', 'DEL'] as const) {
          const chain = configsOf(pod);
          for (const { plugin, config } of command === 'ADD' ? chain : chain.reverse()) {
            const full = { ...config, ...(result && { prevResult: result }) };
            const outcome = await caller.run({ command, contender, plugin, config: full, pod });
            if (!outcome.isDone)
              findings.violation(`The first ${command} of ${plugin} (${contender}): ${outcome.message}`);
            result = outcome.result ?? result;
          }
        }
        await pod.remove();
      }
  }

  /** ADD of a pod's chain, and DEL if it fails, as runtimes do. */
  attach(pod: Pod, random: Random): Promise<Attached> {
    return this.gates.of(pod.network).share(async () => {
      this.gone.delete(pod.containerId);
      pod.isAdmittedByReference = false;
      let result: PrintedResult | undefined;
      for (const { plugin, config } of configsOf(pod)) {
        const contender = this.choose(pod, random);
        if (plugin === 'firewall') pod.admit(contender);
        const isReference = contender === 'reference';
        if (!result) pod.isConnectedByReference = pod.isOfReferenceAlone = isReference;
        else pod.isOfReferenceAlone &&= isReference;
        const outcome = await this.call(
          pod,
          { plugin, config: { ...config, ...(result && { prevResult: result }) } },
          {
            command: 'ADD',
            contender,
            random,
            kill: !result && contender === 'agent' ? killOfLauncher(random) : undefined,
          },
        );
        if (!outcome.isDone) {
          if (outcome.isToBeUndone && !result) await this.expectUndone(pod);
          await this.delete(pod, random, pod.isAdmittedByReference ? result : undefined);
          return isFull(outcome) ? 'full' : 'failed';
        }
        result = outcome.result!;
      }
      this.remember(pod, result!);
      return 'attached';
    });
  }

  /** DEL of a pod's chain, with the result in libcni's cache, unless that was lost. */
  detach(pod: Pod, random: Random): Promise<void> {
    return this.gates.of(pod.network).share(() => {
      this.attached.delete(pod.containerId);
      // Without the result, the rules of the reference's firewall plugin cannot be found.
      if (!pod.isAdmittedByReference && random.chance(cacheLossProbability)) {
        this.options.findings.count('lost result');
        removeRecord(pod);
      }
      return this.delete(pod, random, recordedResult(pod));
    });
  }

  /** Forgets a pod, as if its DEL had been lost. Its namespace is gone as well. */
  forget(pod: Pod): Promise<void> {
    return this.gates.of(pod.network).share(async () => {
      this.attached.delete(pod.containerId);
      await pod.remove();
    });
  }

  /** GC of one network, while pods of the others come and go. */
  sweep(network: SoakNetwork, random: Random): Promise<void> {
    return this.gates.of(network).alone(async () => {
      this.options.findings.count('GC of one network beside others');
      await collect(this.options, [network], this.attached, random);
    });
  }

  /**
   * Starts anew, with what the cache tells: pods whose namespace is gone no longer exist, and everything that
   * belongs to none of the others is collected. A call while that is under way only waits for it.
   */
  restart(random: Random): Promise<void> {
    this.restarting ??= this.startAnew(random).finally(() => {
      this.restarting = undefined;
    });
    return this.restarting;
  }

  private startAnew(random: Random): Promise<void> {
    return this.gates.alone(async () => {
      const { findings, networks } = this.options;
      findings.count('restart of the runtime');
      const before = new Map(this.attached);
      this.attached.clear();
      const lost: Pod[] = [];
      for (const { attachment, error } of listCache(defaultCacheDir)) {
        if (error) findings.violation(error.message);
        if (!attachment) continue;
        const pod = before.get(attachment.containerId);
        if (pod && existsSync(attachment.netns)) this.attached.set(pod.containerId, pod);
        else lost.push(this.podOf(attachment));
      }
      for (const { name, containerId } of before.values())
        if (!this.attached.has(containerId))
          findings.violation(`${name} is attached, but the runtime finds it no longer`);
      // Newer releases of libcni run DEL for stale records in the cache before GC, older ones only GC.
      if (random.chance(0.5)) for (const pod of lost) await this.delete(pod, random, recordedResult(pod));
      await collect(this.options, networks, this.attached, random);
      for (const pod of lost) removeRecord(pod);
    });
  }

  /**
   * Collects everything, once no pod is attached any more. Until that is done, libcni's cache keeps the
   * records of lost pods.
   */
  end(random: Random): Promise<void> {
    return this.gates.alone(async () => {
      const { findings, networks } = this.options;
      for (const { name } of this.attached.values())
        findings.violation(`${name} is still attached in the end`);
      await collect(this.options, networks, this.attached, random);
      for (const { attachment } of listCache(defaultCacheDir))
        if (attachment) removeCached(defaultCacheDir, attachment);
    });
  }

  /** Whether the reference may have removed this pod from the firewall, rather than the one it was told. */
  isSpoiled({ addresses, admittedAt }: Pod): boolean {
    return addresses.some((address) => (this.spoiled.get(address) ?? 0) >= admittedAt);
  }

  private spoil(addresses: readonly string[], until: number): void {
    for (const one of addresses) this.spoiled.set(one, Math.max(until, this.spoiled.get(one) ?? 0));
  }

  private remember(pod: Pod, result: PrintedResult): void {
    pod.addresses = addressesOf(result);
    writeRecord(pod, result);
    this.attached.set(pod.containerId, pod);
  }

  /** A pod, from its record in the cache. */
  private podOf({ network, containerId }: AttachmentId): Pod {
    const { networks } = this.options;
    return new Pod(lifeOf(containerId), networks.find(({ conflist }) => conflist.name === network)!);
  }

  /** Runs DEL until it succeeds. */
  private async delete(pod: Pod, random: Random, result: PrintedResult | undefined): Promise<void> {
    for (let tries = 0; tries < triesAtMost; tries++)
      if (await this.tryDelete(pod, random, result, tries)) {
        removeRecord(pod);
        this.gone.set(pod.containerId, { pod });
        return;
      }
    this.options.findings.violation(`DEL of ${pod.name} did not succeed in ${triesAtMost} attempts`);
  }

  private async tryDelete(
    pod: Pod,
    random: Random,
    result: PrintedResult | undefined,
    tries: number,
  ): Promise<boolean> {
    for (const { plugin, config } of configsOf(pod, result && { prevResult: result }).reverse()) {
      const contender = this.choose(pod, random, tries);
      const outcome = await this.call(pod, { plugin, config }, { command: 'DEL', contender, random, tries });
      if (plugin === 'firewall' && contender === 'reference')
        this.spoil(addressesOf(result), performance.now() + (outcome.isDisturbed ? orphansLive : 0));
      if (!outcome.isDone) return false;
      pod.deletedBy.set(plugin, contender);
    }
    return true;
  }

  /** Checks that the agent undoes an ADD of the first plugin of a chain whose launcher was killed. */
  private async expectUndone(pod: Pod): Promise<void> {
    const { findings, caller } = this.options;
    const { kills } = caller.agent;
    for (const end = performance.now() + settlingTime; await isThere(pod); await sleep(100)) {
      if (caller.agent.kills !== kills) return; // Nobody is there to undo it.
      if (performance.now() < end) continue;
      findings.violation(`ADD of ${pod.name} was not undone when its launcher was killed`);
      return;
    }
    findings.count('ADD undone by the agent');
  }

  private async call(
    pod: Pod,
    { plugin, config }: { plugin: string; config: object },
    { command, contender, random, tries = 0, kill: planned }: CallOptions,
  ): Promise<Outcome> {
    const kill = planned ?? killFor(tries, this.options, random);
    const outcome = await this.options.caller.run({ command, plugin, config, pod, contender, kill });
    pod.history.push(`${command} of ${plugin} (${contender})${outcome.isDone ? '' : ' failed'}`);
    if (kill && outcome.isDisturbed) this.options.findings.count(`kill of ${kill.target}`);
    if (contender === 'agent' && !outcome.isDone) this.withAgent.add(pod.containerId);
    else this.withAgent.delete(pod.containerId);
    judge(this.options.findings, { command, plugin, contender }, outcome);
    return outcome;
  }

  /**
   * Who does a call. A pod that the agent may still be busy with is left to the agent: the kernel does not
   * always survive it when a namespace disappears while an interface in it is being deleted.
   */
  private choose({ containerId, network }: Pod, random: Random, tries = 0): Contender {
    const contender = random.pick(tries > triesAtMost / 2 ? ours : network.contenders);
    return this.withAgent.has(containerId) ? 'agent' : contender;
  }
}

interface CallOptions {
  readonly command: 'ADD' | 'DEL';
  readonly contender: Contender;
  readonly random: Random;
  /** A kill in addition to those that may hit any call. */
  readonly kill?: Kill | undefined;
  /** How often the same has been tried already. */
  readonly tries?: number;
}

/** Whether a pod has its interface, or an address reserved. */
async function isThere({ name, ifname, containerId, network }: Pod): Promise<boolean> {
  const { exit } = await tryRun(['ip', '-n', name, 'link', 'show', ifname]);
  return exit === 0 || reservationsOf(network.conflist.name).some(({ owner }) => owner === containerId);
}

function addressesOf(result: PrintedResult | undefined): string[] {
  return (result?.ips ?? []).map(({ address }) => address.split('/')[0]!);
}
