/** CHECK of the interface that a main plugin put into a sandbox: its settings, addresses and routes. */

import { listAddresses } from '../kernel/address.ts';
import { getLink, type Link } from '../kernel/link.ts';
import { listRoutes } from '../kernel/route.ts';
import type { Sandbox } from '../kernel/sandbox.ts';
import type { Call } from './call.ts';
import { type InterfaceOptions, nextHop } from './interface.ts';
import { requirePrevResult } from './plugin.ts';
import type { Interface, IPConfig, Result } from './result.ts';

/**
 * The interface that ADD put into the sandbox, as the result describes it.
 * @throws Error when the result has none.
 */
function sandboxInterface(call: Call, result: Result): { index: number; entry: Interface } {
  const index = result.interfaces.findIndex(
    ({ name, sandbox }) => name === call.ifname && sandbox === call.netns,
  );
  const entry = result.interfaces[index];
  if (entry) return { index, entry };
  throw new Error(
    `"prevResult" has no interface "${call.ifname}" in sandbox "${call.netns}". Pass the result of this attachment's ADD`,
  );
}

/** What CHECK has found to be in order, for the plugin's own checks. */
export interface CheckedInterface {
  readonly link: Link;
  /** The interface as the result describes it. */
  readonly entry: Interface;
}

/**
 * CHECK of what {@link configureInterface} made: the link is there, of the right kind, up, with its MAC,
 * addresses and routes.
 * @throws Error for the first difference.
 */
export function checkInterface(call: Call, kind: string, options: InterfaceOptions = {}): CheckedInterface {
  const result = requirePrevResult(call);
  const { index, entry } = sandboxInterface(call, result);
  const { sandbox } = call;
  const link = getLink(sandbox.socket, call.ifname);
  if (!link)
    throw new Error(
      `Interface "${call.ifname}" is missing from the sandbox. Delete the container and add it again`,
    );
  if (kind && link.kind !== kind)
    throw new Error(
      `Interface "${call.ifname}" is of kind "${link.kind}", but should be "${kind}". Delete the container and add it again`,
    );
  if (entry.mac && entry.mac !== link.mac)
    throw new Error(
      `Interface "${call.ifname}" has MAC address ${link.mac}, but should have ${entry.mac}. Set it with "${inSandbox(call, `ip link set ${call.ifname} address ${entry.mac}`)}"`,
    );
  if (!link.up && !options.keepDown)
    throw new Error(
      `Interface "${call.ifname}" is down in the sandbox. Bring it up with "${inSandbox(call, `ip link set ${call.ifname} up`)}"`,
    );
  checkAddresses(
    call,
    link,
    result.ips.filter((ip) => ip.interface === undefined || ip.interface === index),
  );
  checkRoutes(call, call.sandbox, result);
  return { link, entry };
}

/** The command line that runs another one in the network namespace of the sandbox. Source: nsenter(1). */
function inSandbox({ netns }: Pick<Call, 'netns'>, commandLine: string): string {
  return `nsenter --net=${netns} ${commandLine}`;
}

function checkAddresses(call: Call, link: Link, ips: readonly IPConfig[]): void {
  const present = listAddresses(call.sandbox.socket, link.index);
  for (const { address } of ips)
    if (!present.some(({ prefix }) => prefix.equals(address)))
      throw new Error(
        `Interface "${link.name}" has no address ${address}; it has ${present.map(({ prefix }) => prefix).join(', ') || 'none'}. ` +
          `Add it with "${inSandbox(call, `ip address add ${address} dev ${link.name}`)}"`,
      );
}

/**
 * CHECK of the routes of a result. Later plugins may have added routes or changed gateways of the default
 * route, so only what is missing counts.
 * @throws Error for the first one that the sandbox does not have.
 */
export function checkRoutes(
  attached: Pick<Call, 'netns' | 'ifname'>,
  { socket }: Sandbox,
  result: Result,
): void {
  for (const family of [4, 6] as const) {
    const wanted = result.routes.filter(({ dst }) => dst.family === family);
    if (wanted.length === 0) continue;
    const present = listRoutes(socket, { family });
    for (const one of wanted) {
      const { dst, gw, table } = one;
      const found = present.some(
        (route) =>
          route.dst.equals(dst.network) &&
          (table === undefined || route.table === table) &&
          (dst.length === 0 || !gw || gw.equals(route.gw) || route.hops.some((hop) => gw.equals(hop.gw))),
      );
      if (found) continue;
      const via = nextHop(one, result.ips);
      // With "onlink", since the route to the gateway itself may be gone as well.
      const hop = via ? ['via', via, 'dev', attached.ifname, 'onlink'] : ['dev', attached.ifname];
      const route = [dst, ...hop, ...(table ? ['table', table] : [])].join(' ');
      throw new Error(
        `The sandbox has no route to ${dst}${gw && dst.length > 0 ? ` via ${gw}` : ''}. ` +
          `Add it with "${inSandbox(attached, `ip route add ${route}`)}"`,
      );
    }
  }
}
