/** The verbs of a plugin that attaches a pod to several networks by running their plugins. */

import { type AttachmentId, attachmentKey } from '../attachment.ts';
import type { Call } from '../cni/call.ts';
import { definePlugin, type Plugin, type PluginDefinition } from '../cni/plugin.ts';
import type { InferShape, Shape } from '../cni/schema.ts';
import { runAll } from '../cni/steps.ts';
import { CniError, ErrorCode } from '../errors.ts';
import { cachedResults } from '../result-cache.ts';
import { asDelegates, type Choice } from './choice.ts';
import type { NetworkList } from './conflist.ts';
import { refuseRivals, settleDefaultRoutes } from './default-route.ts';
import {
  type AddedDelegate,
  addDelegate,
  checkDelegate,
  collectNetwork,
  type Delegate,
  deleteDelegate,
  statusOfNetwork,
} from './delegates.ts';
import { Devices } from './devices.ts';
import { delegateArgs } from './pod.ts';
import type { PodApi } from './pod-api.ts';
import { type SavedDelegate, SavedDelegates } from './saved.ts';

/** The networks of a pod. */
export interface Plan {
  /** The first one gets the interface that the runtime asks for. */
  readonly choices: readonly Choice[];
  /** Annotations that tell what the pod has got, for the API. */
  annotationsFor(added: readonly AddedDelegate[]): Readonly<Record<string, string>>;
}

/** A plugin that attaches a pod to several networks. */
export interface SeveralNetworks<S extends Shape>
  extends Pick<PluginDefinition<S>, 'name' | 'summary' | 'config' | 'explain' | 'validate'> {
  /** Directory in which the delegates of each container are saved. */
  directoryOf(config: InferShape<S>): string;
  /** The file that says where the Kubernetes API is; undefined or "" for a node without one. */
  kubeconfigOf(config: InferShape<S>): string | undefined;
  /** What the interface of a further network is called unless the pod says so, by its place. */
  nameOf(index: number): string;
  /** Chooses the networks of a pod. @param api undefined on a node without one. */
  choose(call: Call<InferShape<S>>, api: PodApi | undefined): Promise<Plan> | Plan;
  /**
   * Networks without which no pod can be attached.
   * @param api undefined on a node without one; without it, networks that only it may know are left out.
   * @throws Error when the node is not ready yet.
   */
  required(
    call: Call<InferShape<S>>,
    api: PodApi | undefined,
  ): Promise<readonly Choice[]> | readonly Choice[];
  /** Whether ADD fails when the annotations cannot be written. */
  readonly needsAnnotations: boolean;
}

/** Defines such a plugin. */
export function defineSeveralNetworks<S extends Shape>(
  definition: SeveralNetworks<S>,
): Plugin<InferShape<S>> {
  const { directoryOf, kubeconfigOf, nameOf, choose, required, needsAnnotations, ...rest } = definition;
  type OwnCall = Call<InferShape<S>>;
  const savedOf = (call: OwnCall) => new SavedDelegates(directoryOf(call.config));

  async function openApi(call: OwnCall): Promise<PodApi | undefined> {
    const kubeconfig = kubeconfigOf(call.config);
    if (!kubeconfig) return undefined;
    const { PodApi } = await import('./pod-api.ts');
    return new PodApi(call, kubeconfig);
  }

  const asDelegatesOf = (call: OwnCall, choices: readonly Choice[], api?: PodApi) =>
    asDelegates(call, choices, nameOf, api && new Devices(api.podUid));

  async function chosenDelegates(call: OwnCall): Promise<Delegate[]> {
    using api = await openApi(call);
    return asDelegatesOf(call, (await choose(call, api)).choices, api);
  }

  return definePlugin<S>({
    ...rest,
    role: 'main',
    passesCapabilities: true,

    async add(call) {
      using api = await openApi(call);
      const plan = await choose(call, api);
      const delegates = asDelegatesOf(call, plan.choices, api);
      refuseRivals(delegates);
      refuseSameNames(delegates);
      const saved = savedOf(call);
      // What is saved of a living attachment stays as it is until the delegates have accepted this one.
      const earlier = saved.load(call.attachment);
      if (!earlier) {
        saved.save(call.attachment, call.netns, delegates);
        call.undo('forget the delegates', () => saved.remove(call.attachment));
      }
      const added: AddedDelegate[] = [];
      for (const one of delegates) added.push({ ...one, result: await addDelegate(call, one) });
      const settled = settleDefaultRoutes(() => call.sandbox.socket, added);
      saved.save(call.attachment, call.netns, settled);
      try {
        await api?.annotate(plan.annotationsFor(settled));
      } catch (error) {
        if (needsAnnotations) throw error;
        call.warn(`The pod's annotations do not tell its networks: ${(error as Error).message}`);
      }
      return settled[0]!.result;
    },

    async check(call) {
      const delegates = savedOf(call).load(call.attachment);
      if (!delegates)
        throw new CniError(
          ErrorCode.UnknownContainer,
          `Nothing is saved in "${directoryOf(call.config)}" of the networks of container "${call.containerId}". Delete the container and add it again`,
        );
      for (const one of delegates) await checkDelegate(call, completed(call, one));
    },

    async del(call) {
      const saved = savedOf(call);
      const delegates = saved.load(call.attachment);
      if (delegates) {
        const all = delegates.map((one) => completed(call, one));
        await runAll(call, ...detaching(call, all));
      }
      // As a delegate it has nothing to remove then, and the annotations of a pod may lead in a circle.
      else if (call.context.depth === 0)
        await detachAsConfigured(
          call,
          () => chosenDelegates(call),
          async () => asDelegatesOf(call, await required(call, undefined)),
        );
      saved.remove(call.attachment);
    },

    async status(call) {
      using api = await openApi(call);
      await api?.ping();
      for (const { network } of await required(call, api)) await statusOfNetwork(call, network);
    },

    async gc(call) {
      await collect(call, savedOf(call), async () =>
        (await required(call, undefined)).map(({ network }) => network),
      );
    },
  });
}

/** Steps that detach a pod from its networks, the last one first. */
function detaching(call: Call, delegates: readonly Delegate[]): (() => Promise<void>)[] {
  return delegates.toReversed().map((one) => () => deleteDelegate(call, one));
}

/** What Multus saved of the first delegate has no interface: it is that of the call. */
function withIfname<D extends Delegate>({ ifname }: Pick<AttachmentId, 'ifname'>, one: D): D {
  return one.ifname === '' ? { ...one, ifname } : one;
}

/** What Multus saved has no CNI_ARGS, either: they are those of the call. */
function completed(call: Call, one: SavedDelegate): SavedDelegate {
  const whole = withIfname(call, one);
  if (one.of) return whole;
  const { args } = call.context.invocation;
  return { ...whole, args: delegateArgs(args, whole.ifname === call.ifname ? undefined : {}) };
}

/**
 * Nothing says that there is anything to remove, so that what fails must not keep the container from going.
 * @param sources what the pod's delegates may be; the next one counts where one fails.
 */
async function detachAsConfigured(call: Call, ...sources: (() => Promise<Delegate[]>)[]): Promise<void> {
  for (const source of sources) {
    try {
      await runAll(call, ...detaching(call, await source()));
      return;
    } catch (error) {
      call.warn(`Nothing was saved of the container's networks: ${(error as Error).message}`);
    }
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
