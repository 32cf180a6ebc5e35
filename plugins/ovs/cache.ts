/**
 * The file that ovs-cni keeps for each attachment. Without it, ovs-cni removes nothing on DEL, so it is
 * written for hosts that return to ovs-cni; this plugin does not read it.
 */

import { join } from 'node:path';
import type { AttachmentId } from '../../lib/attachment.ts';
import { isObject } from '../../lib/object.ts';
import {
  listStateFiles,
  readStateFile,
  removeStateFile,
  removeUnfinished,
  unlinkStateFile,
  writeStateFile,
} from '../../lib/state-file.ts';

const directory = '/var/lib/cni/ovs-cni/cache';

/** What a file is of. Its name does not tell the network. */
type Key = Pick<AttachmentId, 'containerId' | 'ifname'>;

function nameOf({ containerId, ifname }: Key): string {
  return `${containerId}-${ifname}`;
}

/**
 * Writes the file that ovs-cni keeps for an attachment.
 * @param settings configuration with the keys of the flat file.
 */
export function rememberSettings(attachment: AttachmentId, settings: object): void {
  const text = JSON.stringify({ Netconf: settings, OrigIfName: '', UserspaceMode: false });
  writeStateFile(join(directory, nameOf(attachment)), text);
}

/** Removes what {@link rememberSettings} wrote, if it is there. */
export function forgetSettings(attachment: Key): void {
  removeStateFile(join(directory, nameOf(attachment)));
}

/**
 * Removes the files of a network's attachments that are gone, which a DEL that was killed has left.
 * @param valid the network's attachments that are not gone.
 * @throws CniError when the directory cannot be listed, or a file cannot be removed.
 */
export function collectSettings(network: string, valid: readonly Key[]): void {
  removeUnfinished(directory);
  const kept = new Set(valid.map(nameOf));
  for (const name of listStateFiles(directory))
    if (!kept.has(name) && networkIn(name) === network) unlinkStateFile(join(directory, name));
}

/** The network that a file is of; undefined when it cannot be read. */
function networkIn(name: string): unknown {
  try {
    const value: unknown = JSON.parse(readStateFile(join(directory, name)) ?? '');
    const settings = isObject(value) ? value.Netconf : undefined;
    return isObject(settings) ? settings.name : undefined;
  } catch {
    return undefined;
  }
}
