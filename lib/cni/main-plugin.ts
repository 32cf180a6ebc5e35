/**
 * What main plugins have in common: each puts one interface into the sandbox. A plugin says how its interface
 * is made and what is particular to it; the verbs themselves are here.
 *
 * ADD validates before it touches anything, then creates the interface, asks the IPAM plugin, and configures
 * the addresses while firewall rules are set up. Each step that makes something registers right away how to
 * undo just that. DEL lets an IPAM plugin that may communicate through the interface finish before it deletes
 * the interface.
 */

import type { Link } from '../kernel/link.ts';
import type { Call, InterfaceGoes } from './call.ts';
import { chooseDns, type NetConf } from './config.ts';
import { mtuProblem, refuse } from './config-checks.ts';
import { ipam, ipamAdd } from './delegate.ts';
import { configureInterface, type InterfaceOptions, prepareInterface, refuseTakenName } from './interface.ts';
import { type CheckedInterface, checkInterface } from './interface-check.ts';
import {
  definePlugin,
  type Plugin,
  type PluginDefinition,
  type Repair,
  requirePrevResult,
} from './plugin.ts';
import { removeInterface } from './remove-interface.ts';
import { emptyResult, type Interface, type Result } from './result.ts';
import type { InferShape, Shape } from './schema.ts';
import { runAll, runBeside, startBackground } from './steps.ts';

/** What a main plugin has made. */
export interface Attached {
  /** Interfaces of the result, those of the host first. */
  interfaces: Interface[];
  /**
   * The sandbox's interface; undefined for a device that has none because a program in user space drives it.
   */
  link: Link | undefined;
}

/** A main plugin. `C` is its configuration, `A` what it needs to remember between its steps. */
export interface MainPlugin<C, A extends Attached = Attached> {
  /** Kind of the interface in the kernel; "" when it may be any. */
  readonly kind: string;
  /** Addresses and routes from a source other than an IPAM plugin, such as the previous plugin. */
  inherit?(call: Call<C>): Result | undefined;
  /** Makes the interface in the sandbox, with its final name, and registers how to undo that. */
  create(call: Call<C>): Promise<A> | A;
  /** How the interface is configured. */
  options?(call: Call<C>): InterfaceOptions;
  /**
   * Fills in what the IPAM plugin left out, such as gateways.
   * @throws Error when its addresses cannot be used.
   */
  complete?(call: Call<C>, result: Result): void;
  /**
   * Connects the other side once the sandbox's interface has its addresses, and brings the result up to date.
   */
  connect?(call: Call<C>, attached: A, result: Result): Promise<void> | void;
  /**
   * Removes the interface; by default it is deleted from the sandbox. An interface that is already gone is no
   * error.
   */
  remove?(call: Call<C>): Promise<unknown> | unknown;
  /**
   * Whether there is an interface in the sandbox for CHECK; there is unless a program in user space drives
   * the device.
   */
  hasLink?(call: Call<C>): boolean;
  /** Checks the interface itself, for CHECK. @throws Error that says what is wrong. */
  check?(call: Call<C>, checked: CheckedInterface): Promise<void> | void;
  /** What is missing on the host, besides masquerading. */
  repair?(call: Call<C>): Promise<Repair[]> | Repair[];
  /** Checks the host, for STATUS. @throws Error that says what is missing. */
  status?(call: Call<C>): Promise<void> | void;
  /** Removes what belongs to no valid attachment, besides addresses and masquerading. */
  gc?(call: Call<C>): Promise<void> | void;
}

type Definition<S extends Shape, A extends Attached> = Omit<
  PluginDefinition<S>,
  'role' | 'add' | 'del' | 'check' | 'repair' | 'status' | 'gc'
> &
  MainPlugin<InferShape<S>, A>;

