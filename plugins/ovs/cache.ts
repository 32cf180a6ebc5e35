/**
 * The file that ovs-cni keeps for each attachment. Without it, ovs-cni removes nothing on DEL, so it is
 * written for hosts that return to ovs-cni; this plugin does not read it.
 */

import type { AttachmentId } from '../../lib/attachment.ts';
import { removeStateFile, writeStateFile } from '../../lib/state-file.ts';

function fileOf({ containerId, ifname }: Pick<AttachmentId, 'containerId' | 'ifname'>): string {
  return `/var/lib/cni/ovs-cni/cache/${containerId}-${ifname}`;
}

/**
 * Writes the file that ovs-cni keeps for an attachment.
 * @param settings configuration with the keys of the flat file.
 */
export function rememberSettings(attachment: AttachmentId, settings: object): void {
  const text = JSON.stringify({ Netconf: settings, OrigIfName: '', UserspaceMode: false });
  writeStateFile(fileOf(attachment), text);
}

/** Removes what {@link rememberSettings} wrote, if it is there. */
export function forgetSettings(attachment: Pick<AttachmentId, 'containerId' | 'ifname'>): void {
  removeStateFile(fileOf(attachment));
}
