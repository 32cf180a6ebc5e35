/** Queueing disciplines and packet filters. Sources: tc(8), tc-tbf(8), linux/pkt_sched.h, linux/pkt_cls.h. */

import { isKernelError } from '../netlink/libc.ts';
import {
  Attributes,
  bytesAttr,
  concat,
  Flag,
  listAttributes,
  nestedAttr,
  numberBytes,
  type Request,
  stringAttr,
  u64Attr,
  viewOf,
} from '../netlink/message.ts';
import type { RouteSocket } from './route-socket.ts';

const RTM_NEWQDISC = 36;
const RTM_DELQDISC = 37;
const RTM_GETQDISC = 38;
const RTM_NEWTFILTER = 44;
const RTM_GETTFILTER = 46;

const TC_H_ROOT = 0xffffffff;
const TC_H_INGRESS = 0xfffffff1;
/** What comes in, on a qdisc "ingress" as well as on a "clsact". */
const TC_H_MIN_INGRESS = 0xfffffff2;
const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_TBF_PARMS = 1;
const TCA_TBF_RATE64 = 4;
const TCA_U32_CLASSID = 1;
const TCA_U32_SEL = 5;
const TCA_U32_ACT = 7;
const TCA_ACT_KIND = 1;
const TCA_ACT_OPTIONS = 2;
const TCA_MIRRED_PARMS = 2;
const TC_ACT_STOLEN = 4;
const TCA_EGRESS_REDIR = 1;
const ETH_P_ALL = 3;

const maxU32 = 0xffffffff;
/** The kernel counts in units of 64 ns (PSCHED_SHIFT). */
const ticksPerMicrosecond = 15.625;

/** A token bucket filter: so many bytes a second, more in a burst, and the rest waits or is dropped. */
export interface TokenBucket {
  /** Bytes a second. */
  rate: number;
  /** The burst, as the time it takes at this rate, in ticks of 64 ns. */
  buffer: number;
  /** Bytes that may wait. */
  limit: number;
}

/**
 * The token bucket for a rate and a burst.
 * @param rate in bytes a second.
 * @param burst in bytes.
 * @param latency how long a packet may wait at most, in seconds.
 */
export function tokenBucket(rate: number, burst: number, latency: number): TokenBucket {
  const microseconds = Math.floor((burst * 1e6) / rate);
  return {
    rate,
    buffer: Math.min(Math.floor(microseconds * ticksPerMicrosecond), maxU32),
    limit: Math.min(Math.floor(rate * latency + burst), maxU32),
  };
}

/** Shapes what leaves by an interface. */
export function addTokenBucket(link: number, { rate, buffer, limit }: TokenBucket, label: string): Request {
  // struct tc_tbf_qopt
  const parameters = numberBytes(36, (view) => {
    view.setUint32(8, Math.min(rate, maxU32), true);
    view.setUint32(24, limit, true);
    view.setUint32(28, buffer, true);
  });
  const options = [bytesAttr(TCA_TBF_PARMS, parameters)];
  if (rate > maxU32) options.push(u64Attr(TCA_TBF_RATE64, BigInt(rate)));
  return {
    action: `limit what leaves by interface "${label}"`,
    type: RTM_NEWQDISC,
    flags: Flag.Create | Flag.Exclusive,
    payload: concat([
      trafficHeader(link, TC_H_ROOT, 0x00010000),
      stringAttr(TCA_KIND, 'tbf'),
      nestedAttr(TCA_OPTIONS, options),
    ]),
  };
}

/** Reads what {@link addTokenBucket} set. @returns undefined when the interface is not shaped in this way. */
export function getTokenBucket(socket: RouteSocket, link: number): TokenBucket | undefined {
  const reply = socket.execute({
    action: `look up how interface ${link} is limited`,
    type: RTM_GETQDISC,
    flags: Flag.Echo,
    payload: trafficHeader(link, TC_H_ROOT),
  })[0]?.[0];
  const attributes = reply && new Attributes(reply.payload.subarray(20));
  if (attributes?.string(TCA_KIND) !== 'tbf') return undefined;
  const options = attributes.nested(TCA_OPTIONS)!;
  const view = viewOf(options.bytes(TCA_TBF_PARMS)!);
  const wide = options.u64(TCA_TBF_RATE64);
  return {
    rate: wide === undefined ? view.getUint32(8, true) : Number(wide),
    buffer: view.getUint32(28, true),
    limit: view.getUint32(24, true),
  };
}

