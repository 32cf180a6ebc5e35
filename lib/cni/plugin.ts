/** What makes up a plugin: its description, its configuration, and its verbs. */

import type { AttachmentId } from '../attachment.ts';
import type { Call, InterfaceGoes } from './call.ts';
import { type NetConf, netConfShape } from './config.ts';
import type { Environment } from './invocation.ts';
import type { Result } from './result.ts';
import { type InferShape, type ObjectSchema, object, type Shape } from './schema.ts';
import { specVersions } from './version.ts';

/**
 * Where a plugin stands in a network: it makes an interface, works on one that another made, or manages
 * addresses.
 */
export type PluginRole = 'main' | 'chained' | 'ipam';

/** A plugin: what it is called, what it is configured with, and its verbs. */
export interface Plugin<C = object> {
  /** The name of its executable, which configurations give as "type". */
  readonly name: string;
  /** One sentence on what it does. */
  readonly summary: string;
  readonly role: PluginRole;
  /** Versions of the specification that it supports. */
  readonly versions: readonly string[];
  /** Its own keys, besides those that every configuration has. */
  readonly config: ObjectSchema<Shape>;
  /** Main plugins: whether the configuration must name an IPAM plugin. */
  readonly needsIpam: boolean;
  /** The capability without which it does nothing, such as "portMappings". */
  readonly capability: string | undefined;
  /** Whether it passes the arguments of every capability on to the plugins that it runs. */
  readonly passesCapabilities: boolean;
  /** IPAM plugins: when DEL removes the interface. */
  readonly interfaceGoes: InterfaceGoes;
  /**
   * IPAM plugins: the addresses that a configuration hands out, for the `cni` command.
   * @throws Error when it is wrong.
   */
  pools?(config: C & NetConf): AddressPool[];
  /**
   * IPAM plugins that keep track of addresses outside the node: what a configuration hands out, for the `cni`
   * command.
   * @throws Error when it is wrong.
   */
  sharedRanges?(config: C & NetConf): SharedRange[];
  /**
   * The same plugins: the addresses of the network that another node, now gone, has left taken, for the `cni`
   * command.
   * @param environment tells which node this one is.
   * @throws NodePresentError when that node still exists, so that nothing is left over; Error when nobody
   *   answers.
   */
  leftBehind?(config: C & NetConf, node: string, environment: Environment): Promise<RemoteHolding[]>;
  /**
   * What ADD does with a configuration, one sentence per step, for `cni explain`. Empty sentences are left
   * out.
   */
  explain?(config: C & NetConf): string[];
  /**
   * Refuses a configuration that no ADD can succeed with, without looking at the host.
   * @throws Error that says what is wrong and how to correct it.
   */
  validate?(config: C & NetConf): void;
  /**
   * What has no effect in a configuration that {@link validate} accepts, although somebody may expect one:
   * one sentence each.
   */
  ignores?(config: C & NetConf): string[];
  /** Configurations of other plugins within this one, to be validated as well. */
  inner?(config: C & NetConf): InnerConfig[];
  /** @returns the result to print. When it throws, the steps registered with {@link Call.undo} are run. */
  add(call: Call<C>): Promise<Result> | Result;
  del(call: Call<C>): Promise<void> | void;
  check?(call: Call<C>): Promise<void> | void;
  status?(call: Call<C>): Promise<void> | void;
  /**
   * What an attachment lacks on the host, where others may have removed it, as with "iptables -F". The
   * configuration and "prevResult" are those of CHECK. Nothing is changed, neither on the host nor in the
   * sandbox. A plugin without this method has nothing on the host.
   * @throws Error when something is missing that only another ADD can restore.
   */
  repair?(call: Call<C>): Promise<Repair[]> | Repair[];
  /** The plugin that does the work in this one's place, for `cni repair`, and its standard input. */
  delegated?(call: Call<C>): { readonly type: string; readonly stdin: string };
  /** Called only when the runtime names the valid attachments, even if the list is empty. */
  gc?(call: Call<C>): Promise<void> | void;
}

/** A configuration within a plugin's own. */
export interface InnerConfig {
  /** Where it stands, as in "delegates[0]". */
  readonly path: string;
  /** The configuration, with everything that the plugin adds to it except addresses. */
  readonly value: unknown;
  /** Whether it is for a network, rather than for a plugin that gets its addresses from this one. */
  readonly isNetwork: boolean;
}

