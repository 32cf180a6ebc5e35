/** Queueing disciplines and packet filters. Sources: tc(8), tc-tbf(8), linux/pkt_sched.h, linux/pkt_cls.h. */

import { attributes, container, layout, list, text } from '../netlink/attributes.ts';
import { isKernelError } from '../netlink/libc.ts';
import { Flag, type Message, type Request } from '../netlink/message.ts';
import { be16, each, i32, struct, u8, u16, u32, u64 } from '../netlink/struct.ts';
import type { RouteSocket } from './route-socket.ts';

const RTM_NEWQDISC = 36;
const RTM_DELQDISC = 37;
const RTM_GETQDISC = 38;
const RTM_NEWTFILTER = 44;
const RTM_DELTFILTER = 45;
const RTM_GETTFILTER = 46;

const TC_H_ROOT = 0xffffffff;
const TC_H_INGRESS = 0xfffffff1;
/** Incoming packets, on a qdisc "ingress" as well as on a "clsact". */
const TC_H_MIN_INGRESS = 0xfffffff2;
const TC_U32_TERMINAL = 1;
const TC_ACT_STOLEN = 4;
const TCA_EGRESS_REDIR = 1;
/** ETH_P_ALL in network byte order. */
const ETH_P_ALL = 0x0300;
const tokenBucketHandle = 0x0001_0000;
const ingressHandle = 0xffff_0000;

const tcmsg = struct({ family: u8, link: i32, handle: u32, parent: u32, info: u32 });

/** struct tc_ratespec. */
const rateSpec = struct({ cellLog: u8, linkLayer: u8, overhead: u16, cellAlign: u16, mpu: u16, rate: u32 });
/** struct tc_tbf_qopt. */
const tokenBucketParameters = struct({
  rate: rateSpec,
  peakRate: rateSpec,
  limit: u32,
  buffer: u32,
  mtu: u32,
});
const tokenBucketOptions = attributes({
  parameters: [1, tokenBucketParameters],
  rate64: [4, u64],
});
const qdiscLayout = layout(tcmsg, attributes({ kind: [1, text], options: [2, container()] }));

/** struct tc_u32_sel with one key. */
const selector = struct({
  ...each(u8, 'flags', 'offsetShift', 'keys'),
  offsetMask: be16,
  ...each(u16, 'offset', 'offsetOffset', 'hashOffset'),
  ...each(u32, 'hashMask', 'mask', 'value', 'at', 'atMask'),
});
/** struct tc_mirred. */
const redirection = struct(
  each(u32, 'index', 'capabilities', 'action', 'references', 'bindings', 'egressAction', 'link'),
);
const action = attributes({ kind: [1, text], options: [2, attributes({ redirection: [2, redirection] })] });
const filterOptions = attributes({ classId: [1, u32], selector: [5, selector], actions: [7, list(action)] });
/** What the options mean depends on the kind. */
const filterLayout = layout(tcmsg, attributes({ kind: [1, text], options: [2, container()] }));

const maxU32 = 0xffffffff;
/** The kernel counts in units of 64 ns (PSCHED_SHIFT). */
const ticksPerMicrosecond = 15.625;

/** A token bucket filter: so many bytes per second, more in a burst, and the rest waits or is dropped. */
export interface TokenBucket {
  /** Bytes per second. */
  rate: number;
  /** The burst, as the time it takes at this rate, in ticks of 64 ns. */
  buffer: number;
  /** Bytes that may wait. */
  limit: number;
}

/**
 * The token bucket for a rate and a burst.
 * @param rate in bytes per second.
 * @param burst in bytes.
 * @param latency how long a packet may wait at most, in seconds.
 * @param toU32 makes a number fit into 32 bits.
 */
export function tokenBucket(rate: number, burst: number, latency: number, toU32 = saturate): TokenBucket {
  const microseconds = toU32((burst * 1e6) / rate);
  return { rate, buffer: toU32(microseconds * ticksPerMicrosecond), limit: toU32(rate * latency + burst) };
}

/** Replaces a number that is too high by the highest one that fits. */
function saturate(value: number): number {
  return Math.min(Math.floor(value), maxU32);
}

/**
 * Drops the bits that do not fit, as the reference plugin does on processors that do: a large burst may come
 * out small, and so may the number of bytes that may wait.
 */
export function wrap(value: number): number {
  return Math.floor(value) % (maxU32 + 1);
}

/** Shapes what leaves by an interface. EEXIST when a qdisc of the same kind does already. */
export function addTokenBucket(link: number, { rate, buffer, limit }: TokenBucket, label: string): Request {
  const parameters = { rate: { rate: Math.min(rate, maxU32) }, limit, buffer };
  const rate64 = rate > maxU32 ? BigInt(rate) : undefined;
  return {
    action: `limit what leaves by interface "${label}"`,
    type: RTM_NEWQDISC,
    flags: Flag.Create | Flag.Exclusive,
    payload: qdiscLayout.encode(
      { link, handle: tokenBucketHandle, parent: TC_H_ROOT },
      { kind: 'tbf', options: tokenBucketOptions.encode({ parameters, rate64 }) },
    ),
  };
}

