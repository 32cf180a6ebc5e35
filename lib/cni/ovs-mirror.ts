/**
 * The plugins that have Open vSwitch copy a pod's frames, or copy frames to a pod: they differ in the pod's
 * roles.
 */

import { CniError, ErrorCode } from '../errors.ts';
import type { OvsdbConnection } from '../ovsdb/database.ts';
import {
  findMirrors,
  joinMirrors,
  leaveMirrors,
  type Mirror,
  type MirroredBridge,
  type MirrorPart,
  type MirrorRole,
} from '../ovsdb/mirrors.ts';
import { findPort, isPortOf, listPodPorts, type Port } from '../ovsdb/ports.ts';
import type { Call } from './call.ts';
import {
  databaseKeys,
  hostInterface,
  openDatabase,
  requireBridge,
  whereReachable,
  withSharedKeys,
} from './open-vswitch.ts';
import { definePlugin, type Plugin, requirePrevResult } from './plugin.ts';
import { array, boolean, type InferShape, object, required, string } from './schema.ts';

/** How many times a change is attempted, as those of other pods may come in between. */
const tries = 20;

const config = {
  ...databaseKeys,
  bridge: string({ description: 'Name of the bridge that the plugin before uses.' }),
  mirrors: array(
    object({
      name: required(string({ description: 'Name of the mirror, made if it does not exist.' })),
      ingress: boolean({ description: 'Producers: copy what comes from the container.' }),
      egress: boolean({ description: 'Producers: copy what goes to the container.' }),
    }),
    { description: 'Mirrors that the container has a part in.' },
  ),
};

type Config = InferShape<typeof config>;
type MirrorConfig = NonNullable<Config['mirrors']>[number];
type MirrorCall = Call<Config>;

/** What distinguishes one mirror plugin from another. */
interface MirrorDefinition {
  readonly name: string;
  readonly summary: string;
  /** What ADD does, for a mirror. */
  readonly explain: (mirror: string) => string;
  /** The container's roles in a mirror; empty when the configuration asks for nothing. */
  readonly rolesOf: (mirror: MirrorConfig) => MirrorRole[];
}

/** Defines a plugin that gives a port of Open vSwitch its roles in mirrors. */
export function defineMirrorPlugin({ name, summary, explain, rolesOf }: MirrorDefinition): Plugin<Config> {
  const partsOf = ({ mirrors = [] }: Config): MirrorPart[] =>
    mirrors.map((mirror) => ({ name: mirror.name, roles: rolesOf(mirror) }));
  const validate = (config: Config) => {
    for (const { name, roles } of partsOf(config))
      if (roles.length === 0)
        throw new Error(
          `Mirror "${name}" copies nothing of the container. Set "ingress" or "egress" to true`,
        );
  };
  const leave = async (
    call: MirrorCall,
    portOf: (db: OvsdbConnection) => Promise<Port | undefined>,
  ): Promise<void> => {
    const settings = settingsOf(call);
    const { bridge } = settings;
    // The flat file that named it may have gone while pods run.
    if (!bridge)
      return call.warn(
        `${noBridge}. Mirrors without ports are removed by the next DEL or GC that knows the bridge`,
      );
    await whereReachable(call, settings, async (db) => {
      const port = await portOf(db);
      await change(db, bridge, (found) => leaveMirrors(found, port?.uuid, partsOf(settings)));
    });
  };
  const leaveOwn = (call: MirrorCall) => leave(call, (db) => ownPort(db, call));
  return definePlugin({
    name,
    summary,
    role: 'chained',
    config,
    validate,
    explain: ({ mirrors = [] }) => mirrors.map((mirror) => explain(mirror.name)),

    async add(call) {
      const result = requirePrevResult(call);
      const settings = requiredSettingsOf(call);
      validate(settings);
      const parts = partsOf(settings);
      const { bridge } = settings;
      using db = await openDatabase(settings);
      await requireBridge(db, bridge);
      const port = await requirePort(db, call);
      call.undo('leave the mirrors', () => leaveOwn(call));
      await change(db, bridge, (found) => {
        refuseSecondOutput(found.mirrors, parts, port);
        return joinMirrors(found, port, parts);
      });
      return result;
    },

    del: leaveOwn,

    async check(call) {
      requirePrevResult(call);
      const settings = requiredSettingsOf(call);
      const { bridge } = settings;
      using db = await openDatabase(settings);
      const port = await requirePort(db, call);
      const found = await findMirrors(db, bridge);
      for (const { name, roles } of partsOf(settings)) {
        const hasPart = (mirror: Mirror) =>
          mirror.name === name && roles.every((role) => mirror[role].includes(port));
        if (!found?.mirrors.some(hasPart))
          throw new Error(
            `Port "${portName(call)}" lacks its role in mirror "${name}" of bridge "${bridge}". Delete the container and add it again`,
          );
      }
    },

    async status(call) {
      const settings = requiredSettingsOf(call);
      using db = await openDatabase(settings);
      await requireBridge(db, settings.bridge);
    },

    /** Ports that are gone have left their mirrors: the database itself sees to that. */
    gc: (call) => leave(call, async () => undefined),
  });
}

