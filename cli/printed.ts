/** What commands print for programs, in JSON or YAML: the same names for the same things. See docs/cni.md. */

import type { HostAttachment } from './inventory.ts';
import type { RangeUse } from './reservations.ts';
import type { State } from './state.ts';

/** An attachment, and what CHECK says of it. */
interface CheckedAttachment extends HostAttachment {
  readonly state: State['kind'];
  /** Why it is not ok. */
  readonly problems: readonly string[];
  /** Type of the plugin whose CHECK found it. */
  readonly foundBy?: string;
}

/** How far a range is used up, as far as that is known. */
export type KnownUse = Omit<RangeUse, 'used'> & { readonly used: number | undefined };

/** A range of addresses. */
export type PrintedRange = KnownUse & { readonly free: number | undefined };

/** Something amiss: in a configuration, or on the host. */
export interface PrintedFinding {
  /** An error breaks attachments or connections, a warning may do so, an info is just for information. */
  readonly severity: 'error' | 'warning' | 'info';
  /** Which check found it. */
  readonly rule: string;
  readonly message: string;
}

/** @param state what was seen of the attachment. */
export function checkedAttachment(attachment: HostAttachment, { kind, ...seen }: State): CheckedAttachment {
  return { ...attachment, state: kind, ...seen };
}

/** Adds how many addresses are left, where that is known. */
export function printedRange(range: KnownUse): PrintedRange {
  const { capacity, used } = range;
  return { ...range, free: used === undefined ? undefined : Math.max(0, capacity - used) };
}