/** Reads what {@link addTokenBucket} set. @returns undefined when the interface is not shaped in this way. */
export function getTokenBucket(socket: RouteSocket, link: number): TokenBucket | undefined {
  const reply = socket.execute({
    action: `look up how interface ${link} is limited`,
    type: RTM_GETQDISC,
    flags: Flag.Echo,
    payload: tcmsg.encode({ link, parent: TC_H_ROOT }),
  })[0]?.[0];
  const { kind, options } = reply ? qdiscLayout.decode(reply.payload) : {};
  if (kind !== 'tbf' || !options) return undefined;
  const { parameters, rate64 } = tokenBucketOptions.decode(options);
  if (!parameters) return undefined;
  const { rate, buffer, limit } = parameters;
  return { rate: rate64 === undefined ? rate.rate : Number(rate64), buffer, limit };
}

/** Removes what {@link addTokenBucket} added. */
export function deleteTokenBucket(link: number, label: string): Request {
  return {
    action: `lift the limit of interface "${label}"`,
    type: RTM_DELQDISC,
    flags: 0,
    payload: tcmsg.encode({ link, handle: tokenBucketHandle, parent: TC_H_ROOT }),
  };
}

/** Makes it possible to filter what comes in by an interface. EEXIST when it already is. */
export function addIngress(link: number, label: string): Request {
  return {
    action: `filter what comes in by interface "${label}"`,
    type: RTM_NEWQDISC,
    flags: Flag.Create | Flag.Exclusive,
    payload: qdiscLayout.encode({ link, handle: ingressHandle, parent: TC_H_INGRESS }, { kind: 'ingress' }),
  };
}

/** Removes what {@link addIngress} added, with all filters on it. */
export function deleteIngress(link: number, label: string): Request {
  return {
    action: `no longer filter what comes in by interface "${label}"`,
    type: RTM_DELQDISC,
    flags: 0,
    payload: tcmsg.encode({ link, handle: ingressHandle, parent: TC_H_INGRESS }),
  };
}

/**
 * Sends everything that comes in by an interface out by another one, which may send it back once it has been
 * shaped. The kernel answers with the filter, which {@link deleteFilter} takes.
 */
export function redirectIngress(link: number, to: number, label: string): Request {
  const priority = 1;
  return {
    action: `redirect what comes in by interface "${label}"`,
    type: RTM_NEWTFILTER,
    flags: Flag.Create | Flag.Exclusive | Flag.Echo,
    payload: filterLayout.encode(
      { link, parent: TC_H_MIN_INGRESS, info: (priority << 16) | ETH_P_ALL },
      {
        kind: 'u32',
        options: filterOptions.encode({
          classId: 0x0001_0001,
          // A key whose mask is zero matches everything.
          selector: { flags: TC_U32_TERMINAL, keys: 1 },
          actions: [
            {
              kind: 'mirred',
              options: { redirection: { action: TC_ACT_STOLEN, egressAction: TCA_EGRESS_REDIR, link: to } },
            },
          ],
        }),
      },
    ),
  };
}

/** Removes exactly this filter. @param filter as the kernel reported it. */
export function deleteFilter({ payload }: Pick<Message, 'payload'>, label: string): Request {
  const { kind } = filterLayout.decode(payload);
  return {
    action: `remove a filter from interface "${label}"`,
    type: RTM_DELTFILTER,
    flags: 0,
    payload: filterLayout.encode(tcmsg.decode(payload), { kind }),
  };
}

/** A filter that redirects what comes in by an interface. {@link deleteFilter} takes it. */
export interface Redirection {
  /** Index of the interface that packets are sent to; 0 when it no longer exists, and they are dropped. */
  readonly to: number;
  /** Whether it leaves no packet to later filters, like that of {@link redirectIngress}. */
  readonly takesAll: boolean;
  /** The kernel's message about the filter. */
  readonly payload: Uint8Array;
}

/** The filters that redirect what comes in by an interface, in the order in which packets meet them. */
export function ingressRedirections(socket: RouteSocket, link: number): Redirection[] {
  let messages: Message[];
  try {
    messages = socket.dump({
      action: `list filters of interface ${link}`,
      type: RTM_GETTFILTER,
      flags: 0,
      payload: tcmsg.encode({ link, parent: TC_H_MIN_INGRESS }),
    });
  } catch (error) {
    // No qdisc to filter on.
    if (isKernelError(error, 'EINVAL', 'ENOENT')) return [];
    throw error;
  }
  return messages.flatMap(({ payload }) => {
    const { kind, options } = filterLayout.decode(payload);
    if (kind !== 'u32' || !options) return [];
    const protocol = tcmsg.decode(payload).info & 0xffff;
    const { selector, actions = [] } = filterOptions.decode(options);
    const matchesAll = protocol === ETH_P_ALL && selector?.keys === 1 && selector.mask === 0;
    return actions.flatMap(({ options: { redirection } = {} }) => {
      if (!redirection) return [];
      const { link: to, action, egressAction } = redirection;
      const isTaken = action === TC_ACT_STOLEN && egressAction === TCA_EGRESS_REDIR;
      return [{ to, takesAll: matchesAll && isTaken, payload }];
    });
  });
}
