/** Whether the host's route to each pod leads to it, and whether the kernel accepts what comes back. */

import { Address } from '../../lib/ip.ts';
import type { Link } from '../../lib/kernel/link.ts';
import { lookUpRoute } from '../../lib/kernel/route.ts';
import { openRouteSocket, type RouteSocket } from '../../lib/kernel/route-socket.ts';
import { readSysctl, writeSysctl } from '../../lib/kernel/sysctl.ts';
import { isKernelError } from '../../lib/netlink/libc.ts';
import { ingressOf, isRouted, type RunningAttachment } from '../inventory/running.ts';
import { type Check, type Finding, shellWord } from './check.ts';
import type { Context } from './context.ts';
import { findRepairs } from './repairs.ts';

/** A pod's address that the host reaches by a different interface than the pod's packets come in by. */
interface Detour {
  readonly one: RunningAttachment;
  readonly ip: string;
  /** Where the pod's packets come in. */
  readonly ingress: Link;
  /** Where the host's packets go out; undefined when there is no route. */
  readonly egress: Link | undefined;
}

export const routes: Check = {
  id: 'routes',
  title: 'Routes to pods',
  async run(context) {
    const { detours, count } = detoursOf(context);
    const found = [...new Set(detours.map(({ one }) => one))];
    const repairs = await findRepairs(found, context, () => true);
    return {
      findings: detours.map((detour) => ({ ...detourFinding(detour), ...repairs.get(detour.one) })),
      seen: `the host has a route to each of ${count} addresses`,
    };
  },
};

function detourFinding({ one, ip, ingress, egress }: Detour): Finding {
  return {
    severity: 'error',
    subject: `${one.name} ${ip}`,
    message: `Packets to ${ip} of pod "${one.name}" ${egress ? `leave by "${egress.name}"` : 'have no route'}, and must leave by "${ingress.name}"`,
    cause: egress
      ? 'Another route or address covers the same subnet, or the one that ADD made was removed'
      : 'The route or address that ADD made was removed, or the interface is down',
    fix: `ip route replace ${ip} dev ${shellWord(ingress.name)}`,
  };
}

export const reversePath: Check = {
  id: 'rp-filter',
  title: 'Reverse path filter',
  run(context) {
    const strict = detoursOf(context)
      .detours.filter(({ ip, ingress }) => !ip.includes(':') && isStrict(ingress.name))
      .map(({ one, ip, ingress }) =>
        strictFinding(
          'error',
          ingress.name,
          `What pod "${one.name}" sends from ${ip} is dropped at interface "${ingress.name}"`,
          "The filter is strict, and the host's route to the pod does not lead to that interface",
        ),
      );
    const uplinks = (context.uplinks.get(4) ?? []).filter(({ name }) => isStrict(name));
    const several = (context.uplinks.get(4) ?? []).length > 1;
    const findings = [
      ...strict,
      ...(several ? uplinks : []).map(({ name }) =>
        strictFinding(
          'warning',
          name,
          `Answers to pods that come in by "${name}" are dropped when the route to their sender leads to another uplink`,
          'The filter is strict, and the host has several default routes',
        ),
      ),
    ];
    return { findings, seen: "no filter drops pods' packets" };
  },
};

function strictFinding(severity: Finding['severity'], link: string, message: string, cause: string): Finding {
  const path = ['ipv4', 'conf', link, 'rp_filter'];
  return {
    severity,
    subject: `net/${path.join('/')}`,
    message: `${message}: its reverse path filter is 1 (strict), and must be 2 (loose) or 0`,
    cause,
    // The kernel uses the larger of this value and that of "all".
    fix: `sysctl -w ${shellWord(`net/${path.join('/')}=2`)}`,
    apply: () => writeSysctl(path, '2'),
  };
}

function isStrict(link: string): boolean {
  const values = ['all', link].map((name) => Number(readSysctl(['ipv4', 'conf', name, 'rp_filter']) ?? 0));
  return Math.max(...values) === 1;
}

function detoursOf({ running, inventory: { links } }: Context): { detours: Detour[]; count: number } {
  using socket = openRouteSocket();
  let count = 0;
  const detours = running.filter(isRouted).flatMap((one) => {
    const ingress = ingressOf(one, links);
    // A VRF has routes of its own, and a network with VLANs has its gateway on an interface of the VLAN.
    if (!ingress || ingress.master) return [];
    return one.attachment.ips.flatMap((ip) => {
      count++;
      const egress = egressOf(ip, socket, links);
      const isRight = egress && (egress.name === ingress.name || egress.name.startsWith(`${ingress.name}.`));
      return isRight ? [] : [{ one, ip, ingress, egress }];
    });
  });
  return { detours, count };
}

function egressOf(ip: string, socket: RouteSocket, links: readonly Link[]): Link | undefined {
  try {
    const route = lookUpRoute(socket, Address.parse(ip));
    return links.find(({ index }) => index === route?.link);
  } catch (error) {
    if (isKernelError(error, 'ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL')) return undefined;
    throw error;
  }
}
