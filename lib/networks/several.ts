/** The verbs of a plugin that attaches a pod to several networks by running their plugins. */

import { type AttachmentId, attachmentKey } from '../attachment.ts';
import type { Call } from '../cni/call.ts';
import { definePlugin, type Plugin, type PluginDefinition } from '../cni/plugin.ts';
import type { Result } from '../cni/result.ts';
import type { InferShape, Shape } from '../cni/schema.ts';
import { runAll } from '../cni/steps.ts';
import { CniError, ErrorCode } from '../errors.ts';
import { cachedResults } from '../result-cache.ts';
import type { NetworkList } from './conflist.ts';
import { refuseRivals, settleDefaultRoutes } from './default-route.ts';
import {
  addDelegate,
  checkDelegate,
  collectNetwork,
  type Delegate,
  deleteDelegate,
  statusOfNetwork,
} from './delegates.ts';
import { type SavedDelegate, SavedDelegates } from './saved.ts';

/** A plugin that attaches a pod to several networks. */
export interface SeveralNetworks<S extends Shape>
  extends Pick<PluginDefinition<S>, 'name' | 'summary' | 'config' | 'explain' | 'validate'> {
  /** Directory in which the delegates of each container are saved. */
  directoryOf(config: InferShape<S>): string;
  /** The networks of a pod, the first of which gets the interface that the runtime asks for. */
  choose(call: Call<InferShape<S>>): Promise<Delegate[]> | Delegate[];
  /** Networks without which no pod can be attached. @throws Error when the node is not ready yet. */
  required(call: Call<InferShape<S>>): Promise<NetworkList[]> | NetworkList[];
}

/** Defines such a plugin. */
export function defineSeveralNetworks<S extends Shape>(
  definition: SeveralNetworks<S>,
): Plugin<InferShape<S>> {
  const { directoryOf, choose, required, ...rest } = definition;
  type OwnCall = Call<InferShape<S>>;
  const savedOf = (call: OwnCall) => new SavedDelegates(directoryOf(call.config));
  return definePlugin<S>({
    ...rest,
    role: 'main',
    passesCapabilities: true,

    async add(call) {
      const delegates = await choose(call);
      refuseRivals(delegates);
      refuseSameNames(delegates);
      const saved = savedOf(call);
      // What is saved of a living attachment stays as it is until the delegates have accepted this one.
      const earlier = saved.load(call.attachment);
      if (!earlier) {
        saved.save(call.attachment, call.netns, delegates);
        call.undo('forget the delegates', () => saved.remove(call.attachment));
      }
      const added: (Delegate & { result: Result })[] = [];
      for (const one of delegates) added.push({ ...one, result: await addDelegate(call, one) });
      const settled = settleDefaultRoutes(() => call.sandbox.socket, added);
      saved.save(call.attachment, call.netns, settled);
      return settled[0]!.result;
    },

    async check(call) {
      const delegates = savedOf(call).load(call.attachment);
      if (!delegates)
        throw new CniError(
          ErrorCode.UnknownContainer,
          `Nothing is saved in "${directoryOf(call.config)}" of the networks of container "${call.containerId}". Delete the container and add it again`,
        );
      for (const one of delegates) await checkDelegate(call, withIfname(call, one));
    },

    async del(call) {
      const saved = savedOf(call);
      const delegates = saved.load(call.attachment);
      if (delegates) await runAll(call, ...detaching(call, delegates));
      else await detachAsConfigured(call, choose);
      saved.remove(call.attachment);
    },

    async status(call) {
      for (const network of await required(call)) await statusOfNetwork(call, network);
    },

    async gc(call) {
      await collect(call, savedOf(call), async () => await required(call));
    },
  });
}

/** Steps that detach a pod from its networks, the last one first. */
function detaching(call: Call, delegates: readonly Delegate[]): (() => Promise<void>)[] {
  return delegates.toReversed().map((one) => () => deleteDelegate(call, withIfname(call, one)));
}

/** What Multus saved of the first delegate has no interface: it is that of the call. */
function withIfname<D extends Delegate>({ ifname }: Pick<AttachmentId, 'ifname'>, one: D): D {
  return one.ifname === '' ? { ...one, ifname } : one;
}

/**
 * Nothing says that there is anything to remove, so that what fails must not keep the container from going.
 */
