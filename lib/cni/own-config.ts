/** A plugin's own keys of a configuration. */

import { type CallContext, warnOf } from './call.ts';
import type { Plugin } from './plugin.ts';
import { decode, UnusableValueError } from './schema.ts';

/**
 * Decodes a plugin's own keys. DEL and GC, which need few of them, go on without those whose value cannot be
 * used: what the reference plugin added must be removed even if its ADD does not mind such a value, and so
 * must what an ADD left that was refused. An IPAM plugin needs its keys, which say where it has to look.
 * @throws SchemaError
 */
export function decodeOwn(
  plugin: Plugin<never>,
  context: CallContext,
  json: Record<string, unknown>,
): Record<string, unknown> {
  const mayLack = plugin.role !== 'ipam' && ['DEL', 'GC'].includes(context.invocation.command);
  for (let given = json; ; ) {
    try {
      return decode(plugin.config, given);
    } catch (error) {
      if (!mayLack || !(error instanceof UnusableValueError)) throw error;
      const [key] = /^[^.[]*/.exec(error.path)!;
      given = Object.fromEntries(
        Object.entries(given).filter(([name]) => name.toLowerCase() !== key.toLowerCase()),
      );
      warnOf(context, `Going on without "${key}": ${error.message}`);
    }
  }
}
