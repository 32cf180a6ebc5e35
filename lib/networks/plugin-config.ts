/** What a plugin of a network reads from standard input. */

import { formatResult, type Result, seenResult } from '../cni/result.ts';
import type { Once } from '../kernel/sharing.ts';
import type { NetworkList, PluginEntry } from './conflist.ts';

/** A result as JSON, in the version of its "cniVersion". */
export type ResultJson = Record<string, unknown>;

/** What a runtime passes on besides the configuration. */
export interface RuntimeArgs {
  /** Values by capability, such as portMappings. */
  readonly capabilityArgs: Readonly<Record<string, unknown>>;
}

/**
 * What a plugin reads: its own configuration with the network's name and version, and what the runtime adds.
 * Source: CNI specification 1.1.0, section 3, "Deriving runtimeConfig".
 * @param prevResult which the plugin gets in the network's version, whatever version it came in.
 * @throws Error when that version cannot express it.
 */
export function pluginConfig(
  { name, cniVersion }: Pick<NetworkList, 'name' | 'cniVersion'>,
  { config, capabilities }: PluginEntry,
  { capabilityArgs }: RuntimeArgs = { capabilityArgs: {} },
  prevResult?: Result,
): string {
  const wanted = capabilities.filter((capability) => Object.hasOwn(capabilityArgs, capability));
  return JSON.stringify({
    ...config,
    name,
    cniVersion,
    ...(prevResult && { prevResult: resultJson(prevResult, cniVersion) }),
    ...(wanted.length > 0 && {
      runtimeConfig: Object.fromEntries(wanted.map((capability) => [capability, capabilityArgs[capability]])),
    }),
  });
}

/** A result as JSON. @param version "" stands for the oldest. */
export function resultJson(result: Result, version: string): ResultJson {
  return JSON.parse(formatResult(result, version || '0.1.0')) as ResultJson;
}

/**
 * A result from the cache, in the version that its plugin answered in, or else in the network's.
 * @param once as for {@link seenResult}.
 * @throws SchemaError
 */
export function recordedResult(
  recorded: ResultJson,
  { cniVersion }: Pick<NetworkList, 'cniVersion'>,
  once?: Once,
): Result {
  return seenResult(recorded, String(recorded.cniVersion || cniVersion), once);
}
