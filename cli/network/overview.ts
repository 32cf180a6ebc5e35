/** All about a host's networks: how far each is used up, and what is wrong with it. */

import { lookOnce } from '../../lib/kernel/sharing.ts';
import type { Suite } from '../../main.ts';
import { type HostAttachment, takeInventory } from '../inventory.ts';
import { ipamTypeOf, type NetworkList, networkFiles } from '../libcni/conflist.ts';
import { type PrintedRange, printedRange } from '../printed.ts';
import { cacheDir, configDir } from '../settings.ts';
import { checkFile } from '../validate/file.ts';
import { checkNetworks } from '../validate/networks.ts';
import { sharedRangesOf } from './shared-ranges.ts';

/** A network of the host. */
export interface NetworkOverview {
  readonly name: string;
  /** "" if it was removed while it had attachments, or if a plugin has it from elsewhere. */
  readonly file: string;
  /** Whether a plugin such as multus attaches pods to it. */
  readonly delegated: boolean;
  readonly cniVersion: string;
  /** Types of its plugins, in their order. */
  readonly plugins: readonly string[];
  /** Types of its IPAM plugins. */
  readonly ipam: readonly string[];
  /**
   * The range sets of host-local, and ranges that are shared with other nodes: every attachment gets an
   * address of each.
   */
  readonly ranges: readonly PrintedRange[];
  readonly attachments: readonly HostAttachment[];
  readonly problems: readonly string[];
  readonly config: unknown;
}

/** The networks of a host. */
export interface Overview {
  readonly networks: readonly NetworkOverview[];
  /** Files that cannot be used, and why. */
  readonly problems: readonly string[];
}

/** Looks at the networks of the host. Nothing is changed. @param suite whose schemas apply. */
export async function takeOverview(suite: Suite): Promise<Overview> {
  const once = lookOnce();
  const { networks, delegated, attachments, ranges, problems } = await takeInventory(
    configDir(),
    cacheDir(),
    once,
  );
  const findings = await findingsByFile(suite);
  const overviewOf = async (network: NetworkList): Promise<NetworkOverview> => {
    const shared = await sharedRangesOf(network, suite);
    const ofHost = ranges.filter((range) => range.network === network.name);
    const own = [...ofHost, ...shared.ranges].map(printedRange);
    return {
      name: network.name,
      file: network.file,
      delegated: delegated.has(network.name),
      cniVersion: network.cniVersion || '0.1.0',
      plugins: network.plugins.map(({ type }) => type),
      ipam: network.plugins.flatMap(({ config }) => ipamTypeOf(config) ?? []),
      ranges: own,
      attachments: attachments.filter((one) => one.network === network.name),
      problems: [
        ...(network.file === '' && !delegated.has(network.name)
          ? ['Its configuration was removed, but it has attachments']
          : []),
        ...own
          .filter(({ free }) => free === 0)
          .map(({ range }) => `All addresses of ${range} are given away, so that the next ADD fails`),
        ...shared.problems,
        ...(findings.get(network.file) ?? []),
      ],
      config: JSON.parse(network.bytes.toString()),
    };
  };
  const overviews = await Promise.all(networks.map(overviewOf));
  return { networks: overviews.sort((a, b) => a.name.localeCompare(b.name)), problems };
}

/** The errors that `cni validate --no-host` finds in each file, such as overlapping address ranges. */
async function findingsByFile(suite: Suite): Promise<Map<string, string[]>> {
  const checked = [];
  try {
    for (const file of networkFiles(configDir()))
      checked.push(
        await checkFile(file, { suite, isInstalled: undefined, hostPath: undefined, looksAtUse: false }),
      );
  } catch {
    return new Map(); // The inventory says what is wrong with the directory.
  }
  checkNetworks(checked);
  return new Map(
    checked.map(({ file, findings }) => [
      file,
      findings.filter(({ severity }) => severity === 'error').map(({ message }) => message),
    ]),
  );
}