const noBridge = 'No bridge is named. Set "bridge" to the one that the plugin before uses';

/** The configuration, and the keys that the flat file adds to it. @throws as {@link withSharedKeys}. */
function settingsOf(call: MirrorCall): Config {
  return withSharedKeys(call.config, object(config));
}

/** @throws Error also when neither configuration nor flat file names bridge and mirrors. */
function requiredSettingsOf(call: MirrorCall): Config & { bridge: string; mirrors: MirrorConfig[] } {
  const settings = settingsOf(call);
  const { bridge, mirrors } = settings;
  if (!bridge) throw new Error(noBridge);
  if (!mirrors)
    throw new Error('No mirror is named. Set "mirrors" to those that the container has a part in');
  return { ...settings, bridge, mirrors };
}

/**
 * Composes a change from the mirrors of a bridge and carries it out; starts over when they change meanwhile.
 */
async function change(
  db: OvsdbConnection,
  bridge: string,
  compose: (bridge: MirroredBridge) => ReturnType<typeof joinMirrors>,
): Promise<void> {
  for (let left = tries; ; left--) {
    const found = await findMirrors(db, bridge);
    const operations = found ? compose(found) : [];
    if (operations.length === 0) return;
    try {
      await db.transact(`change mirrors of bridge "${bridge}"`, operations);
      return;
    } catch (error) {
      const isOutdated = error instanceof CniError && error.code === ErrorCode.TryAgainLater;
      if (!isOutdated || left === 1) throw error;
    }
  }
}

/** Name of the host's interface, which is that of its port. */
function portName({ prevResult }: MirrorCall): string | undefined {
  return hostInterface(prevResult)?.name;
}

/** The container's port: by the name in the result, or without a result by what the database says. */
async function ownPort(db: OvsdbConnection, call: MirrorCall): Promise<Port | undefined> {
  const name = portName(call);
  if (name !== undefined) return await findPort(db, name);
  return (await listPodPorts(db)).find((port) => isPortOf(port, call.attachment, call.netns));
}

async function requirePort(db: OvsdbConnection, call: MirrorCall): Promise<string> {
  const name = portName(call);
  const port = name && (await findPort(db, name));
  if (port) return port.uuid;
  throw new Error(
    `Interface "${name ?? '?'}" is not a port of Open vSwitch. Put this plugin behind "ovs" in the "plugins" of the conflist`,
  );
}

/** A mirror has only one output, which a live pod must not lose to another. */
function refuseSecondOutput(mirrors: readonly Mirror[], parts: readonly MirrorPart[], port: string): void {
  for (const { name, roles } of parts)
    if (
      roles.includes('output') &&
      mirrors.find((one) => one.name === name)?.output.some((one) => one !== port)
    )
      throw new Error(
        `Mirror "${name}" sends its copies to another port already. Delete the container behind that, or use a mirror of another name`,
      );
}
