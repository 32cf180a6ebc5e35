/** Rules that the other variant of iptables keeps in force. */

import { count } from '../terminal.ts';
import type { Check, Finding } from './check.ts';
import type { Context } from './context.ts';
import type { SavedRules } from './iptables.ts';

export const leftovers: Check = {
  id: 'iptables-variant',
  title: 'iptables',
  run(context) {
    const { rules } = context;
    const inUse = rules.find(({ isInUse }) => isInUse);
    const findings = rules.filter(({ isInUse }) => !isInUse).flatMap((saved) => findingsOf(saved, context));
    const seen = !inUse
      ? 'not installed; the plugins use nftables'
      : `"iptables" is ${inUse.variant === 'nft' ? 'the one on nf_tables' : 'the legacy one'}, and the other has no rules`;
    return { findings, seen };
  },
};

function findingsOf({ program, variant, tables }: SavedRules, { running, programs }: Context): Finding[] {
  const all = [...tables.values()].flat().filter((line) => line.startsWith('-A'));
  const ours = all.filter((line) => line.includes('CNI-'));
  const title = `${program} (${variant === 'nft' ? 'nf_tables' : 'legacy'})`;
  const subject = program;
  const cause =
    'The host was switched from one variant of iptables to the other while rules were in force; the kernel applies both';
  if (ours.length === 0)
    return all.length === 0
      ? []
      : [
          {
            ...{ severity: 'info', subject, cause },
            message: `${title} has ${count(all.length, 'rule')} beside those of "iptables", and the kernel applies both`,
            mend: `Look at them with "${program}-save"; "${program} -F" and "${program} -t nat -F" remove them`,
          },
        ];
  const isInUse = running.some(({ attachment }) =>
    ours.some((line) => line.includes(attachment.containerId)),
  );
  return [
    {
      ...{ severity: 'warning', subject: `rules of CNI plugins in ${program}`, cause },
      message: `${title} still has ${count(ours.length, 'rule')} of CNI plugins, which the plugins of today neither see nor remove`,
      mend: `${program}-save -c | grep -v CNI- | ${program}-restore -c`,
      // Pods that were attached before the switch may have no other rules.
      ...(!isInUse && { fix: () => removeRules(program, tables, programs) }),
    },
  ];
}

/** Removes the rules and chains of CNI plugins in one step for each table, and no others. */
async function removeRules(
  program: string,
  tables: SavedRules['tables'],
  programs: Context['programs'],
): Promise<void> {
  const input = [...tables].map(([table, lines]) => {
    const ours = lines.filter((line) => line.includes('CNI-'));
    const chains = ours.filter((line) => line.startsWith(':')).map((line) => line.slice(1).split(' ')[0]!);
    const commands = [
      ...ours
        .filter((line) => line.startsWith('-A') && !chains.includes(line.split(' ')[1]!))
        .map((line) => line.replace('-A', '-D')),
      ...chains.map((chain) => `-F ${chain}`),
      ...chains.map((chain) => `-X ${chain}`),
    ];
    return `*${table}\n${commands.join('\n')}\nCOMMIT\n`;
  });
  const { status, stderr } = await programs.run(
    `${program}-restore`,
    ['--noflush', '--wait', '10'],
    input.join(''),
  );
  if (status !== 0) throw new Error(`${program}-restore refused to remove the rules: ${stderr.trim()}`);
}