/** Something of an attachment that is missing on the host. */
export interface Repair {
  /** A noun phrase, as in 'address 10.1.0.1/16 of interface "cni0"'. */
  readonly what: string;
  /**
   * Restores it as ADD would, and registers with {@link Call.undo} how to undo that. Repairs that share one
   * function are all made by a single call of it.
   */
  readonly restore: () => Promise<void> | void;
}

/** Consecutive addresses that an IPAM plugin hands out. */
export interface AddressPool {
  /** With prefix length, as in "10.1.0.0/16". */
  readonly subnet: string;
  /** First and last address, as in "10.1.0.1-10.1.0.254". */
  readonly range: string;
  /**
   * Where the taken addresses are recorded, if networks can share that; else each network has its own record.
   */
  readonly shared?: SharedRegisters;
}

/** Where networks jointly record which addresses are taken. */
export interface SharedRegisters {
  /** Networks in different address spaces may use the same addresses. "" is an address space as well. */
  readonly addressSpace: string;
  /** Where the registers are: lists with an entry in common mean one place. Empty when that is not known. */
  readonly places: readonly string[];
  /**
   * The registers that an address is entered in: pools with one in common never hand out the same address.
   */
  readonly names: readonly string[];
}

/** Addresses that an attachment on another node has. */
export interface RemoteHolding {
  readonly owner: AttachmentId;
  readonly ips: readonly string[];
  /**
   * Releases them; does no harm when that was done before.
   * @returns false when the attachment has changed meanwhile, so that nothing was released.
   * @throws NodePresentError when the node exists after all; Error when nobody answers.
   */
  release(): Promise<boolean>;
}

/** Nothing is collected from a node because it still exists. */
export class NodePresentError extends Error {}

/** Nothing is collected from a node because it is not known what each node has. */
export class NodesUnknownError extends Error {}

/** Consecutive addresses that all nodes of a cluster share. */
export interface SharedRange extends AddressPool {
  readonly gateway: string | undefined;
  /** How many addresses it can hand out; in IPv6, this may be more than a number can represent exactly. */
  readonly capacity: number;
  /** Asks how many of them cannot be handed out now. @throws Error when nobody answers in a few seconds. */
  countUsed(): Promise<number>;
}

/**
 * What {@link definePlugin} takes: a plugin whose configuration is a shape, and whose usual settings can be
 * left out.
 */
export type PluginDefinition<S extends Shape> = Omit<
  Plugin<InferShape<S>>,
  'config' | 'versions' | 'needsIpam' | 'capability' | 'passesCapabilities' | 'interfaceGoes'
> & {
  readonly config: S;
  /** Oldest version of the specification that it supports; it supports all of them when left out. */
  readonly since?: (typeof specVersions)[number];
  readonly needsIpam?: boolean;
  readonly capability?: string;
  readonly passesCapabilities?: boolean;
  readonly interfaceGoes?: InterfaceGoes;
};

/** Defines a plugin; the types of its verbs' configuration follow from the shape. */
export function definePlugin<S extends Shape>(definition: PluginDefinition<S>): Plugin<InferShape<S>> {
  const {
    config,
    since = specVersions[0],
    needsIpam = false,
    capability,
    passesCapabilities = false,
    interfaceGoes = 'after',
    ...rest
  } = definition;
  return {
    ...rest,
    needsIpam,
    capability,
    passesCapabilities,
    interfaceGoes,
    versions: specVersions.slice(specVersions.indexOf(since)),
    config: object(config),
  };
}

/** The schema of a plugin's whole configuration: the keys that every plugin has, and its own. */
export function configSchema(plugin: Plugin<never>): ObjectSchema<Shape> {
  return object({ ...netConfShape, ...plugin.config.shape });
}

/**
 * The result that the plugins before this one left.
 * @throws Error when there is none.
 */
export function requirePrevResult(call: Call): Result {
  if (call.prevResult) return call.prevResult;
  throw new Error(
    call.command === 'CHECK'
      ? 'CHECK needs "prevResult" in the configuration. Pass the result that ADD gave'
      : 'The configuration has no "prevResult", so there is no interface to work on. ' +
          'Put this plugin after the one that makes the interface, in the "plugins" of a conflist',
  );
}
