/** The IPAM plugins of this suite that networks name, and what they are configured with. */

import { type AddressPool, configSchema, type Plugin } from '../lib/cni/plugin.ts';
import { decode } from '../lib/cni/schema.ts';
import type { Suite } from '../main.ts';
import { ipamTypeOf, type NetworkList, type PluginEntry, wholeConfig } from './libcni/conflist.ts';
import { loadPlugin } from './schema.ts';

/** An IPAM plugin, and what a plugin of a network configures it with. */
export interface ConfiguredIpam {
  readonly plugin: Plugin<never>;
  /** @throws Error that says what is wrong with the configuration. */
  config(): never;
  /** What it may give away, as far as the configuration tells. */
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

/** Those of a network, in the order of its plugins. */
export async function ipamsOf(network: NetworkList, suite: Suite): Promise<ConfiguredIpam[]> {
  const found = await Promise.all(network.plugins.map((entry) => ipamOf(entry, network, suite)));
  return found.filter((one) => one !== undefined);
}

/** None of a configuration that is wrong: "cni validate" tells what is. */
function poolsOf(plugin: Plugin<never>, config: () => never): AddressPool[] {
  try {
    return plugin.pools?.(config()) ?? [];
  } catch {
    return [];
  }
}
