/** Which firewall a host has. */

import type { Family } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import type { BackendName, RegisterUndo } from './backend.ts';
import { hasPrograms, IptablesError, isUsable, type ProbedTable, requireUsable } from './iptables.ts';

/** What the choice of a backend depends on. @typeParam Name of what may be configured besides. */
export interface BackendChoice<Name extends string = never> {
  readonly programs: Programs;
  /** The backend that the configuration names, which leaves nothing to choose. */
  readonly fixed?: BackendName | Name | undefined;
  /** Families of the addresses that rules are for. When there is none, the programs for IPv4 decide. */
  readonly families: readonly Family[];
  /** The table of iptables that rules would be in. */
  readonly table: ProbedTable;
}

/**
 * The backend that the host has, as far as can be told without starting a program: iptables, as in the
 * reference plugins, unless it is not installed.
 */
export function likelyBackend<Name extends string = never>(choice: BackendChoice<Name>): BackendName | Name {
  return choice.fixed || (hasPrograms(choice.programs, familiesOf(choice)) ? 'iptables' : 'nftables');
}

/**
 * Works with the likely backend or, if the host has the programs of iptables but cannot use them, with
 * nftables. The usual case starts no program to find that out.
 * @param work throws IptablesError when iptables refuses something. It changes nothing.
 * @throws what `work` throws.
 */
export async function withBackend<T, Name extends string = never>(
  choice: BackendChoice<Name>,
  work: (name: BackendName | Name) => Promise<T>,
): Promise<T> {
  try {
    return await work(likelyBackend(choice));
  } catch (error) {
    const isOffered = !choice.fixed && error instanceof IptablesError;
    if (!isOffered || (await areUsable(choice))) throw error;
    return work('nftables');
  }
}

/**
 * As {@link withBackend}, for work that changes something. iptables may do it for one family and refuse it
 * for the other: the former is undone before nftables does it for both.
 * @param undo is told how to undo what was done.
 * @param change tells the function that it is given how to undo what it has done.
 * @throws what `change`, or an undo step, throws.
 */
export function changeWithBackend<T, Name extends string = never>(
  choice: BackendChoice<Name>,
  undo: RegisterUndo,
  change: (name: BackendName | Name, undo: RegisterUndo) => Promise<T>,
): Promise<T> {
  const done: (() => Promise<void>)[] = [];
  return withBackend(choice, async (name) => {
    for (let takeBack = done.pop(); takeBack; takeBack = done.pop()) await takeBack();
    return change(name, (what, step) => {
      let isTakenBack = false;
      const takeBack = async () => {
        if (!isTakenBack) await step();
        isTakenBack = true;
      };
      done.push(takeBack);
      undo(what, takeBack);
    });
  });
}

/**
 * As {@link withBackend}, for finding out which rules are missing: where iptables cannot be used, it has no
 * rules.
 * @throws IptablesError when the configuration asks for an iptables that cannot be used.
 */
export function missingWithBackend<Name extends string = never>(
  choice: BackendChoice<Name>,
  look: (name: BackendName | Name) => Promise<string[]>,
): Promise<string[]> {
  return withBackend(choice, async (name) => {
    const missing = await look(name);
    if (name === 'iptables' && missing.length > 0)
      for (const family of familiesOf(choice)) await requireUsable(choice.programs, family, choice.table);
    return missing;
  });
}

/**
 * As {@link missingWithBackend}, for rules that do their work whichever backend has them: those of nftables
 * may be from before iptables was installed.
 * @returns what the likely backend lacks, unless nftables has it all.
 */
export async function missingInBoth(
  choice: BackendChoice,
  look: (name: BackendName) => Promise<string[]>,
): Promise<string[]> {
  const missing = await missingWithBackend(choice, look);
  if (missing.length === 0 || choice.fixed || likelyBackend(choice) === 'nftables') return missing;
  // Where nftables cannot be used, or not with this configuration, it has nothing.
  const inNftables = await look('nftables').catch(() => missing);
  return inNftables.length === 0 ? [] : missing;
}

async function areUsable(choice: BackendChoice<string>): Promise<boolean> {
  const { programs, table } = choice;
  const outcomes = await Promise.all(familiesOf(choice).map((family) => isUsable(programs, family, table)));
  return outcomes.every(Boolean);
}

function familiesOf({ families }: BackendChoice<string>): readonly Family[] {
  return families.length > 0 ? [...new Set(families)] : [4];
}
