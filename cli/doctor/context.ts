/** What the checks of `cni doctor` look at, found out once for all of them. */

import { attachmentKey } from '../../lib/attachment.ts';
import { parseResult, type Result } from '../../lib/cni/result.ts';
import type { Family } from '../../lib/ip.ts';
import type { Link } from '../../lib/kernel/link.ts';
import { Programs } from '../../lib/kernel/programs.ts';
import { listRoutes, RouteTable } from '../../lib/kernel/route.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import { lookOnce, type Once } from '../../lib/kernel/sharing.ts';
import type { Suite } from '../../main.ts';
import { displayName, type HostAttachment, type Inventory, takeInventory } from '../inventory.ts';
import type { CachedAttachment } from '../libcni/cache.ts';
import type { Environment } from '../libcni/chain.ts';
import { configFiles, type NetworkList, networkFromCache } from '../libcni/conflist.ts';
import { cacheDir, configDir, environment } from '../settings.ts';
import { type CheckedFile, checkFile } from '../validate/file.ts';
import { checkNetworks } from '../validate/networks.ts';
import { type SavedRules, savedRules } from './iptables.ts';

/** An attachment whose sandbox exists. */
export interface RunningAttachment {
  readonly attachment: HostAttachment;
  /** For messages. */
  readonly name: string;
  readonly record: CachedAttachment | undefined;
  /** As it was when ADD was done; undefined when that was not recorded. */
  readonly network: NetworkList | undefined;
  readonly result: Result | undefined;
}

/** The host, as the checks see it. */
export interface Context {
  readonly suite: Suite;
  readonly environment: Environment;
  readonly programs: Programs;
  /** What is seen of the host by the inventory and by CHECK. */
  readonly once: Once;
  readonly inventory: Inventory;
  readonly running: readonly RunningAttachment[];
  /** Configuration files and what `cni validate` says of them, in the order of runtimes. */
  readonly files: readonly CheckedFile[];
  /** The rules of both variants of iptables. */
  readonly rules: readonly SavedRules[];
  /** Interfaces that default routes lead to. */
  readonly uplinks: ReadonlyMap<Family, readonly Link[]>;
}

/** Looks at the host. Nothing is changed. */
export async function lookAround(suite: Suite): Promise<Context> {
  const programs = new Programs({});
  const once = lookOnce();
  const [inventory, rules] = await Promise.all([
    takeInventory(configDir(), cacheDir(), once),
    savedRules(programs),
  ]);
  const running = runningAttachments(inventory);
  const own = environment();
  return {
    ...{ suite, programs, once, inventory, running, rules },
    environment: own,
    files: await checkFiles(suite, own.path),
    uplinks: new Map(([4, 6] as const).map((family) => [family, uplinksOf(family, inventory.links)])),
  };
}

/** The attachments whose sandboxes exist. */
export function runningAttachments(inventory: Inventory): RunningAttachment[] {
  return inventory.attachments
    .filter(({ orphaned }) => orphaned.length === 0)
    .map((one) => runningAttachment(one, inventory));
}

function runningAttachment(attachment: HostAttachment, { records }: Inventory): RunningAttachment {
  const record = records.get(attachmentKey(attachment));
  const name = displayName(attachment);
  return {
    ...{ attachment, name, record },
    network: record && networkFromCache(record),
    result: record && resultOf(record),
  };
}

function resultOf({ result }: CachedAttachment): Result | undefined {
  try {
    return result && parseResult(result, typeof result.cniVersion === 'string' ? result.cniVersion : '');
  } catch {
    return undefined;
  }
}

async function checkFiles(suite: Suite, hostPath: readonly string[]): Promise<CheckedFile[]> {
  let files: string[];
  try {
    files = configFiles(configDir(), ['.conf', '.conflist', '.json']);
  } catch {
    return []; // The inventory tells of it.
  }
  const checked: CheckedFile[] = [];
  for (const file of files)
    checked.push(await checkFile(file, { suite, isInstalled: undefined, hostPath, looksAtUse: false }));
  checkNetworks(checked);
  return checked;
}

/** The interfaces that default routes of a family lead to. */
export function uplinksOf(family: Family, links: readonly Link[]): Link[] {
  using socket = openRouteSocket();
  const indexes = listRoutes(socket, { family, table: RouteTable.Main })
    .filter(({ dst }) => dst.length === 0)
    .flatMap(({ link, hops }) => [link, ...hops.map((hop) => hop.link)]);
  return links.filter(({ index }) => indexes.includes(index));
}

/** Whether the host passes an attachment's packets on, rather than a bridge or a parent alone. */
export function isRouted({ network }: RunningAttachment): boolean {
  return (network?.plugins ?? []).some(
    ({ type, config }) =>
      type === 'ptp' ||
      type === 'flannel' ||
      (type === 'bridge' && Boolean(config.isGateway || config.isDefaultGateway || config.ipMasq)),
  );
}

/** The interface of the host that an attachment's packets come in by: its bridge, or its own veth. */
export function ingressOf({ attachment }: RunningAttachment, links: readonly Link[]): Link | undefined {
  const own = links.filter(({ name }) => attachment.hostInterfaces.includes(name));
  return own.find(({ kind }) => kind === 'bridge') ?? own[0];
}

/** Whether an attachment has addresses of a family. */
export function hasFamily({ attachment }: RunningAttachment, family: Family): boolean {
  return attachment.ips.some((ip) => ip.includes(':') === (family === 6));
}
