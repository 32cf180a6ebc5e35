/** Configurations nested in a plugin's configuration: networks, or a delegate's configuration. */

import { configSchema, type InnerConfig } from '../lib/cni/plugin.ts';
import { decode, getKey } from '../lib/cni/schema.ts';
import { isObject } from '../lib/object.ts';
import type { Suite } from '../main.ts';
import { type NetworkList, type PluginEntry, wholeConfig } from './libcni/conflist.ts';
import { loadPlugin } from './schema.ts';

/**
 * The configurations nested in one; none when it is wrong, or for a plugin of another suite.
 * @param type of the plugin. @param network that the plugin is part of.
 */
export async function innerConfigs(
  type: string,
  config: PluginEntry['config'],
  network: Pick<NetworkList, 'name' | 'cniVersion'>,
  suite: Suite,
): Promise<InnerConfig[]> {
  const plugin = await loadPlugin(suite.plugins, type);
  if (!plugin?.inner) return [];
  try {
    return plugin.inner(decode(configSchema(plugin), wholeConfig({ config }, network)) as never);
  } catch {
    return []; // "cni validate" reports what is wrong.
  }
}

/** The plugin that connects containers: one in the network's own list, or the one that this delegates to. */
export interface Maker {
  readonly type: string;
  readonly config: PluginEntry['config'];
  /** Whether it is a delegate, which gets its addresses from elsewhere. */
  readonly isDelegate: boolean;
}

/** Who does the work of a plugin: the plugin itself, or the delegate that its configuration names. */
export function makerOf(
  { type, config }: Pick<PluginEntry, 'type' | 'config'>,
  inner: readonly InnerConfig[],
): Maker {
  const delegate = inner.find(({ isNetwork }) => !isNetwork)?.value as Record<string, unknown> | undefined;
  if (!delegate) return { type, config, isDelegate: false };
  return { type: `${delegate.type}`, config: delegate, isDelegate: true };
}

/** The plugin that makes a network's interfaces; for flannel, the one that it delegates to. */
export function mainOf({ plugins: [main] }: Pick<NetworkList, 'plugins'>): Pick<Maker, 'type' | 'config'> {
  const { type, config }: Pick<Maker, 'type' | 'config'> = main ?? { type: '', config: {} };
  if (type !== 'flannel') return { type, config };
  const delegate = isObject(config.delegate) ? config.delegate : {};
  return { type: typeof delegate.type === 'string' ? delegate.type : 'bridge', config: delegate };
}

/** The bridge that containers are connected to, or undefined where there is none. */
export function bridgeOf({ type, config }: Pick<Maker, 'type' | 'config'>): string | undefined {
  if (type !== 'bridge') return undefined;
  const name = getKey(config, 'bridge');
  return typeof name === 'string' && name !== '' ? name : 'cni0';
}
