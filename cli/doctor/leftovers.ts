/** Rules that iptables cannot list, and those that are still in force in its other variant. */

import { Address, Prefix } from '../../lib/ip.ts';
import type { RunningAttachment } from '../inventory/running.ts';
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
    const findings = [
      ...rules.flatMap(unlistable),
      ...rules.filter(({ isInUse }) => !isInUse).flatMap((saved) => findingsOf(saved, context)),
    ];
    const seen = !inUse
      ? 'not installed; the plugins use nftables'
      : `"iptables" is ${inUse.variant === 'nft' ? 'the one on nf_tables' : 'the legacy one'}, and the other has no rules`;
    return { findings, seen };
  },
};

function unlistable({ program, family, problem }: SavedRules): Finding[] {
  if (problem === undefined) return [];
  const { message, isOfNft } = problem;
  const [cause, fix] = isOfNft
    ? [
        'Somebody added a rule with nft that iptables has no words for',
        `Look at the rules with "nft -a list ruleset ${family === 4 ? 'ip' : 'ip6'}", and move that rule to a table of its own`,
      ]
    : [
        'The program is damaged or does not suit the kernel, or the kernel refused to tell',
        `Run "${program}-save", and fix what it says`,
      ];
  return [
    {
      severity: 'warning',
      subject: `${program}-save`,
      message: `The rules of ${program} cannot be listed: ${message}`,
      cause,
      fix,
    },
  ];
}

function findingsOf({ program, variant, tables }: SavedRules, { running, programs }: Context): Finding[] {
  const all = [...tables.values()].flat().filter((line) => line.startsWith('-A'));
  const ours = all.filter(isOurs);
  const title = `${program} (${variant === 'nft' ? 'nf_tables' : 'legacy'})`;
  const subject = program;
  const cause =
    'The host was switched from one variant of iptables to the other while rules were in force; the kernel applies both';
  if (ours.length === 0)
    return all.length === 0
      ? []
      : [
          {
            severity: 'info',
            subject,
            cause,
            message: `${title} has ${count(all.length, 'rule')} beside those of "iptables", and the kernel applies both`,
            fix: `Look at them with "${program}-save"; "${program} -F" and "${program} -t nat -F" remove them`,
          },
        ];
  const users = running.filter((one) => ours.some((line) => concerns(line, one)));
  const isOperators = all.some((line) => line.startsWith(`-A ${adminChain} `));
  const remove = `${program}-save -c | grep -Ev '^:CNI-|-A CNI-| -[jg] CNI-[^"]*$' | ${program}-restore -c`;
  return [
    {
      severity: 'warning',
      subject: `rules of CNI plugins in ${program}`,
      cause,
      message: `${title} still has ${count(ours.length, 'rule')} of CNI plugins, which the plugins of today neither see nor remove`,
      fix: [
        // Pods that were attached before the switch may have no other rules.
        ...(users.length > 0
          ? [
              `Delete the pods that they are of, and add them again: ${users.map(({ name }) => name).join(', ')}`,
            ]
          : []),
        ...(isOperators
          ? [
              `Put your own rules of chain "${adminChain}" in the "iptables" of today: ${program} -S ${adminChain}`,
            ]
          : []),
        remove,
      ].join('. Then: '),
      ...(users.length === 0 && !isOperators && { apply: () => removeRules(program, tables, programs) }),
    },
  ];
}

/** Whether a rule is in a chain of the plugins, or leads to one. Others may mention them in a comment. */
const isOurs = (line: string): boolean => /^-A CNI-| -[jg] CNI-[^"]*$/.test(line);

/** Where operators put rules of their own, which come before those of the plugin "firewall". */
const adminChain = 'CNI-ADMIN';

/** A chain of a single attachment; the rule that jumps to it tells which one. */
const ownChain = /^-A CNI-(?:[DS]N-)?[0-9a-f]{21,24} /;

/** Whether a rule is about an attachment, judging by its container ID, addresses or host interfaces. */
function concerns(line: string, { attachment }: RunningAttachment): boolean {
  const { containerId, ips, hostInterfaces } = attachment;
  if (line.includes(containerId)) return true;
  if (ownChain.test(line)) return false;
  const words = line.split(/[\s,]+/);
  const prefixes = words.flatMap((word) => Prefix.tryParse(word) ?? Address.tryParse(word)?.toPrefix() ?? []);
  return (
    words.some((word) => hostInterfaces.includes(word)) ||
    ips.some((ip) => prefixes.some((prefix) => prefix.contains(Address.parse(ip))))
  );
}

/** Removes all rules and chains of CNI plugins in one step for each table, and no others. */
async function removeRules(
  program: string,
  tables: SavedRules['tables'],
  programs: Context['programs'],
): Promise<void> {
  const input = [...tables].map(([table, lines]) => {
    const ours = lines.filter((line) => line.startsWith(':CNI-') || isOurs(line));
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
