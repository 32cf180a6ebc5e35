/**
 * Garbage collection for a plugin that attaches pods to several networks. A network may have other
 * attachments as well: those that a runtime has made by itself, and those of plugins of this kind that save
 * what they do in another directory. They are all kept.
 */

import { isDeepStrictEqual } from 'node:util';
import { type AttachmentId, attachmentKey } from '../attachment.ts';
import type { Call } from '../cni/call.ts';
import { parseJson } from '../cni/json.ts';
import { runAll } from '../cni/steps.ts';
import { isOutOfPlace } from '../file.ts';
import { areNetnsGone } from '../kernel/netns.ts';
import { type CachedResult, cachedResults } from '../result-cache.ts';
import { listIfDirectory, listStateFiles } from '../state-file.ts';
import { type NetworkList, networkFrom } from './conflist.ts';
import { collectNetwork, deleteDelegate } from './delegates.ts';
import { directoriesIn, usualDirectories } from './directories.ts';
import { removeLeftLocks, tryLockNetworks } from './lock.ts';
import { type SavedDelegate, SavedDelegates, withIfname } from './saved.ts';

/**
 * Detaches the containers that are gone from each of their networks, and has the plugins of every network
 * look for more.
 * @param configured networks to search even if nobody is attached to them.
 */
export async function collect(
  call: Call,
  saved: SavedDelegates,
  configured: () => Promise<NetworkList[]>,
): Promise<void> {
  const valid = new Set(call.validAttachments.map(attachmentKey));
  const networks = new Map<string, NetworkList>();
  const living = new Living(call);
  const steps: (() => Promise<void> | void)[] = [];
  saved.removeUnfinished();
  removeLeftLocks((message) => call.warn(message));
  for (const directory of living.directoriesFrom(saved))
    for (const [of, own] of living.savedIn(directory, directory === saved)) {
      const isOfCall = of.network === call.network;
      // What Multus saved does not name the runtime's network: in another directory, it may be a different
      // one.
      const isStale =
        isOfCall && !valid.has(attachmentKey(of)) && (directory === saved || own[0]!.of !== undefined);
      if (isOfCall) for (const { network } of own) networks.set(network.name, network);
      if (isStale) steps.push(() => detachUnchanged(call, living, directory, of, own));
      else living.add(of, own);
    }
  steps.push(async () => {
    for (const network of await configured()) networks.set(network.name, network);
  });
  steps.push(() => search(call, networks, living));
  const containers = new Set(call.validAttachments.map(({ containerId }) => containerId));
  steps.push(() => saved.collectResults((containerId) => containers.has(containerId)));
  for (const failure of living.failures)
    steps.push(() => {
      throw failure;
    });
  await runAll(call, ...steps);
}

/** Has the plugins of networks look for what belongs to nobody. */
async function search(call: Call, networks: ReadonlyMap<string, NetworkList>, living: Living): Promise<void> {
  const lost = living.lost();
  if (lost.length > 0) {
    // Their interfaces are not known, so that everything of theirs would look like garbage.
    call.warn(
      `Nothing is saved of the networks of ${lost.length} containers, so that the networks themselves are not searched. Delete those containers and add them again: ${lost.join(', ')}`,
    );
    return;
  }
  await runAll(
    call,
    ...[...networks.values()].map(
      (network) => () => collectNetwork(call, network, living.attachmentsOf(network)),
    ),
  );
}

/**
 * Detaches a container that is gone, unless somebody is changing its networks, or has changed them since: an
 * ADD that began after the runtime listed the valid attachments belongs to a live container.
 * @param own what was saved for it when it was found.
 */
async function detachUnchanged(
  call: Call,
  living: Living,
  directory: SavedDelegates,
  of: AttachmentId,
  own: readonly SavedDelegate[],
): Promise<void> {
  let lock: Disposable | undefined;
  try {
    lock = tryLockNetworks(of.containerId);
    if (!lock) return living.add(of, own);
  } catch (error) {
    // If it cannot have a lock, no ADD can have one either.
    call.warn(`Going on without a lock on the pod's networks: ${(error as Error).message}`);
  }
  using _ = lock;
  const now = living.current(directory, of);
  if (isDeepStrictEqual(now, own)) await detach(call, directory, of, own);
  else living.add(of, now);
}

/** Detaches a container that is gone, the last network first, and forgets it. */
async function detach(
  call: Call,
  directory: SavedDelegates,
  of: AttachmentId,
  own: readonly SavedDelegate[],
): Promise<void> {
  const { containerId, ifname } = of;
  await runAll(
    call,
    ...own
      .toReversed()
      .map((one) => () => deleteDelegate(call, withIfname(one, ifname), { containerId, netns: one.netns })),
  );
  directory.remove(of);
}

