/** What a repair tells the operator. */

import type { HostAttachment } from '../inventory.ts';
import { displayName } from '../inventory.ts';
import type { State } from '../state.ts';
import { count, paint } from '../terminal.ts';
import type { Repaired, Sorted } from './attachment.ts';

/** What was done, and what CHECK said afterwards. */
export interface Checked extends Repaired {
  readonly state: State;
}

/** True when something remains that is not as ADD left it, or that could not be looked at. */
export function isBroken({ missing, problems, state }: Checked): boolean {
  return missing.length > 0 || problems.length > 0 || state.kind === 'broken';
}

/** Lines about an attachment: none when nothing was amiss. */
export function describeRepaired(one: Checked, isDryRun: boolean): string[] {
  const { attachment, restored, missing, problems, foreign, isDeleted, state } = one;
  const name = nameOf(attachment);
  if (isDeleted) return [`Deleted meanwhile: ${name}`, ...problems.map((text) => `  ${text}`)];
  const open = `${isDryRun ? 'Would restore' : paint('red', 'Still missing')}: ${name}`;
  const isFaulty = state.kind === 'broken';
  const reasons = [...problems, ...(isFaulty && !isDryRun ? state.problems : [])];
  return [
    ...section(`${paint('green', 'Restored')}: ${name}`, restored),
    ...section(open, missing),
    ...section(`${paint('red', isDryRun ? 'Cannot be restored' : 'Still broken')}: ${name}`, reasons),
    ...(foreign.length > 0 && (isFaulty || isBroken(one))
      ? [`  Of another suite, and left alone: ${foreign.map((type) => `"${type}"`).join(', ')}`]
      : []),
  ];
}

/** The last line. @param all that were looked at. @param others that were not. */
export function summarize(
  all: readonly Checked[],
  { orphans, unrecorded }: Pick<Sorted, 'orphans' | 'unrecorded'>,
  isDryRun: boolean,
): string {
  const present = all.filter(({ isDeleted }) => !isDeleted);
  const restored = present.filter((one) => one.restored.length > 0 && !isBroken(one)).length;
  const missing = present.filter((one) => one.missing.length > 0).length;
  const broken = present.filter(isBroken).length;
  const intact = present.filter((one) => one.restored.length === 0 && !isBroken(one)).length;
  const parts = isDryRun
    ? [
        `${count(missing, 'attachment')} would be repaired`,
        broken > missing && `${broken - missing} cannot be`,
      ]
    : [`${count(restored, 'attachment')} repaired`, broken > 0 && `${broken} still broken`];
  const rest = [
    `${intact} intact`,
    orphans.length > 0 && `${orphans.length} left to "cni gc"`,
    unrecorded.length > 0 && `${unrecorded.length} not recorded and not looked at`,
  ];
  return `${[...parts, ...rest].filter(Boolean).join(', ')}.`;
}

/** "default/web-1 on podnet (eth0, 10.1.0.5)" */
export function nameOf(one: HostAttachment): string {
  return `${displayName(one)} on ${one.network} (${[one.ifname, ...one.ips].join(', ')})`;
}

function section(heading: string, lines: readonly string[]): string[] {
  return lines.length > 0 ? [heading, ...lines.map((line) => `  ${line.replaceAll('\n', '\n  ')}`)] : [];
}
