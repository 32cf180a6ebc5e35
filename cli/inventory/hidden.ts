/**
 * Containers that live, but that no record names: their runtime keeps its records elsewhere, as the kubelet's
 * dockershim, cri-dockerd and KubeEdge do, or an ADD is under way. What they hold looks left over.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { attachmentKey } from '../../lib/attachment.ts';
import { msSinceBoot } from '../../lib/kernel/boot.ts';
import { type Link, listLinks } from '../../lib/kernel/link.ts';
import { inhabitedNetnsIds } from '../../lib/kernel/netns-id.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import { bridgeOf, mainOf } from '../inner.ts';
import type { NetworkList } from '../libcni/conflist.ts';
import { count, quoted } from '../terminal.ts';
import type { HostAttachment } from './attachment.ts';

/** The kernel removes the interfaces of a namespace some time after it: how often to look again. */
const settlingTries = 10;
const settlingMs = 100;

/** What tells of containers that no record names. */
interface Scene {
  readonly networks: readonly NetworkList[];
  readonly attachments: readonly HostAttachment[];
  /** Those of them that are recorded, by {@link attachmentKey}. */
  readonly records: ReadonlyMap<string, unknown>;
  /** Those that a runtime has recorded, with `loopback` too, and whose containers live. */
  readonly ofRuntime: readonly HostAttachment[];
  /** Of the records, for messages. */
  readonly directory: string;
  links(): readonly Link[];
}

/** Why some networks may have such containers. */
export interface Hidden {
  /** Names of the networks. */
  readonly networks: readonly string[];
  /** Interfaces of the host that seem to lead to these containers. */
  readonly interfaces: readonly string[];
  readonly message: string;
}

/**
 * Takes back that attachments are orphaned which may belong to such containers.
 * @returns one for each bridge, or network without one, that may have any.
 */
export async function findHidden(scene: Scene): Promise<Hidden[]> {
  const found: (Hidden | undefined)[] = [];
  for (const [place, networks] of Map.groupBy(scene.networks, placeOf))
    if (place === undefined) found.push(...networks.map((network) => findOfThisBoot(network, scene)));
    else found.push(await findByVeths(place, networks, scene));
  return found.filter((one) => one !== undefined);
}

/** Where the veth pairs of a network's containers end: on a bridge, or on the host itself, which is "". */
function placeOf(network: NetworkList): string | undefined {
  const main = mainOf(network);
  return main.type === 'ptp' ? '' : bridgeOf(main);
}

/** Each living container is at the other end of a veth pair. */
async function findByVeths(
  bridge: string,
  networks: readonly NetworkList[],
  { attachments, records, ofRuntime, directory, links }: Scene,
): Promise<Hidden | undefined> {
  const names = networks.map(({ name }) => name);
  const own = attachments.filter(({ network }) => names.includes(network));
  const unrecorded = own.filter((one) => !records.has(attachmentKey(one)));
  const orphans = unrecorded.filter(({ orphaned }) => orphaned.length > 0);
  const isRecorded = ofRuntime.some(({ network }) => names.includes(network));
  // Nothing else tells whose they are.
  if (orphans.length === 0 && (unrecorded.length > 0 || isRecorded || bridge === '')) return undefined;
  const master = bridge === '' ? undefined : (links().find(({ name }) => name === bridge)?.index ?? -1);
  let strays = strayVeths(master, links(), attachments);
  // The runtime keeps its records here: without a process, an ADD was interrupted before its container began.
  if (isRecorded) strays = inhabited(strays);
  const veths = new Set(links().flatMap(({ kind, name }) => (kind === 'veth' ? [name] : [])));
  const unplaced = own.filter(
    ({ orphaned, hostInterfaces }) =>
      orphaned.length === 0 && !hostInterfaces.some((name) => veths.has(name)),
  );
  const isExplained = () => strays.length <= unplaced.length;
  for (let tries = 0; tries < settlingTries && !isExplained(); tries++) {
    await sleep(settlingMs);
    using socket = openRouteSocket();
    const present = new Set(listLinks(socket).map(({ name }) => name));
    strays = strays.filter(({ name }) => present.has(name));
  }
  if (isExplained()) return undefined;
  for (const one of orphans) one.orphaned.length = 0;
  const interfaces = strays.map(({ name }) => name);
  const place = bridge === '' ? 'The host' : `Bridge "${bridge}"`;
  return {
    networks: names,
    interfaces,
    message:
      `${place} has ${quoted(interfaces)} of network ${quoted(names)}, as it seems, but no record in "${directory}" names ${strays.length === 1 ? 'it' : 'them'}. ` +
      `${elsewhere}. If no container needs what is there, remove it with "ip link del"`,
  };
}

/** The veth interfaces that lead into namespaces with processes, as those of living containers are. */
function inhabited(veths: readonly Link[]): Link[] {
  if (veths.length === 0) return [];
  using socket = openRouteSocket();
  const ids = inhabitedNetnsIds(socket);
  return veths.filter(({ parentNetnsId }) => ids.has(parentNetnsId!));
}

/** Elsewhere, nothing on the host tells whether a container lives, unless the host was booted since. */
function findOfThisBoot(
  { name }: NetworkList,
  { attachments, records, ofRuntime, directory }: Scene,
): Hidden | undefined {
  if (ofRuntime.length > 0) return undefined;
  const boot = Date.now() - msSinceBoot();
  const orphans = attachments.filter(
    (one) =>
      one.network === name &&
      one.orphaned.length > 0 &&
      !records.has(attachmentKey(one)) &&
      (one.since === undefined || +one.since >= boot),
  );
  if (orphans.length === 0) return undefined;
  for (const one of orphans) one.orphaned.length = 0;
  return {
    networks: [name],
    interfaces: [],
    message:
      `No runtime has recorded a living container in "${directory}", but ${count(orphans.length, 'attachment')} to network "${name}" ${orphans.length === 1 ? 'is' : 'are'} of this boot, such as ` +
      `that of container "${orphans[0]!.containerId}". ${elsewhere}. If the containers are gone, run "cni gc --all ${name}"`,
  };
}

const elsewhere =
  'If a runtime keeps its records elsewhere, set CNI_CACHE_DIR to the directory above its "results", such as "/var/lib/cni/cache"';

/**
 * Interfaces that lead into other namespaces, and that no attachment is known to have.
 * @param master index of the bridge that they are ports of; undefined for those that are ports of nothing.
 */
export function strayVeths(
  master: number | undefined,
  links: readonly Link[],
  attachments: readonly HostAttachment[],
): Link[] {
  const known = new Set(attachments.flatMap(({ hostInterfaces }) => hostInterfaces));
  return links.filter(
    (one) =>
      one.master === master && one.kind === 'veth' && one.parentNetnsId !== undefined && !known.has(one.name),
  );
}