/** Removes what {@link addTokenBucket} added. */
export function deleteTokenBucket(link: number, label: string): Request {
  return {
    action: `lift the limit of interface "${label}"`,
    type: RTM_DELQDISC,
    flags: 0,
    payload: trafficHeader(link, TC_H_ROOT),
  };
}

/** Makes it possible to filter what comes in by an interface. EEXIST when it is already. */
export function addIngress(link: number, label: string): Request {
  return {
    action: `filter what comes in by interface "${label}"`,
    type: RTM_NEWQDISC,
    flags: Flag.Create | Flag.Exclusive,
    payload: concat([trafficHeader(link, TC_H_INGRESS, 0xffff0000), stringAttr(TCA_KIND, 'ingress')]),
  };
}

/** Removes what {@link addIngress} added, with all filters on it. */
export function deleteIngress(link: number, label: string): Request {
  return {
    action: `no longer filter what comes in by interface "${label}"`,
    type: RTM_DELQDISC,
    flags: 0,
    payload: trafficHeader(link, TC_H_INGRESS, 0xffff0000),
  };
}

/** Sends everything that comes in by an interface out by another one, which may put it back once it has been shaped. */
export function redirectIngress(link: number, to: number, label: string): Request {
  // struct tc_u32_sel with one key that matches everything; 1 is TC_U32_TERMINAL.
  const selector = numberBytes(32, (view) => {
    view.setUint8(0, 1);
    view.setUint8(2, 1);
  });
  // struct tc_mirred
  const redirect = numberBytes(28, (view) => {
    view.setInt32(8, TC_ACT_STOLEN, true);
    view.setInt32(20, TCA_EGRESS_REDIR, true);
    view.setUint32(24, to, true);
  });
  const classId = numberBytes(4, (view) => view.setUint32(0, 0x00010001, true));
  const priority = 1;
  return {
    action: `redirect what comes in by interface "${label}"`,
    type: RTM_NEWTFILTER,
    flags: Flag.Create | Flag.Exclusive,
    payload: concat([
      trafficHeader(link, TC_H_MIN_INGRESS, 0, (priority << 16) | (ETH_P_ALL << 8)),
      stringAttr(TCA_KIND, 'u32'),
      nestedAttr(TCA_OPTIONS, [
        bytesAttr(TCA_U32_CLASSID, classId),
        bytesAttr(TCA_U32_SEL, selector),
        nestedAttr(TCA_U32_ACT, [
          nestedAttr(1, [
            stringAttr(TCA_ACT_KIND, 'mirred'),
            nestedAttr(TCA_ACT_OPTIONS, [bytesAttr(TCA_MIRRED_PARMS, redirect)]),
          ]),
        ]),
      ]),
    ]),
  };
}

/** Indices of the interfaces that {@link redirectIngress} sends packets to. */
export function ingressRedirects(socket: RouteSocket, link: number): number[] {
  let messages: ReturnType<RouteSocket['dump']>;
  try {
    messages = socket.dump({
      action: `list filters of interface ${link}`,
      type: RTM_GETTFILTER,
      flags: 0,
      payload: trafficHeader(link, TC_H_MIN_INGRESS),
    });
  } catch (error) {
    // No qdisc to filter on.
    if (isKernelError(error, 'EINVAL', 'ENOENT')) return [];
    throw error;
  }
  return messages.flatMap(({ payload }) => {
    const actions = new Attributes(payload.subarray(20)).nested(TCA_OPTIONS)?.bytes(TCA_U32_ACT);
    return (actions ? listAttributes(actions) : []).flatMap(([, action]) => {
      const attributes = new Attributes(action);
      const parameters = attributes.nested(TCA_ACT_OPTIONS)?.bytes(TCA_MIRRED_PARMS);
      return attributes.string(TCA_ACT_KIND) === 'mirred' && parameters
        ? [viewOf(parameters).getUint32(24, true)]
        : [];
    });
  });
}

/** struct tcmsg. */
function trafficHeader(link: number, parent: number, handle = 0, info = 0): Uint8Array {
  return numberBytes(20, (view) => {
    view.setInt32(4, link, true);
    view.setUint32(8, handle, true);
    view.setUint32(12, parent, true);
    view.setUint32(16, info, true);
  });
}
