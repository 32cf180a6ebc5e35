/** Whether the largest packets that a pod may send fit through every link on their way. */

import { getLink, type Link } from '../../lib/kernel/link.ts';
import { Netns } from '../../lib/kernel/netns.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import { hasFamily, isRouted, type RunningAttachment } from '../inventory/running.ts';
import { count } from '../terminal.ts';
import { type Check, type Finding, shellWord } from './check.ts';
import type { Context } from './context.ts';

/** A pod's interface, and what is at its other end. */
interface Wire {
  readonly one: RunningAttachment;
  readonly inside: Link;
  /** The other end of its veth pair; undefined for other kinds. */
  readonly outside: Link | undefined;
}

export const mtu: Check = {
  id: 'mtu',
  title: 'MTU',
  run(context) {
    const wires = context.running.flatMap((one) => wireOf(one, context) ?? []);
    const findings = [
      ...unequalEnds(wires),
      ...unequalPods(wires, context),
      ...narrowUplinks(wires, context),
    ];
    return {
      findings,
      seen: `packets of ${count(wires.length, 'pod interface')} fit through bridges and uplinks`,
    };
  },
};

function wireOf(one: RunningAttachment, { inventory: { links } }: Context): Wire | undefined {
  using netns = Netns.openIfPresent(one.attachment.netns);
  if (!netns) return undefined;
  using socket = openRouteSocket(netns);
  const inside = getLink(socket, one.attachment.ifname);
  if (!inside) return undefined; // CHECK reports it.
  const outside = links.find(
    ({ index, name, kind }) =>
      inside.kind === 'veth' &&
      kind === 'veth' &&
      index === inside.parent &&
      one.attachment.hostInterfaces.includes(name),
  );
  return { one, inside, outside };
}

function unequalEnds(wires: readonly Wire[]): Finding[] {
  return wires.flatMap(({ one, inside, outside }) =>
    !outside || outside.mtu === inside.mtu
      ? []
      : [
          {
            severity: 'error',
            subject: `${one.name} ${inside.name}`,
            message: `"${inside.name}" of pod "${one.name}" has an MTU of ${inside.mtu}, and its other end "${outside.name}" one of ${outside.mtu}: what is larger than the smaller of them is lost`,
            cause: 'One end of the veth pair was changed since ADD made both alike',
            fix: `ip link set dev ${shellWord(outside.name)} mtu ${inside.mtu}`,
          },
        ],
  );
}

function unequalPods(wires: readonly Wire[], { inventory: { links } }: Context): Finding[] {
  const onBridges = Map.groupBy(wires, ({ outside }) => outside?.master);
  return links.flatMap((bridge) => {
    const own = bridge.kind === 'bridge' ? (onBridges.get(bridge.index) ?? []) : [];
    const smallest = Math.min(...own.map(({ inside }) => inside.mtu));
    const larger = own.filter(({ inside }) => inside.mtu > smallest);
    if (larger.length === 0) return [];
    return [
      {
        severity: 'warning',
        subject: bridge.name,
        message: `Pods on bridge "${bridge.name}" differ in MTU, ${smallest} bytes but ${describe(larger)}: larger packets between them are lost`,
        cause: 'The MTU of the network was changed while pods were attached',
        fix: shrink(larger, smallest),
      },
    ];
  });
}

function narrowUplinks(wires: readonly Wire[], { uplinks }: Context): Finding[] {
  const narrowestOf = ({ one }: Wire) =>
    [...uplinks]
      .filter(([family]) => hasFamily(one, family))
      .flatMap(([, links]) => links)
      .toSorted((a, b) => a.mtu - b.mtu)[0];
  const wider = wires.flatMap((wire) => {
    const uplink = isRouted(wire.one) ? narrowestOf(wire) : undefined;
    return uplink && wire.inside.mtu > uplink.mtu ? [{ wire, uplink }] : [];
  });
  return [...Map.groupBy(wider, ({ uplink }) => uplink)].map(([uplink, some]) => {
    const those = some.map(({ wire }) => wire);
    return {
      severity: 'warning',
      subject: uplink.name,
      message: `Uplink "${uplink.name}" has an MTU of ${uplink.mtu}, but pods of ${describe(those)}: their connections hang where ICMP is filtered`,
      cause: `The network does not set "mtu" to ${uplink.mtu}; set it for pods to come`,
      fix: shrink(those, uplink.mtu),
    };
  });
}

function describe(wires: readonly Wire[]): string {
  return wires.map(({ one, inside }) => `${inside.mtu} (${one.name})`).join(', ');
}

/** Shrinks both ends, as packets that are too large for one end are lost. */
function shrink(wires: readonly Wire[], bytes: number): string {
  return wires
    .map(({ one, inside, outside }) =>
      [
        `nsenter --net=${shellWord(one.attachment.netns)} ip link set dev ${shellWord(inside.name)} mtu ${bytes}`,
        ...(outside ? [`ip link set dev ${shellWord(outside.name)} mtu ${bytes}`] : []),
      ].join(' && '),
    )
    .join(' && ');
}
