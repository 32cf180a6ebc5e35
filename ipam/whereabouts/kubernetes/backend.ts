/**
 * Addresses in the objects of whereabouts in the Kubernetes API, which nodes that run whereabouts may use as
 * well. A file for each attachment says what this node has, as the objects do not name their node.
 */

import { NodesUnknownError, type RemoteHolding } from '../../../lib/cni/plugin.ts';
import { CniError, ErrorCode } from '../../../lib/errors.ts';
import type { Address } from '../../../lib/ip.ts';
import { failedAs } from '../../../lib/kubernetes/error.ts';
import { AttachmentFiles } from '../attachment-files.ts';
import {
  type Backend,
  eachInSpite,
  notReserved,
  type Release,
  reservedForOther,
  type Setting,
  type Source,
} from '../backend.ts';
import type { Owner } from '../keys.ts';
import { type Pool, poolHas } from '../pools.ts';
import { directoryOf, heldDirectoryOf } from '../state.ts';
import { allocateFrom, type Entered } from './allocate.ts';
import type { Allocation } from './ip-pool.ts';
import { type Objects, openObjects } from './objects.ts';
import {
  hasSlices,
  listOf,
  listsOf,
  plainRanges,
  poolNamesOf,
  type Range,
  refOf,
  sliceRange,
} from './ranges.ts';
import { releaseExpired, releaseFrom, removeFrom } from './release.ts';

export class KubernetesBackend implements Backend {
  readonly name = 'the Kubernetes API';
  readonly directory: string;
  /** The path of the kubeconfig. */
  readonly cluster: string;
  private readonly setting: Setting;
  private readonly timeoutMs: number | undefined;
  private readonly held: AttachmentFiles;
  private opened: Objects | undefined;
  private found: readonly Range[] | undefined;

  /** @param timeoutMs how long a request may take, if not as long as usual. */
  constructor(setting: Setting, kubeconfig: string, timeoutMs?: number) {
    this.setting = setting;
    this.directory = directoryOf('kubernetes', setting.owner.network);
    this.cluster = kubeconfig;
    this.timeoutMs = timeoutMs;
    this.held = new AttachmentFiles(heldDirectoryOf(setting.owner.network));
  }

  async pools(): Promise<readonly Pool[]> {
    return (await this.ranges()).map(({ pool }) => pool);
  }

  async allocate(
    sources: readonly Source[],
    onUncertain: () => void,
  ): Promise<{ addresses: Address[]; isNew: boolean }> {
    const { owner, podref } = this.setting;
    if (!podref)
      throw new CniError(
        ErrorCode.InvalidEnvironment,
        'CNI_ARGS has no K8S_POD_NAMESPACE and K8S_POD_NAME, and whereabouts takes away addresses whose pod it does not find. Have the runtime pass them, or keep addresses in etcd with "etcd_host"',
      );
    const ranges = await this.ranges();
    const own = { id: owner.containerId, podref, ifname: owner.ifname };
    // Before anything is allocated, so that DEL finds all of it if this process is killed in the middle.
    this.held.write(
      this.releaseFor(
        owner,
        ranges.map(({ ref }) => listOf(ref)),
      ),
    );
    const given: { address: Address; isNew: boolean }[] = [];
    const entered = new Map<string, Entered>();
    try {
      for (const [i, source] of sources.entries()) {
        const wish = { ...ranges[i]!, ...source };
        given.push(await allocateFrom(this.objects(), this.setting, wish, own, entered));
      }
      return { addresses: given.map(({ address }) => address), isNew: given.some(({ isNew }) => isNew) };
    } catch (error) {
      // ADD has waited long enough for an API that does not answer.
      if (!this.isFinal(error)) await this.takeBack(own, entered.values());
      else if (entered.size > 0 && given.every(({ isNew }) => isNew)) onUncertain();
      throw error;
    }
  }

  releaseOf(): Release {
    const { owner } = this.setting;
    const known = this.held.of(owner)?.lists ?? [];
    return this.releaseFor(owner, [...new Set([...known, ...listsOf(this.setting)])]);
  }

