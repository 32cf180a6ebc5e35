/** Checks a network against the host that it is for: what its plugins need, and what the host has already. */

import type { AddressPool, Plugin } from '../../lib/cni/plugin.ts';
import { runPlugin } from '../../lib/cni/runner.ts';
import { newestVersion } from '../../lib/cni/version.ts';
import { listAddresses } from '../../lib/kernel/address.ts';
import { listLinks } from '../../lib/kernel/link.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import type { Suite } from '../../main.ts';
import { subnetsOverlap } from '../addresses.ts';
import { bridgeOf, type Maker } from '../inner.ts';
import { type NetworkList, type PluginEntry, wholeConfig } from '../libcni/conflist.ts';
import { loadPlugin } from '../schema.ts';
import { at, error, type Finding, warning } from './finding.ts';

/** A plugin of a network, the addresses that it may hand out, and its path in the file. */
export interface CheckedPlugin {
  readonly entry: PluginEntry;
  readonly maker: Maker;
  readonly pools: readonly AddressPool[];
  readonly path: string;
}

/** A checked plugin and its network. */
interface PlacedPlugin extends CheckedPlugin {
  readonly network: NetworkList;
}

/** What a host is checked with. */
interface CheckedHost {
  readonly suite: Suite;
  /** Where plugins find their delegates. */
  readonly hostPath: readonly string[];
}

/** Asks a plugin for its STATUS, and compares its addresses with the host's own. */
export async function hostFindings(placed: PlacedPlugin, host: CheckedHost): Promise<Finding[]> {
  return [...(await statusFindings(placed, host)), ...overlapFindings(placed)];
}

/** What the plugin itself lacks on the host, whatever cniVersion the network has. */
async function statusFindings(
  { entry, network, path }: PlacedPlugin,
  { suite, hostPath }: CheckedHost,
): Promise<Finding[]> {
  const plugin = await loadPlugin(suite.plugins, entry.type);
  if (!plugin?.status) return [];
  let said: { msg?: string; details?: string } | undefined;
  const caller = {
    program: '',
    environment: { CNI_COMMAND: 'STATUS', CNI_PATH: hostPath.join(':'), PATH: process.env.PATH },
    warn: () => {},
    readStdin: async () => JSON.stringify({ ...wholeConfig(entry, network), cniVersion: newestVersion }),
    async print(text: string, exit: number) {
      if (exit !== 0) said = JSON.parse(text) as typeof said;
    },
  };
  const find = (name: string) =>
    (suite.ipam.get(name) ?? suite.plugins.get(name))?.().then((module) => module.plugin);
  await runPlugin(plugin as Plugin<never>, caller, find);
  if (!said) return [];
  const message = [said.msg, said.details].filter(Boolean).join(': ');
  return [error('host', at(path, 'type'), `Plugin "${entry.type}" cannot work on this host. ${message}`)];
}

/** Host addresses in the network's subnets, but on interfaces that are not part of the network. */
export function overlapFindings({ entry: { type, config }, pools, path }: CheckedPlugin): Finding[] {
  if (pools.length === 0) return [];
  using socket = openRouteSocket();
  const bridge = bridgeOf({ type, config });
  const own = [bridge, config.master];
  const others = listLinks(socket).filter(
    ({ name, kind }) =>
      name !== 'lo' && kind !== 'veth' && !own.includes(name) && !(bridge && name.startsWith(`${bridge}.`)),
  );
  for (const { index, name } of others)
    for (const { prefix } of listAddresses(socket, index)) {
      const theirs = { subnet: `${prefix.network}`, range: '' };
      const mine = prefix.address.isLinkLocal
        ? undefined
        : pools.find((pool) => subnetsOverlap(pool, theirs));
      if (mine)
        return [
          warning(
            'host-overlap',
            at(path, 'ipam'),
            `Subnet ${mine.subnet} overlaps with ${prefix} on interface "${name}" of this host, which cannot route to both. Give the network another subnet`,
          ),
        ];
    }
  return [];
}
