/**
 * Containers that live, but that no record names: their runtime keeps its records elsewhere, as the kubelet's
 * dockershim, cri-dockerd and KubeEdge do, or an ADD is under way. What they hold looks left over.
 */

import { attachmentKey } from '../../lib/attachment.ts';
import { msSinceBoot } from '../../lib/kernel/boot.ts';
import type { Link } from '../../lib/kernel/link.ts';
import { bridgeOf, mainOf } from '../inner.ts';
import type { NetworkList } from '../libcni/conflist.ts';
import { count } from '../terminal.ts';
import type { HostAttachment } from './attachment.ts';

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
export function findHidden(scene: Scene): string[] {
  const byBridge = Map.groupBy(scene.networks, (network) => bridgeOf(mainOf(network)));
  return [...byBridge].flatMap(([bridge, networks]) =>
    bridge === undefined
      ? networks.flatMap((network) => findOfThisBoot(network, scene) ?? [])
      : (findOnBridge(bridge, networks, scene) ?? []),
  );
}

/** On a bridge, each living container has a port. */
function findOnBridge(
  bridge: string,
  networks: readonly NetworkList[],
  { attachments, records, directory, links }: Scene,
): string | undefined {
  const own = attachments.filter(({ network }) => networks.some(({ name }) => name === network));
  const unrecorded = own.filter((one) => !records.has(attachmentKey(one)));
  const orphans = unrecorded.filter(({ orphaned }) => orphaned.length > 0);
  // With records and nothing besides, the ports are most likely an operator's.
  if (orphans.length === 0 && own.length > 0) return undefined;
  const strays = strayPorts(bridge, links(), attachments);
  if (strays.length <= unrecorded.length - orphans.length) return undefined;
  for (const one of orphans) one.orphaned.length = 0;
  const [names, ports] = [networks.map(({ name }) => name), strays].map((all) =>
    all.map((one) => `"${one}"`).join(', '),
  );
  return (
    `Bridge "${bridge}" of network ${names} has ${ports}, but no record in "${directory}" names ${strays.length === 1 ? 'it' : 'them'}. ` +
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

/** Ports of a bridge that lead into other namespaces, and that no attachment is known to have. */
export function strayPorts(
  bridge: string,
  links: readonly Link[],
  attachments: readonly HostAttachment[],
): string[] {
  const index = links.find(({ name }) => name === bridge)?.index ?? -1;
  const known = new Set(attachments.flatMap(({ hostInterfaces }) => hostInterfaces));
  return links
    .filter(
      ({ master, kind, parentNetnsId }) => master === index && kind === 'veth' && parentNetnsId !== undefined,
    )
    .flatMap(({ name }) => (known.has(name) ? [] : name));
}
