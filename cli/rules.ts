/** Which attachments the firewall of this host has rules of, as their comments say. */

import type { AttachmentId } from '../lib/attachment.ts';
import { ProgramMissingError, type Programs } from '../lib/kernel/programs.ts';

/**
 * An attachment that a rule names. Rules of iptables belong to a container on a network, whichever its
 * interfaces.
 */
export type RuleOwner = Pick<AttachmentId, 'network' | 'containerId'> & Partial<AttachmentId>;

/** Bytes that nft(8) takes. */
const longestComment = 128;

/** What lists the rules, and how they name their owner. */
const sources: { command: readonly string[]; owner: RegExp }[] = [
  ...['iptables-save', 'ip6tables-save'].map((program) => ({
    command: [program, '-t', 'nat'],
    // Masquerading and port mappings, as the reference plugins comment them.
    owner: /--comment "(?:dnat )?name: \\"(?<network>[^"\\]+)\\" id: \\"(?<containerId>[^"\\]+)\\""/g,
  })),
  {
    command: ['nft', 'list', 'table', 'inet', 'cni_plugins_masquerade'],
    owner: /comment "[\da-f-]+, net: (?<network>[^,"]+), if: (?<ifname>[^,"]+), id: (?<containerId>[^,"]+)"/g,
  },
];

/** The owners of rules, each once. Without a program, there are none of its kind. */
export async function ruleOwners(programs: Programs): Promise<RuleOwner[]> {
  const owners = new Map<string, RuleOwner>();
  const outputs = await Promise.all(
    sources.map(({ command: [program = '', ...args] }) =>
      programs.run(program, args).catch((error: unknown) => {
        if (error instanceof ProgramMissingError) return undefined;
        throw error;
      }),
    ),
  );
  for (const [i, { owner }] of sources.entries()) {
    const output = outputs[i];
    for (const { 0: text, groups } of output?.stdout.matchAll(owner) ?? []) {
      // A comment as long as nft(8) takes may be cut within the container ID.
      if (text.length >= 'comment ""'.length + longestComment) continue;
      const { network = '', containerId = '', ifname } = groups!;
      owners.set(`${network}/${containerId}/${ifname}`, { network, containerId, ...(ifname && { ifname }) });
    }
  }
  return [...owners.values()];
}
