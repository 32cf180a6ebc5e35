/** The IPAM plugins of this suite that a network names. */

import { configSchema, type Plugin } from '../lib/cni/plugin.ts';
import { decode } from '../lib/cni/schema.ts';
import type { Suite } from '../main.ts';
import { ipamTypeOf, type NetworkList, wholeConfig } from './libcni/conflist.ts';

/** An IPAM plugin, and what a network configures it with. */
export interface ConfiguredPlugin {
  readonly plugin: Plugin<never>;
  /** @throws Error that says what is wrong with the configuration. */
  config(): never;
}

/** Finds them, in the order of the network's plugins. */
export async function ipamPluginsOf(network: NetworkList, { ipam }: Suite): Promise<ConfiguredPlugin[]> {
  const found: ConfiguredPlugin[] = [];
  for (const entry of network.plugins) {
    const module = await ipam.get(ipamTypeOf(entry.config) ?? '')?.();
    if (!module) continue;
    const { plugin } = module;
    found.push({ plugin, config: () => decode(configSchema(plugin), wholeConfig(entry, network)) as never });
  }
  return found;
}
