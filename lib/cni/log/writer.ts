/** The log that the settings ask for. */

import type { CallObserver } from '../record.ts';
import { entryOf } from './entry.ts';
import { appendLine } from './file.ts';
import { sendToJournal } from './journal.ts';
import { readLogSettings } from './settings.ts';

/**
 * Makes the log of a call.
 * @param wanted CNI_LOG. @param settingsFile path of the host's settings.
 * @returns undefined when it is off.
 * @throws Error that says what is wrong with the settings.
 */
export function makeLog(wanted: string | undefined, settingsFile: string): CallObserver | undefined {
  const settings = readLogSettings(wanted, settingsFile);
  switch (settings.destination) {
    case 'off':
      return undefined;
    case 'journald':
      return { end: (record) => sendToJournal(entryOf(record)) };
    default:
      return {
        end: (record) => appendLine(settings.destination, `${JSON.stringify(entryOf(record))}\n`, settings),
      };
  }
}
