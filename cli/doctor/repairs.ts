/** What `cni repair` can do about what the checks find. */

import { readLaunch } from '../../launcher/launch.ts';
import type { RunningAttachment } from '../inventory/running.ts';
import type { HostAttachment } from '../inventory.ts';
import { type Repaired, repairAttachments } from '../repair/attachment.ts';
import { type Finding, shellWord } from './check.ts';
import type { Context } from './context.ts';

/**
 * Finds out which attachments `cni repair` can repair. Nothing is changed.
 * @param isMeant whether what an attachment is missing on the host explains what was found to be amiss.
 * @returns what to say in the findings about them.
 */
export async function findRepairs(
  found: readonly RunningAttachment[],
  { suite, inventory, environment }: Context,
  isMeant: (one: RunningAttachment, missing: readonly string[]) => boolean,
): Promise<Map<RunningAttachment, Pick<Finding, 'cause' | 'fix' | 'apply'>>> {
  const { program } = readLaunch(process.argv);
  const repair = async (all: readonly RunningAttachment[], isDryRun: boolean) => {
    const wanted = all.map(({ attachment }) => attachment);
    const options = { suite, program, environment, isDryRun };
    const outcomes = await repairAttachments(wanted, inventory, options);
    return new Map<HostAttachment, Repaired>(outcomes.map((one) => [one.attachment, one]));
  };
  const plan = await repair(found, true);
  const possible = found.filter((one) => {
    const { missing, problems } = plan.get(one.attachment)!;
    return missing.length > 0 && problems.length === 0 && isMeant(one, missing);
  });
  // Repairs all of them at once, so that their rules get the order they had.
  let repairs: ReturnType<typeof repair> | undefined;
  const apply = async ({ attachment }: RunningAttachment) => {
    repairs ??= repair(possible, false);
    const { missing, problems } = (await repairs).get(attachment)!;
    const left = problems.length > 0 ? problems : missing.map((what) => `${what} is still missing`);
    if (left.length > 0) throw new Error(left.join('; '));
  };
  return new Map(
    possible.map((one) => [
      one,
      {
        cause: `Another program, or an operator, has taken from the host what ADD made: ${firstOf(plan.get(one.attachment)!.missing)}`,
        fix: `cni repair ${shellWord(one.name)}`,
        apply: () => apply(one),
      },
    ]),
  );
}

/** The first two, and how many more there are, which "cni repair --dry-run" lists. */
function firstOf(missing: readonly string[]): string {
  const rest = missing.length - 2;
  return [...missing.slice(0, 2), ...(rest > 0 ? [`and ${rest} more`] : [])].join('; ');
}
