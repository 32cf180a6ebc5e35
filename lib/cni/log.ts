/**
 * The log of calls: where it goes is set by CNI_LOG or /etc/cni/log.json, see docs/logging.md. This file only
 * finds out whether there is a log; the rest is loaded if there is.
 */

import { existsSync } from 'node:fs';
import { eachTime, type Once } from '../kernel/sharing.ts';
import type { Environment } from './invocation.ts';
import type { CallObserver } from './record.ts';

/** The host's log settings. Not in net.d, where runtimes would take it for a network. */
const logSettingsFile = '/etc/cni/log.json';

/**
 * Opens the log of a call.
 * @param warn told what is wrong with the settings, which fails no call.
 * @param look looks for the host's settings once for all calls, if they share what they find.
 * @returns undefined when nothing is logged.
 */
export async function openLog(
  environment: Environment,
  warn: (message: string) => void,
  look: Once = eachTime,
): Promise<CallObserver | undefined> {
  const { CNI_LOG: wanted } = environment;
  if (wanted === 'off' || (!wanted && !look('whether there is a log', () => existsSync(logSettingsFile))))
    return undefined;
  const { makeLog } = await import('./log/writer.ts');
  try {
    return makeLog(wanted, logSettingsFile);
  } catch (error) {
    warn(`Nothing is logged: ${(error as Error).message}`);
    return undefined;
  }
}
