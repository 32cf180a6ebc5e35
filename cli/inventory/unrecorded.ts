/**
 * What host-local and the firewall have of attachments that no record mentions. It is left over, for example
 * from an interrupted ADD, unless the container lives and a plugin attaches it to additional networks, or its
 * record cannot be read: in these cases, the record of the attachment may be lost.
 */

import { basename } from 'node:path';
import { type AttachmentId, attachmentKey } from '../../lib/attachment.ts';
import type { CacheEntry } from '../libcni/cache.ts';
import { savedBy } from '../records.ts';
import type { HeldAddress } from '../reservations.ts';
import type { RuleOwner } from '../rules.ts';
import type { HostAttachment } from './attachment.ts';

/** Adds to the recorded attachments those that have no record. */
export class Unrecorded {
  private readonly attachments: Map<string, HostAttachment>;
  /** Attachments whose namespaces exist, and whose plugins attach to additional networks, by container ID. */
  private readonly living: ReadonlyMap<string, HostAttachment>;
  /** Names of the files that cannot be read. */
  private readonly damaged: readonly string[];

  /**
   * @param attachments from the records, by key; orphaned ones are already marked as such.
   * @param records that they are from.
   */
  constructor(attachments: Map<string, HostAttachment>, records: readonly CacheEntry[]) {
    this.attachments = attachments;
    this.living = new Map(
      records.flatMap(({ attachment: record }) => {
        if (!record || savedBy(record).length === 0) return [];
        const one = attachments.get(attachmentKey(record))!;
        return one.netns !== '' && one.orphaned.length === 0 ? [[one.containerId, one]] : [];
      }),
    );
    this.damaged = records.flatMap(({ file, error }) => (error ? [basename(file)] : []));
  }

  /** Adds the addresses that host-local handed out, to known attachments or to others. */
  addReservations(reservations: readonly HeldAddress[]): void {
    const { attachments } = this;
    for (const { owner, ip, since } of reservations) {
      const known =
        attachments.get(attachmentKey(owner)) ??
        // Files of very old versions have no interface name.
        (owner.ifname === ''
          ? [...attachments.values()].find((one) => containerKey(one) === containerKey(owner))
          : undefined);
      if (known) {
        if (!known.ips.includes(ip)) known.ips.push(ip);
      } else
        attachments.set(attachmentKey(owner), {
          ...this.attachment(owner, 'address reserved, but no runtime knows of it'),
          ips: [ip],
          since: since(),
        });
    }
  }

  /**
   * Adds the attachments that the firewall has rules for.
   * @param isKnown tells whether a network of that name is known: other networks are not our concern.
   */
  addRuleOwners(owners: readonly RuleOwner[], isKnown: (network: string) => boolean): void {
    const known = Map.groupBy(this.attachments.values(), containerKey);
    for (const owner of owners) {
      if (!isKnown(owner.network)) continue;
      if (known.get(containerKey(owner))?.some(({ ifname }) => !owner.ifname || owner.ifname === ifname))
        continue;
      const id = { ifname: 'eth0', ...owner };
      this.attachments.set(
        attachmentKey(id),
        this.attachment(id, 'firewall rules remain, but no runtime knows of it'),
      );
    }
  }

  /** @param why the attachment is orphaned, if it is. */
  private attachment(id: AttachmentId, why: string): HostAttachment {
    const living = this.living.get(id.containerId);
    const isLost = living !== undefined || this.hasDamagedRecord(id);
    return {
      ...id,
      pod: living?.pod,
      netns: living?.netns ?? '',
      ips: [],
      ports: [],
      hostInterfaces: [],
      since: undefined,
      orphaned: isLost ? [] : [why],
    };
  }

  /** Runtimes name records after network, container and interface, plugins after the container alone. */
  private hasDamagedRecord({ network, containerId }: AttachmentId): boolean {
    return this.damaged.some((name) => name === containerId || name.startsWith(`${network}-${containerId}-`));
  }
}

/** What the attachments of a container to one network have in common. */
function containerKey({ network, containerId }: Pick<AttachmentId, 'network' | 'containerId'>): string {
  return `${network} ${containerId}`;
}
