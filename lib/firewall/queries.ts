/**
 * Letting the containers of a network ask a name server on the host, through a firewall that drops packets
 * for the host itself. Rules are the network's: they come with its first container and go with its last.
 */

import type { Programs } from '../kernel/programs.ts';
import { type BackendChoice, missingWithBackend, withBackend } from './backend-choice.ts';
import { familiesOf } from './forward.ts';
import type { Queries } from './queries-backend.ts';
import { allowByIptables, isAllowedByIptables, withdrawFromIptables } from './queries-iptables.ts';
import { allowByNftables, isAllowedByNftables, withdrawFromNftables } from './queries-nftables.ts';

/**
 * Lets queries through, by iptables where it can be used, else by nftables. Doing it twice is no error.
 * @param onChange is called for each change: it is undone by {@link withdrawQueries}, and only once nobody of
 *   the network needs the rules any more.
 */
export async function allowQueries(
  programs: Programs,
  queries: readonly Queries[],
  onChange: () => void,
): Promise<void> {
  await withBackend(choiceFor(programs, queries), async (name) => {
    if (name === 'iptables') await allowByIptables(programs, queries, onChange);
    else allowByNftables(queries, onChange);
  });
}

/** @throws Error when queries do not get through. */
export async function checkQueries(programs: Programs, queries: readonly Queries[]): Promise<void> {
  const missing = await missingWithBackend(choiceFor(programs, queries), async (name) => {
    const isAllowed =
      name === 'iptables' ? await isAllowedByIptables(programs, queries) : isAllowedByNftables(queries);
    return isAllowed ? [] : [name];
  });
  if (missing.length > 0)
    throw new Error(
      'The firewall lacks rules that let containers ask their name server. Add any container to the network to set them up again',
    );
}

/** Withdraws all that a network was allowed, in either firewall. It is no error when there is nothing. */
export async function withdrawQueries(programs: Programs, network: string): Promise<void> {
  try {
    await withdrawFromIptables(programs, network);
  } finally {
    withdrawFromNftables(network);
  }
}

function choiceFor(programs: Programs, queries: readonly Queries[]): BackendChoice {
  return { programs, families: familiesOf(queries.map(({ to }) => to)), table: 'filter' };
}
