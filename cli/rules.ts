/** Which attachments the firewall of this host has rules for, according to the rules' comments. */

import type { AttachmentId } from '../lib/attachment.ts';
import { CniError } from '../lib/errors.ts';
import { isKnownToBeAbsent, list } from '../lib/firewall/listing.ts';
import { masqueradedAttachments } from '../lib/firewall/masquerade-nftables.ts';
import { option, type Rule } from '../lib/firewall/rules.ts';
import { type Family, families } from '../lib/ip.ts';
import type { Programs } from '../lib/kernel/programs.ts';
import type { Once } from '../lib/kernel/sharing.ts';
import { KernelError } from '../lib/netlink/libc.ts';

/**
 * An attachment that a rule names. Rules of iptables name a container and a network, but no interface.
 */
export type RuleOwner = Pick<AttachmentId, 'network' | 'containerId'> & Partial<AttachmentId>;

/** The reference plugins' comments on masquerading and port mappings; a truncated one does not match. */
const iptablesComment = /^(?:dnat )?name: "(?<network>[^"\\]+)" id: "(?<containerId>[^"\\]+)"$/;

/** The owners of rules, each once. A firewall that is not installed, or cannot list its rules, has none. */
export async function ruleOwners(programs: Programs): Promise<RuleOwner[]> {
  const owners = new Map<string, RuleOwner>();
  const add = (owner: RuleOwner) =>
    owners.set(`${owner.network}/${owner.containerId}/${owner.ifname}`, owner);
  const tables = await Promise.all(families.map((family) => natRules(programs, family)));
  for (const rule of tables.flat()) {
    const groups = iptablesComment.exec(option(rule, '--comment') ?? '')?.groups;
    if (groups) add({ network: groups.network!, containerId: groups.containerId! });
  }
  for (const owner of masqueraded(programs.once)) add(owner);
  return [...owners.values()];
}

/** The chains that lead to masquerading and port mappings: without them, nothing has to be listed. */
const entryChains = ['PREROUTING', 'POSTROUTING'];

async function natRules(programs: Programs, family: Family): Promise<Rule[]> {
  try {
    const isUnused = entryChains.every((chain) => isKnownToBeAbsent(programs, family, 'nat', chain));
    return (isUnused ? undefined : await list(programs, family, 'nat')) ?? [];
  } catch (error) {
    if (error instanceof CniError) return [];
    throw error;
  }
}

function masqueraded(once: Once | undefined): AttachmentId[] {
  try {
    return masqueradedAttachments(once);
  } catch (error) {
    if (error instanceof CniError || error instanceof KernelError) return [];
    throw error;
  }
}
