/** The verbs of a plugin that attaches a pod to several networks by running their plugins. */

import type { Call } from '../cni/call.ts';
import { ElsewhereError, LeftoverError } from '../cni/delegate.ts';
import { definePlugin, type Plugin, type PluginDefinition } from '../cni/plugin.ts';
import type { InferShape, Shape } from '../cni/schema.ts';
import { runTogether } from '../cni/steps.ts';
import { CniError, ErrorCode } from '../errors.ts';
import { isLockHeld } from '../kernel/lock.ts';
import { asDelegates, type Choice, type NameInterfaces } from './choice.ts';
import { collect } from './collection.ts';
import { refuseRivals, settleDefaultRoutes } from './default-route.ts';
import {
  type AddedDelegate,
  addDelegate,
  checkDelegate,
  type Delegate,
  deleteDelegate,
  statusOfNetwork,
} from './delegates.ts';
import { Devices } from './devices.ts';
import { lockNetworks } from './lock.ts';
import { firstArgs, furtherArgs } from './pod.ts';
import type { PodApi } from './pod-api.ts';
import { type SavedDelegate, SavedDelegates, withIfname } from './saved.ts';

/** The networks of a pod. */
export interface Plan {
  readonly choices: readonly Choice[];
  /** Networks of which one alone could be chosen instead at another time; none when left out. */
  readonly alternatives?: readonly Choice[];
  /** Annotations that tell which networks the pod has been given, for the API. */
  annotationsFor(added: readonly AddedDelegate[]): Readonly<Record<string, string>>;
}

/** A plugin that attaches a pod to several networks. */
export interface SeveralNetworks<S extends Shape>
  extends Pick<PluginDefinition<S>, 'name' | 'summary' | 'config' | 'explain' | 'validate' | 'inner'> {
  /** Directory in which the delegates of each container are saved. */
  directoryOf(config: InferShape<S>): string;
  /** The file that says where the Kubernetes API is; undefined or "" for a node without one. */
  kubeconfigOf(config: InferShape<S>): string | undefined;
  readonly nameInterfaces: NameInterfaces;
  /** @throws Error while no pod can be attached; attached pods can be detached all the same. */
  requireReady?(config: InferShape<S>): void;
  /** Chooses the networks of a pod. @param api undefined on a node without one. */
  choose(call: Call<InferShape<S>>, api: PodApi | undefined): Promise<Plan> | Plan;
  /**
   * Networks without which no pod can be attached.
   * @param api undefined on a node without one; without it, networks that only it may know are left out.
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
  const {
    directoryOf,
    kubeconfigOf,
    nameInterfaces,
    requireReady,
    choose,
    required,
    needsAnnotations,
    ...rest
  } = definition;
  type OwnCall = Call<InferShape<S>>;
  const savedOf = (call: OwnCall) => new SavedDelegates(directoryOf(call.config));

  async function openApi(call: OwnCall): Promise<PodApi | undefined> {
    const kubeconfig = kubeconfigOf(call.config);
    if (!kubeconfig) return undefined;
    const { PodApi } = await import('./pod-api.ts');
    return new PodApi(call, kubeconfig);
  }

  const asDelegatesOf = (call: OwnCall, choices: readonly Choice[], api?: PodApi) =>
    asDelegates(call, choices, nameInterfaces, api && new Devices(api.podUid));

  /** What ADD may have attached the pod to. */
  async function chosenDelegates(call: OwnCall): Promise<Delegate[]> {
    const api = await openApi(call);
    const { choices, alternatives = [] } = await choose(call, api);
    const sets = [choices, ...alternatives.map((one) => [one])];
    return sets.flatMap((set) => asDelegatesOf(call, set, api));
  }

  return definePlugin<S>({
    ...rest,
    role: 'main',
    passesCapabilities: true,

    async add(call) {
      requireReady?.(call.config);
      await lockPod(call);
      const api = await openApi(call);
      const plan = await choose(call, api);
      const delegates = asDelegatesOf(call, plan.choices, api);
      refuseRivals(delegates);
      refuseOtherName(call, delegates);
      refuseSameNames(delegates);
      const saved = savedOf(call);
      // What is saved for a live attachment stays as it is until the delegates have accepted this one.
      const isNew = saved.load(call.attachment) === undefined;
      const save = (these: readonly Delegate[]) => saved.save(call.attachment, call.netns, these);
      if (isNew) save(delegates);
      const before = call.undoCount;
      const added: AddedDelegate[] = [];
      let begun = before;
      let left: Delegate[] = [];
      try {
        for (const one of delegates) {
          begun = call.undoCount;
          added.push({ ...one, result: await addDelegate(call, one) });
        }
      } catch (error) {
        left = leftBy(error, delegates[added.length]!);
        throw error;
      } finally {
        const accepted = call.undoCount - begun;
        if (isNew) call.undoLast(before, 'forget the delegates', () => save(left));
        // DEL must not try to undo what ADD has not tried to do: it may be impossible.
        if (isNew && added.length < delegates.length)
          call.undo('forget the delegates that it did not reach', () =>
            save([
              ...delegates.slice(0, added.length),
              ...unfinished(delegates[added.length]!, left, accepted),
            ]),
          );
      }
      const settled = settleDefaultRoutes(() => call.sandbox.socket, added);
      save(settled);
      try {
        await api?.annotate(plan.annotationsFor(settled));
      } catch (error) {
        if (needsAnnotations) throw error;
        call.warn(`The pod's annotations do not tell its networks: ${(error as Error).message}`);
      }
      return settled[0]!.result;
    },

    async check(call) {
      const delegates = savedOf(call).load(call.attachment, (message) => call.warn(message));
      if (!delegates)
        throw new CniError(
          ErrorCode.UnknownContainer,
          `Nothing is saved in "${directoryOf(call.config)}" of the networks of container "${call.containerId}". Delete the container and add it again`,
        );
      for (const one of delegates) if (!one.isRefused) await checkDelegate(call, completed(call, one));
    },

    async del(call) {
      await lockPod(call).catch((error: Error) => {
        if (isLockHeld(error)) throw error;
        // A full or read-only /run must not keep a pod from being removed.
        call.warn(`Going on without a lock on the pod's networks: ${error.message}`);
      });
      const saved = savedOf(call);
      const delegates = saved.load(call.attachment, (message) => call.warn(message));
      if (delegates)
        await detach(
          call,
          delegates.map((one) => completed(call, one)),
        );
      // As a delegate it has nothing to remove then, and the annotations of a pod may lead in a circle.
      else if (call.context.depth === 0)
        await detachAsConfigured(
          call,
          saved,
          () => chosenDelegates(call),
          async () => asDelegatesOf(call, await required(call, undefined)),
        );
      saved.remove(call.attachment);
    },

    async status(call) {
      const api = await openApi(call);
      await api?.ping();
      requireReady?.(call.config);
      for (const { network } of await required(call, api)) await statusOfNetwork(call, network);
    },

    async gc(call) {
      await collect(call, savedOf(call), async () =>
        (await required(call, undefined)).map(({ network }) => network),
      );
    },
  });
}