/** Defines a plugin that puts one interface into the sandbox. */
export function defineMainPlugin<S extends Shape, A extends Attached = Attached>(
  own: Definition<S, A>,
): Plugin<InferShape<S>> {
  const { name, summary, config, since, needsIpam = false, capability, explain, ignores } = own;
  const validate = (given: InferShape<S> & NetConf) => {
    refuse(mtuProblem((given as { mtu?: number }).mtu));
    own.validate?.(given);
  };
  return definePlugin<S>({
    name,
    summary,
    role: 'main',
    config,
    ...(since && { since }),
    needsIpam,
    ...(capability && { capability }),
    ...(explain && { explain }),
    ...(ignores && { ignores }),
    validate,

    async add(call) {
      validate(call.config);
      const inherited = own.inherit?.(call);
      if (needsIpam && !call.config.ipam?.type && !inherited)
        throw new Error(
          `Plugin "${name}" needs addresses. Set "ipam", for example to {"type": "host-local", …}`,
        );
      refuseTakenName(call);
      const options = own.options?.(call) ?? {};

      const first = call.undoCount;
      const attached = await own.create(call);
      if (attached.link) prepareInterface(call, attached.link, options);
      const created = call.undoCount - first;
      const addresses = call.config.ipam?.type ? await ipamAdd(call) : (inherited ?? emptyResult());
      // In the same order as DEL.
      if ((await interfaceGoes(call)) === 'before') call.postponeUndo(first, created);
      const index = attached.interfaces.findIndex((one) => one.sandbox);
      const result: Result = {
        interfaces: attached.interfaces,
        ips: addresses.ips.map((ip) => ({ ...ip, interface: index })),
        routes: [...addresses.routes],
        dns: chooseDns(call.config.dns, addresses.dns),
      };
      own.complete?.(call, result);
      const rules = await masqueradeOf(call);
      await runBeside(
        call,
        startBackground(async () => rules?.add(result.ips)),
        async () => {
          if (attached.link) await configureInterface(call, result, options);
          await own.connect?.(call, attached, result);
        },
      );
      return result;
    },

    async del(call) {
      const rules = await masqueradeOf(call);
      const removeRules = startBackground(async () => rules?.del());
      const removeLink = async () => await (own.remove ?? removeInterface)(call);
      const goes = await interfaceGoes(call);
      if (goes === 'before')
        // As long as the interface cannot be removed, nobody else may get its addresses.
        await runAll(
          call,
          async () => {
            await removeLink();
            await ipam(call);
          },
          removeRules,
        );
      else {
        // The kernel takes a while to delete an interface.
        const startedRemoval = goes === 'beside' ? startBackground(removeLink) : removeLink;
        await runAll(call, () => ipam(call), startedRemoval, removeRules);
      }
    },

    async check(call) {
      await ipam(call);
      requirePrevResult(call);
      if (own.hasLink?.(call) ?? true) {
        const checked = checkInterface(call, own.kind, own.options?.(call));
        await own.check?.(call, checked);
      }
      await (await masqueradeOf(call))?.check();
    },

    async repair(call) {
      requirePrevResult(call);
      const repairs = (await own.repair?.(call)) ?? [];
      return [...repairs, ...((await (await masqueradeOf(call))?.repair()) ?? [])];
    },

    async status(call) {
      validate(call.config);
      await ipam(call);
      await (await masqueradeOf(call))?.status();
      await own.status?.(call);
    },

    async gc(call) {
      const rules = await masqueradeOf(call);
      await runAll(
        call,
        () => ipam(call),
        () => rules?.gc(),
        () => own.gc?.(call),
      );
    },
  });
}

/** When DEL removes the interface, as the IPAM plugin says. */
async function interfaceGoes({ config, context }: Call): Promise<InterfaceGoes> {
  const type = config.ipam?.type;
  return type ? await context.interfaceGoes(type) : 'beside';
}

/** Masquerading, for plugins that have it and configurations that ask for it. The others do not load it. */
async function masqueradeOf(call: Call<{ ipMasq?: boolean }>) {
  return call.config.ipMasq ? (await import('./masquerade.ts')).masquerade(call) : undefined;
}
