/** The configuration of host-local, and the range sets that it amounts to. */

import { isAbsolute } from 'node:path';
import type { NetConf } from '../../lib/cni/config.ts';
import { routeSchema } from '../../lib/cni/result.ts';
import { array, type InferShape, object, string, withDefault } from '../../lib/cni/schema.ts';
import { atLeast } from '../../lib/cni/version.ts';
import { type RangeSet, rangeSetsSchema, rangeShape, resolveRangeSets } from './ranges.ts';

/** Where reservations are kept unless "dataDir" says otherwise. */
export const defaultDataDir = '/var/lib/cni/networks';

const ips = array(string({ description: 'Address to ask for, with or without prefix length.' }));

export const hostLocalShape = {
  ipam: withDefault(
    object({
      type: string(),
      ...rangeShape,
      ranges: rangeSetsSchema,
      routes: array(routeSchema, { description: 'Routes for the container.' }),
      dataDir: string({ description: `Where reservations are kept; ${defaultDataDir} by default.` }),
      resolvConf: string({ description: 'resolv.conf whose settings the container gets.' }),
    }),
    {},
  ),
  runtimeConfig: object({ ips, ipRanges: rangeSetsSchema }),
  args: object({ cni: object({ ips }) }),
};

/** A network's configuration as host-local reads it. */
export type HostLocalConfig = InferShape<typeof hostLocalShape> & NetConf;

/** What is wrong with paths: a relative one leads elsewhere by the agent than by the executable. */
export function pathProblems({ ipam: { dataDir, resolvConf } }: HostLocalConfig): string[] {
  return Object.entries({ dataDir, resolvConf }).flatMap(([key, path]) =>
    path && !isAbsolute(path)
      ? [
          `"ipam.${key}" is "${path}", but it must be an absolute path, as it leads elsewhere from another directory. Begin it with "/"`,
        ]
      : [],
  );
}

/** Directory above those of the networks. */
export function dataDirOf({ ipam }: HostLocalConfig): string {
  return ipam.dataDir || defaultDataDir;
}

/**
 * The range sets in the order in which they are numbered on disk: the runtime's, the flat keys, the list.
 * @throws Error that says what is wrong with them, or that there are none.
 */
export function rangeSetsOf({ ipam, runtimeConfig, cniVersion }: HostLocalConfig): RangeSet[] {
  const { ranges = [], subnet, rangeStart, rangeEnd, gateway } = ipam;
  const flat = {
    ...(subnet && { subnet }),
    ...(rangeStart && { rangeStart }),
    ...(rangeEnd && { rangeEnd }),
    ...(gateway && { gateway }),
  };
  const sets = resolveRangeSets([...(runtimeConfig?.ipRanges ?? []), ...(subnet ? [[flat]] : []), ...ranges]);
  if (sets.length === 0)
    throw new Error('"ipam" has no addresses to give away. Set "ipam.ranges" or "ipam.subnet"');
  const families = sets.map((set) => set[0]!.start.family);
  if (!atLeast(cniVersion, '0.3.0') && new Set(families).size < families.length)
    throw new Error(
      `"cniVersion" is "${cniVersion}", which has one address a family, but "ipam.ranges" gives several. ` +
        'Set it to "0.3.0" or newer',
    );
  return sets;
}

/**
 * The range sets that the configuration itself has: none when it leaves them to the runtime.
 * @throws Error
 */
export function configuredRangeSets(config: HostLocalConfig): RangeSet[] {
  const { ranges = [], subnet } = config.ipam;
  return !subnet && ranges.length === 0 && config.capabilities?.ipRanges ? [] : rangeSetsOf(config);
}