/**
 * Locks until the call has ended, including any rollback. A delegate is part of a change that holds the lock
 * already.
 */
async function lockPod(call: Call): Promise<void> {
  if (call.context.depth === 0) call.keep(await lockNetworks(call.containerId));
}

/**
 * Detaches a pod from its networks, starting with the last, but without waiting for each: deleting all their
 * interfaces takes the kernel about as long as deleting one.
 */
async function detach(call: Call, delegates: readonly Delegate[]): Promise<void> {
  await runTogether(call, ...delegates.toReversed().map((one) => () => deleteDelegate(call, one)));
}

/** What is left for DEL to undo of a delegate whose ADD has failed. */
function leftBy(error: unknown, one: Delegate): Delegate[] {
  if (error instanceof ElsewhereError) return [{ ...one, isRefused: true }];
  return error instanceof LeftoverError ? [one] : [];
}

/**
 * What there is to undo of a delegate whose ADD has failed, until that is done.
 * @param accepted how many of its plugins have done something.
 */
function unfinished(one: Delegate, left: readonly Delegate[], accepted: number): Delegate[] {
  return accepted === 0 ? [...left] : [{ ...(left[0] ?? one), accepted }];
}

/** What Multus saved may have no CNI_ARGS, and its first delegate no interface: the call's are used then. */
function completed(call: Call, one: SavedDelegate): SavedDelegate {
  const whole = withIfname(one, call.ifname);
  if (one.of || one.args !== '') return whole;
  const { args } = call.context.invocation;
  return { ...whole, args: whole.ifname === call.ifname ? firstArgs(args) : furtherArgs(args) };
}

/**
 * Detaches a pod of which nothing is saved. As there may be nothing to remove, a failure must not keep the
 * container from being removed.
 * @param sources what the pod's delegates may be; when one fails, the next is used.
 */
async function detachAsConfigured(
  call: Call,
  saved: SavedDelegates,
  ...sources: (() => Promise<Delegate[]>)[]
): Promise<void> {
  for (const source of sources) {
    try {
      const delegates = await source();
      await detach(call, saved.recall(call.attachment, delegates));
      tryForget(call, saved, delegates);
      return;
    } catch (error) {
      call.warn(`Nothing was saved of the container's networks: ${(error as Error).message}`);
    }
  }
}

/** Forgets the results of delegates that are detached. Where that cannot be done, GC does it later. */
function tryForget(call: Call, saved: SavedDelegates, delegates: readonly Delegate[]): void {
  try {
    saved.forget(call.attachment, delegates);
  } catch (error) {
    call.warn(`GC forgets the results of the container's networks: ${(error as Error).message}`);
  }
}

/** @throws Error when no network gets the interface of the call. */
function refuseOtherName(call: Call, delegates: readonly Delegate[]): void {
  if (delegates[0]!.ifname === call.ifname) return;
  const names = delegates.map(({ ifname }) => `"${ifname}"`).join(', ');
  throw new Error(
    `The runtime asks for the interface "${call.ifname}", but the networks of the pod are to have ${names}. Name no interface for one of them`,
  );
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
