/** Checks of a configuration that several plugins make before they do anything. */

import type { Address, Prefix } from '../ip.ts';

/** Interfaces with a smaller MTU carry no IPv4: IPV4_MIN_MTU of net/ip.h. In bytes. */
const smallestMtu = 68;

/**
 * Refuses a configuration, naming everything that is wrong with it.
 * @param problems what is wrong; false and undefined stand for no problem.
 * @throws AggregateError with an error for each problem, and all their messages in its own.
 */
export function refuse(...problems: readonly (string | false | undefined)[]): void {
  const messages = problems.filter((problem) => typeof problem === 'string');
  if (messages.length === 0) return;
  throw new AggregateError(
    messages.map((message) => new Error(message)),
    messages.join('. '),
  );
}

/** What is wrong with an MTU. 0 is allowed, and leaves the choice to the kernel. */
export function mtuProblem(mtu = 0): string | undefined {
  if (mtu === 0 || mtu >= smallestMtu) return undefined;
  return `"mtu" is ${mtu}, but interfaces need ${smallestMtu} bytes for IPv4 and 1280 for IPv6. Raise it, or leave it out`;
}

/** What is wrong with the gateways of routes. */
export function routeProblems(routes: readonly { dst: Prefix; gw?: Address }[] = []): string[] {
  return routes.flatMap(({ dst, gw }) =>
    gw && gw.family !== dst.family
      ? [
          `The route to "${dst}" has the gateway "${gw}", which is of the other family. Give it one of IPv${dst.family}`,
        ]
      : [],
  );
}