/** What is known of the attachments to keep. */
class Living {
  private readonly call: Call;
  private readonly cached: readonly CachedResult[] = [...cachedResults()];
  /** Keys of the attachments that plugins of this kind have made. */
  private readonly known = new Set<string>();
  private readonly delegated: AttachmentId[] = [];
  private readonly unreadable = new Set<string>();
  /** Why files could not be read that the next call may be able to read. */
  readonly failures: unknown[] = [];
  /** Directories that the networks of pods name. */
  private readonly directories = new Set(usualDirectories());
  /** Attachments that plugins of this kind have made, according to the runtimes. */
  private readonly attachments: readonly AttachmentId[];

  constructor(call: Call) {
    this.call = call;
    this.attachments = [...call.validAttachments, ...this.cached.filter((one) => this.isOther(one))];
  }

  /**
   * What a directory has, by attachment.
   * @param own whether it is the call's own, which must be a directory if it exists.
   */
  savedIn(directory: SavedDelegates, own: boolean): [AttachmentId, SavedDelegate[]][] {
    const containers = directory.containers(own ? listStateFiles : listIfDirectory);
    return containers.flatMap((one) => this.byAttachment(one, this.read(directory, one)));
  }

  /**
   * Delegates by the attachment that they belong to. What Multus saved may belong to any attachment of the
   * container.
   */
  private byAttachment(
    containerId: string,
    delegates: readonly SavedDelegate[],
  ): [AttachmentId, SavedDelegate[]][] {
    const unknown = this.attachments.find((one) => one.containerId === containerId) ?? {
      ...{ network: this.call.network, containerId, ifname: 'eth0' },
    };
    const groups = Map.groupBy(delegates, ({ of = unknown }) => attachmentKey(of));
    return [...groups.values()].map((own) => [own[0]!.of ?? unknown, own]);
  }

  /** What a directory has for an attachment by now. @throws Error when it cannot be read. */
  current(directory: SavedDelegates, of: AttachmentId): SavedDelegate[] {
    const groups = this.byAttachment(of.containerId, directory.read(of.containerId) ?? []);
    return groups.find(([one]) => attachmentKey(one) === attachmentKey(of))?.[1] ?? [];
  }

  add(of: AttachmentId, delegates: readonly SavedDelegate[]): void {
    this.known.add(attachmentKey(of));
    for (const { network, ifname } of delegates) {
      this.delegated.push({ ...of, network: network.name, ifname: ifname || of.ifname });
      this.addDirectories(network);
    }
  }

  /** Reads what is saved for a container; nothing when that cannot be read, which stops nothing else. */
  private read(saved: SavedDelegates, containerId: string): SavedDelegate[] {
    try {
      return saved.read(containerId) ?? [];
    } catch (error) {
      this.unreadable.add(containerId);
      if (isOutOfPlace(error))
        this.call.warn(`"${saved.directory}/${containerId}" is left alone: ${(error as Error).message}`);
      else this.failures.push(error);
      return [];
    }
  }

  /**
   * Directories in which plugins of this kind save, the call's own first. What is found in one may name
   * another.
   */
  *directoriesFrom(own: SavedDelegates): Generator<SavedDelegates> {
    yield own;
    for (const directory of this.directories)
      if (directory !== own.directory) yield new SavedDelegates(directory);
  }

  /** Containers whose networks must be saved somewhere, but are not, or cannot be read. */
  lost(): string[] {
    const unknown = this.attachments.filter(
      (one) => !this.known.has(attachmentKey(one)) || this.unreadable.has(one.containerId),
    );
    return [...new Set(unknown.map(({ containerId }) => containerId))];
  }

  /** Attachments of a network: by plugins that delegate to it, and by runtimes. */
  attachmentsOf({ name }: NetworkList): AttachmentId[] {
    return [...this.delegated, ...this.cached].filter(({ network }) => network === name);
  }

  /** Whether a plugin of this kind made it for a network other than the call's, and it may still exist. */
  private isOther({ network, config, sandboxes }: CachedResult): boolean {
    try {
      const bytes = Buffer.from(config, 'base64');
      const isOfKind = this.addDirectories(networkFrom(parseJson(bytes.toString()), bytes, ''));
      return isOfKind && network !== this.call.network && !areNetnsGone(sandboxes);
    } catch {
      return false;
    }
  }

  /** @returns whether there are any. */
  private addDirectories(network: NetworkList): boolean {
    const found = directoriesIn(network);
    for (const directory of found) this.directories.add(directory);
    return found.length > 0;
  }
}
