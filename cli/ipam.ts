/** The IPAM plugins of this suite that networks name, and their configurations. */

import { type AddressPool, configSchema, type Plugin } from '../lib/cni/plugin.ts';
import { decode } from '../lib/cni/schema.ts';
import type { Suite } from '../main.ts';
import { ipamTypeOf, type NetworkList, type PluginEntry, wholeConfig } from './libcni/conflist.ts';
import { loadPlugin } from './schema.ts';

/** An IPAM plugin, and the configuration that a plugin of a network gives it. */
export interface ConfiguredIpam {
  readonly plugin: Plugin<never>;
  /** @throws Error that says what is wrong with the configuration. */
  config(): never;
  /** What it may hand out, as far as the configuration tells. */
  readonly pools: readonly AddressPool[];
}

/** The IPAM plugin of a network's plugin; undefined when there is none, or it is not of this suite. */
export async function ipamOf(
  entry: Pick<PluginEntry, 'config'>,
  network: Pick<NetworkList, 'name' | 'cniVersion'>,
  suite: Suite,
): Promise<ConfiguredIpam | undefined> {
  const plugin = (await loadPlugin(suite.ipam, ipamTypeOf(entry.config) ?? '')) as Plugin<never> | undefined;
  if (!plugin) return undefined;
  const config = () => decode(configSchema(plugin), wholeConfig(entry, network)) as never;
  return { plugin, config, pools: poolsOf(plugin, config) };
}

/** The IPAM plugins of a network, in the order of its plugins. */
export async function ipamsOf(network: NetworkList, suite: Suite): Promise<ConfiguredIpam[]> {
  const found = await Promise.all(network.plugins.map((entry) => ipamOf(entry, network, suite)));
  return found.filter((one) => one !== undefined);
}

/** None if the configuration is wrong, which "cni validate" reports. */
function poolsOf(plugin: Plugin<never>, config: () => never): AddressPool[] {
  try {
    return plugin.pools?.(config()) ?? [];
  } catch {
    return [];
  }
}