  async release(one: Release, warn: (message: string) => void = () => {}): Promise<void> {
    const { owner, quarantine, lists } = one;
    const releaseIn = async (list: string) => {
      const ref = await refOf(this.objects(), list, owner);
      if (ref) await releaseFrom(this.objects(), ref, owner, quarantine, warn);
    };
    const { isFinal } = this;
    await eachInSpite(lists, releaseIn, { isFinal, warn });
    // The release may be of another network.
    new AttachmentFiles(heldDirectoryOf(owner.network)).remove(owner);
  }

  async check(addresses: readonly Address[]): Promise<void> {
    const { owner, ipam } = this.setting;
    for (const { pool, ref } of await this.ranges()) {
      const given = addresses.filter((address) => poolHas(pool, address));
      const object = await this.objects().pools.read(ref.name, pool.subnet);
      if (given.length === 0) throw notReserved(undefined, owner);
      for (const address of given) {
        const entry = object?.at(address);
        if (!entry || entry.until !== undefined) throw notReserved(address, owner);
        if (!isOf(entry, owner)) throw reservedForOther(address, owner);
        if (ipam.enable_overlapping_ranges === false) continue;
        if (!(await this.objects().reservations.has(ref.networkName, address, entry)))
          throw notReserved(address, owner);
      }
    }
  }

  async probe(): Promise<void> {
    await this.objects().pools.probe();
    await this.ranges();
  }

  async collect(isValid: (owner: Owner) => boolean, warn: (message: string) => void): Promise<void> {
    const collectHeld = async (name: string) => {
      const one = this.held.read(name);
      if (!one) this.held.removeNamed(name);
      else if (!isValid(one.owner)) await this.release(one, warn);
    };
    const { isFinal } = this;
    const collectExpired = async () => {
      const ranges = await this.ranges();
      await eachInSpite(ranges, ({ ref }) => releaseExpired(this.objects(), ref), { isFinal, warn });
    };
    const steps = [...this.held.names().map((name) => () => collectHeld(name)), collectExpired];
    await eachInSpite(steps, (step) => step(), { isFinal, warn });
  }

  isFinal(error: unknown): boolean {
    return failedAs(error, 'unreachable', 'tls', 'unauthorized', 'busy');
  }

  async announce(): Promise<void> {
    // The API's Node objects say that already.
  }

  async leftBehind(): Promise<RemoteHolding[]> {
    throw new NodesUnknownError(
      `The objects of whereabouts do not say on which node an address is. What node "${this.setting.owner.node}" has left is given back by whereabouts' reconciler, once its pods are gone`,
    );
  }

  async countUsed(pool: Pool): Promise<number> {
    const names = await poolNamesOf(() => this.objects(), this.setting, pool);
    const { pools } = this.objects();
    const [name] = names;
    const objects = names.length === 1 ? [await pools.read(name!)] : await pools.readAll(names);
    const taken = objects.flatMap((object) => [...(object?.takenAt(Date.now() / 1000) ?? [])]);
    return taken.filter((value) => value >= pool.start.value && value <= pool.end.value).length;
  }

  /** The kubeconfig is not read before it is needed: DEL goes on without it. */
  private objects(): Objects {
    this.opened ??= openObjects(this.cluster, this.timeoutMs);
    return this.opened;
  }

  /** Removes what an ADD has entered that could not be completed. Where that fails, DEL or GC does it. */
  private async takeBack(own: Allocation, entered: Iterable<Entered>): Promise<void> {
    const { isFinal } = this;
    const remove = ({ ref, address }: Entered) => removeFrom(this.objects(), ref, own, address);
    await eachInSpite(entered, remove, { isFinal, warn: () => {} }).catch(() => {});
  }

  private async ranges(): Promise<readonly Range[]> {
    this.found ??= hasSlices(this.setting)
      ? [await sliceRange(this.objects(), this.setting)]
      : plainRanges(this.setting);
    return this.found;
  }

  private releaseFor(owner: Owner, lists: readonly string[]): Release {
    return { owner, guess: undefined, quarantine: this.setting.ipam.quarantine ?? 0, lists };
  }
}

function isOf({ id, ifname }: Allocation, owner: Owner): boolean {
  return id === owner.containerId && (ifname === undefined || ifname === owner.ifname);
}
