/** Which attachments the firewall of this host has rules for, according to the rules' comments. */

import type { AttachmentId } from '../lib/attachment.ts';
import { CniError } from '../lib/errors.ts';
import { IptablesMissingError } from '../lib/firewall/iptables.ts';
import { isKnownToBeAbsent, list } from '../lib/firewall/listing.ts';
import { masqueradedAttachments } from '../lib/firewall/masquerade-nftables.ts';
import { option, type Rule } from '../lib/firewall/rules.ts';
import { type Family, families } from '../lib/ip.ts';
import type { Programs } from '../lib/kernel/programs.ts';
import { isKernelError, KernelError } from '../lib/netlink/libc.ts';
import { describeError } from './errors.ts';

/**
 * An attachment that a rule names. Rules of iptables name a container and a network, but no interface.
 */
export type RuleOwner = Pick<AttachmentId, 'network' | 'containerId'> & Partial<AttachmentId>;

/** The reference plugins' comments on masquerading and port mappings; a truncated one does not match. */
const iptablesComment = /^(?:dnat )?name: "(?<network>[^"\\]+)" id: "(?<containerId>[^"\\]+)"$/;

/** What a host's firewalls tell. */
export interface SeenOwners {
  /** Each once. */
  readonly owners: readonly RuleOwner[];
  /** Why there may be others. */
  readonly problems: readonly string[];
}

/** Finds the owners of rules. A firewall that is not installed has none. */
export async function ruleOwners(programs: Programs): Promise<SeenOwners> {
  const owners = new Map<string, RuleOwner>();
  const problems: string[] = [];
  const orNone = async <T>(look: () => Promise<T[]> | T[]): Promise<T[]> => {
    try {
      return await look();
    } catch (error) {
      // Neither are there rules where the kernel has no nfnetlink.
      if (error instanceof IptablesMissingError || isKernelError(error, 'EPROTONOSUPPORT')) return [];
      if (!(error instanceof CniError || error instanceof KernelError)) throw error;
      problems.push(`Rules of attachments cannot be looked at. ${describeError(error)}`);
      return [];
    }
  };
  const add = (owner: RuleOwner) =>
    owners.set(`${owner.network}/${owner.containerId}/${owner.ifname}`, owner);
  const tables = await Promise.all(families.map((family) => orNone(() => natRules(programs, family))));
  for (const rule of tables.flat()) {
    const groups = iptablesComment.exec(option(rule, '--comment') ?? '')?.groups;
    if (groups) add({ network: groups.network!, containerId: groups.containerId! });
  }
  for (const owner of await orNone(() => masqueradedAttachments(programs.once))) add(owner);
  return { owners: [...owners.values()], problems };
}

/** The chains that lead to masquerading and port mappings: without them, nothing has to be listed. */
const entryChains = ['PREROUTING', 'POSTROUTING'];

async function natRules(programs: Programs, family: Family): Promise<Rule[]> {
  const isUnused = entryChains.every((chain) => isKnownToBeAbsent(programs, family, 'nat', chain));
  return (isUnused ? undefined : await list(programs, family, 'nat')) ?? [];
}
