/** What a DHCP server grants. Sources: RFC 2131, section 4.4.5; RFC 2132; RFC 3442. */

import { emptyResult, type Result, type Route } from '../../lib/cni/result.ts';
import { CniError, ErrorCode } from '../../lib/errors.ts';
import { type Address, Prefix } from '../../lib/ip.ts';
import { msSinceBoot } from '../../lib/kernel/boot.ts';
import {
  addressesOption,
  classfulRoutes,
  classlessRoutes,
  type DhcpMessage,
  MessageType,
  maskLength,
  numberOption,
  Option,
  typeOf,
} from './packet.ts';

/** What a server granted; times as of {@link msSinceBoot}. */
export interface Grant {
  address: Prefix;
  server: Address;
  gateway: Address | undefined;
  routes: Route[];
  renewAt: number;
  rebindAt: number;
  expiresAt: number;
}

/** Lease time in seconds where the server gives none. */
const defaultLease = 3600;
/** Seconds that stand for an infinite lease. */
const longestLease = 0xffffffff;
/** What the sandbox gets. */
export function resultOf({ address, gateway, routes }: Grant): Result {
  return { ...emptyResult(), ips: [{ address, ...(gateway && { gateway }) }], routes };
}

/**
 * Whether an answer says which server gives it and, if it grants something, which address.
 * @param kept the address that the client has and asks to keep, if there is one: no other is an answer then.
 */
export function isUsable(answer: DhcpMessage, kept?: Address): boolean {
  if (answer.options.get(Option.ServerIdentifier)?.length !== 4) return false;
  if (typeOf(answer) === MessageType.Nak) return true;
  const { yourAddress } = answer;
  if (!yourAddress || yourAddress.isUnspecified || yourAddress.isMulticast) return false;
  return kept?.equals(yourAddress) ?? true;
}

/**
 * Reads what an acknowledgement grants, and fills in the times that the server left out.
 * @param answer see {@link isUsable}.
 * @param previous what is renewed: some servers name only new times for that, without the netmask.
 * @throws CniError when it has no netmask, or one with holes.
 */
export function readGrant(answer: DhcpMessage, previous?: Grant): Grant {
  const server = addressesOption(answer, Option.ServerIdentifier)[0]!;
  const mask = addressesOption(answer, Option.SubnetMask)[0];
  if (!mask && previous) return { ...previous, server, ...timesOf(answer) };
  const length = maskLength(mask);
  if (length === undefined)
    throw new CniError(
      ErrorCode.Internal,
      `DHCP server ${server} grants ${answer.yourAddress} with ${mask ? `netmask ${mask}, which is not a valid netmask` : 'no netmask'}. Have it send option 1, as in 255.255.255.0`,
    );
  const gateway = addressesOption(answer, Option.Router)[0];
  return {
    address: new Prefix(answer.yourAddress!, length),
    server,
    gateway,
    routes: routesOf(answer, gateway),
    ...timesOf(answer),
  };
}

function timesOf(answer: DhcpMessage): Pick<Grant, 'renewAt' | 'rebindAt' | 'expiresAt'> {
  const seconds = Math.max(numberOption(answer, Option.LeaseTime) ?? defaultLease, 1);
  const now = msSinceBoot();
  const after = (share: number) => now + seconds * 1000 * share;
  const at = (option: number, share: number) => {
    // With a time of 0 the lease would be renewed without a pause.
    const value = numberOption(answer, option) ?? 0;
    return value > 0 && value < seconds ? now + value * 1000 : after(share);
  };
  return {
    renewAt: at(Option.RenewalTime, 0.5),
    rebindAt: at(Option.RebindingTime, 0.875),
    expiresAt: seconds === longestLease ? Number.MAX_SAFE_INTEGER : after(1),
  };
}

/** Classless routes replace the router option and static routes: RFC 3442, "DHCP Client Behavior". */
function routesOf(answer: DhcpMessage, gateway: Address | undefined): Route[] {
  const scopeLink = 253;
  const classless = classlessRoutes(answer);
  if (classless)
    return classless.map(({ dst, router }) =>
      router.isUnspecified ? { dst, scope: scopeLink } : { dst, gw: router },
    );
  return [
    ...classfulRoutes(answer).map(({ dst, router }) => ({ dst, gw: router })),
    ...(gateway ? [{ dst: Prefix.parse('0.0.0.0/0'), gw: gateway }] : []),
  ];
}
