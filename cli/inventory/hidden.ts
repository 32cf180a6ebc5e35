/**
 * Containers that live, but that no record names: their runtime keeps its records elsewhere, as the kubelet's
 * dockershim, cri-dockerd and KubeEdge do, or an ADD is under way. What they hold looks left over.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { attachmentKey } from '../../lib/attachment.ts';
import { msSinceBoot } from '../../lib/kernel/boot.ts';
import { type Link, listLinks } from '../../lib/kernel/link.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import { bridgeOf, mainOf } from '../inner.ts';
import type { NetworkList } from '../libcni/conflist.ts';
import { count } from '../terminal.ts';
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
  /** Whether any record exists, even one that cannot be read. */
  readonly hasRecords: boolean;
  /** Of the records, for messages. */
  readonly directory: string;
  links(): readonly Link[];
}

/**
 * Takes back that attachments are orphaned which may belong to such containers.
 * @returns a message for each bridge, or network without one, that may have any.
 */
export async function findHidden(scene: Scene): Promise<string[]> {
  const messages: (string | undefined)[] = [];
  for (const [place, networks] of Map.groupBy(scene.networks, placeOf))
    if (place === undefined) messages.push(...networks.map((network) => findOfThisBoot(network, scene)));
    else messages.push(await findByVeths(place, networks, scene));
  return messages.filter((message) => message !== undefined);
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
  { attachments, records, directory, links }: Scene,
): Promise<string | undefined> {
  const own = attachments.filter(({ network }) => networks.some(({ name }) => name === network));
  // The runtime keeps its records here: what has none was left by an ADD that was interrupted.
  if (own.some((one) => records.has(attachmentKey(one)))) return undefined;
  const orphans = own.filter(({ orphaned }) => orphaned.length > 0);
  // Nothing else tells whose they are.
  if (orphans.length === 0 && (own.length > 0 || bridge === '')) return undefined;
  const master = bridge === '' ? undefined : (links().find(({ name }) => name === bridge)?.index ?? -1);
  let strays = strayVeths(master, links(), attachments);
  const isExplained = () => strays.length <= own.length - orphans.length;
  for (let tries = 0; tries < settlingTries && !isExplained(); tries++) {
    await sleep(settlingMs);
    using socket = openRouteSocket();
    const present = new Set(listLinks(socket).map(({ name }) => name));
    strays = strays.filter((name) => present.has(name));
  }
  if (isExplained()) return undefined;
  for (const one of orphans) one.orphaned.length = 0;
  const [names, ports] = [networks.map(({ name }) => name), strays].map((all) =>
    all.map((one) => `"${one}"`).join(', '),
  );
  return (
    `${bridge === '' ? 'The host' : `Bridge "${bridge}"`} has ${ports} of network ${names}, as it seems, but no record in "${directory}" names ${strays.length === 1 ? 'it' : 'them'}. ` +
    `${elsewhere}. If no container needs what is there, remove it with "ip link del"`
  );
}

/** Elsewhere, nothing on the host tells whether a container lives, unless the host was booted since. */
function findOfThisBoot(
  { name }: NetworkList,
  { attachments, hasRecords, directory }: Scene,
): string | undefined {
  if (hasRecords) return undefined;
  const boot = Date.now() - msSinceBoot();
  const orphans = attachments.filter(
    ({ network, orphaned, since }) =>
      network === name && orphaned.length > 0 && (since === undefined || +since >= boot),
  );
  if (orphans.length === 0) return undefined;
  for (const one of orphans) one.orphaned.length = 0;
  return (
    `"${directory}" has no records, but ${count(orphans.length, 'attachment')} to network "${name}" ${orphans.length === 1 ? 'is' : 'are'} of this boot, such as ` +
    `that of container "${orphans[0]!.containerId}". ${elsewhere}. If the containers are gone, run "cni gc --all ${name}"`
  );
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
): string[] {
  const known = new Set(attachments.flatMap(({ hostInterfaces }) => hostInterfaces));
  return links
    .filter((one) => one.master === master && one.kind === 'veth' && one.parentNetnsId !== undefined)
    .flatMap(({ name }) => (known.has(name) ? [] : name));
}