async function detachAsConfigured<C extends object>(
  call: Call<C>,
  choose: (call: Call<C>) => Promise<Delegate[]> | Delegate[],
): Promise<void> {
  try {
    await runAll(call, ...detaching(call, await choose(call)));
  } catch (error) {
    call.warn(`Nothing was saved of the container's networks: ${(error as Error).message}`);
  }
}

function refuseSameNames(delegates: readonly Delegate[]): void {
  for (const [i, { ifname, label }] of delegates.entries()) {
    const other = delegates.slice(0, i).find((one) => one.ifname === ifname);
    if (other)
      throw new Error(
        `Networks "${other.label}" and "${label}" are both to have the interface "${ifname}". Give one of them another name`,
      );
  }
}

/**
 * Detaches the containers that are gone from each of their networks, and has the plugins of every network
 * look for more.
 */
async function collect(
  call: Call,
  saved: SavedDelegates,
  configured: () => Promise<NetworkList[]>,
): Promise<void> {
  const valid = new Set(call.validAttachments.map(attachmentKey));
  const networks = new Map<string, NetworkList>();
  const kept: SavedDelegate[] = [];
  const unreadable: string[] = [];
  const steps: (() => Promise<void> | void)[] = [];
  saved.removeUnfinished();
  for (const containerId of saved.containers()) {
    const delegates = readOrWarn(call, saved, containerId);
    if (!delegates) {
      unreadable.push(containerId);
      continue;
    }
    for (const [of, own] of byAttachment(call, containerId, delegates)) {
      const isStale = of.network === call.network && !valid.has(attachmentKey(of));
      if (of.network === call.network) for (const { network } of own) networks.set(network.name, network);
      if (!isStale) kept.push(...own.map((one) => ({ ...withIfname(of, one), of })));
      else
        steps.push(async () => {
          const container = (netns: string) => ({ containerId, netns });
          await runAll(
            call,
            ...own
              .toReversed()
              .map((one) => () => deleteDelegate(call, withIfname(of, one), container(one.netns))),
          );
          saved.remove(of);
        });
    }
  }
  steps.push(async () => {
    for (const network of await configured()) networks.set(network.name, network);
  });
  await runAll(call, ...steps);
  const known = new Set(kept.map(({ of }) => of && attachmentKey(of)));
  const lost = call.validAttachments.filter((one) => !known.has(attachmentKey(one)));
  if (
    lost.length > 0 ||
    unreadable.some((id) => call.validAttachments.some((one) => one.containerId === id))
  ) {
    // Their interfaces are not known, so that everything of theirs would look like garbage.
    call.warn(
      `Nothing is saved of the networks of ${lost.length} containers, so that the networks themselves are not searched. Delete those containers and add them again`,
    );
    return;
  }
  await runAll(
    call,
    ...[...networks.values()].map(
      (network) => () => collectNetwork(call, network, attachmentsOf(network, kept)),
    ),
  );
}

function readOrWarn(call: Call, saved: SavedDelegates, containerId: string): SavedDelegate[] | undefined {
  try {
    return saved.read(containerId) ?? [];
  } catch (error) {
    call.warn(`"${saved.directory}/${containerId}" is left alone: ${(error as Error).message}`);
    return undefined;
  }
}

/** Delegates by the attachment that they belong to. What Multus saved belongs to one that is valid. */
function byAttachment(
  call: Call,
  containerId: string,
  delegates: readonly SavedDelegate[],
): [AttachmentId, SavedDelegate[]][] {
  const valid = call.validAttachments.find((one) => one.containerId === containerId);
  const unknown = { network: call.network, containerId, ifname: valid?.ifname ?? 'eth0' };
  const groups = Map.groupBy(delegates, ({ of = unknown }) => attachmentKey(of));
  return [...groups.values()].map((own) => [own[0]!.of ?? unknown, own]);
}

/** A network may have attachments of its own, or by other plugins that delegate to it: those stay as well. */
function attachmentsOf({ name }: NetworkList, kept: readonly SavedDelegate[]): AttachmentId[] {
  const delegated = kept.flatMap(({ network, of, ifname }) =>
    network.name === name && of ? [{ network: name, containerId: of.containerId, ifname }] : [],
  );
  const direct = [...cachedResults(`${name}-`)].filter(({ network }) => network === name);
  return [...delegated, ...direct];
}
