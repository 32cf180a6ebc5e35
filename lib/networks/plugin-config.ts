/** What a plugin of a network reads from standard input. */

import type { NetworkList, PluginEntry } from './conflist.ts';

/** A result as JSON, in the version of its "cniVersion". */
export type ResultJson = Record<string, unknown>;

/** What a runtime passes on beside the configuration. */
export interface RuntimeArgs {
  /** Values by capability, such as portMappings. */
  readonly capabilityArgs: Readonly<Record<string, unknown>>;
}

/**
 * What a plugin reads: its own configuration with the network's name and version, and what the runtime adds.
 * Source: CNI specification 1.1.0, section 3, "Deriving runtimeConfig".
 */
export function pluginConfig(
  { name, cniVersion }: Pick<NetworkList, 'name' | 'cniVersion'>,
  { config, capabilities }: PluginEntry,
  { capabilityArgs }: RuntimeArgs = { capabilityArgs: {} },
  prevResult?: ResultJson,
): string {
  const wanted = capabilities.filter((capability) => Object.hasOwn(capabilityArgs, capability));
  return JSON.stringify({
    ...config,
    name,
    cniVersion,
    ...(prevResult && { prevResult }),
    ...(wanted.length > 0 && {
      runtimeConfig: Object.fromEntries(wanted.map((capability) => [capability, capabilityArgs[capability]])),
    }),
  });
}
