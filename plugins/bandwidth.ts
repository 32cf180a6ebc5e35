/** bandwidth: limits what a container sends and receives. */

import type { Call } from '../lib/cni/call.ts';
import { probeKernel } from '../lib/cni/kernel-probe.ts';
import { definePlugin, type Repair, requirePrevResult } from '../lib/cni/plugin.ts';
import type { Result } from '../lib/cni/result.ts';
import { type InferShape, integer, object } from '../lib/cni/schema.ts';
import { type Link, requireLink, setLink } from '../lib/kernel/link.ts';
import { deleteHostLinks, deleteLinkInBackground } from '../lib/kernel/link-group.ts';
import type { RouteSocket } from '../lib/kernel/route-socket.ts';
import {
  addIngress,
  addTokenBucket,
  deleteTokenBucket,
  getTokenBucket,
  redirectIngress,
  type TokenBucket,
  tokenBucket,
  wrap,
} from '../lib/kernel/traffic-control.ts';
import { isKernelError } from '../lib/netlink/libc.ts';
import { collectIfbs, createIfb, findIfb, refuseExistingIfb } from './bandwidth/ifb.ts';
import { isRedirected, redirect, redirectAgain } from './bandwidth/redirection.ts';

/** How long a packet may wait, in seconds. */
const latency = 0.025;

const bucketKeys = ['rate', 'buffer', 'limit'] as const;

/** The limit of an interface. */
interface Limit {
  readonly bucket: TokenBucket;
  /** What the reference plugin may make of these by overflow: runtimes pass bursts of 4 GB. */
  readonly wrapped: TokenBucket;
}

const bits = (description: string) => integer({ max: Number.MAX_SAFE_INTEGER, description });
const limits = {
  ingressRate: bits('What the container receives, in bits per second; 0 for no limit.'),
  ingressBurst: bits('What it may receive at once, in bits.'),
  egressRate: bits('What the container sends, in bits per second; 0 for no limit.'),
  egressBurst: bits('What it may send at once, in bits.'),
};

const config = { ...limits, runtimeConfig: object({ bandwidth: object(limits) }) };

type Config = InferShape<typeof config>;
type BandwidthCall = Call<Config>;

export const plugin = definePlugin({
  name: 'bandwidth',
  summary: 'Limits what a container sends and receives.',
  role: 'chained',
  capability: 'bandwidth',
  since: '0.3.0',
  config,
  validate: (config) => void wantedLimits(config),

  explain: ({ ingressRate, ingressBurst, egressRate, egressBurst }) => [
    ingressRate
      ? `Limits what the container receives to ${ingressRate} bit/s, with bursts of ${ingressBurst} bit`
      : '',
    egressRate ? `Limits what it sends to ${egressRate} bit/s, with bursts of ${egressBurst} bit` : '',
    ingressRate || egressRate ? '' : 'Limits traffic to what the runtime passes as capability "bandwidth"',
  ],

  add(call) {
    const result = requirePrevResult(call);
    const { ingress, egress } = wantedLimits(call.config);
    if (!ingress && !egress) return result;
    const veth = hostEnd(call, result);
    if (egress) refuseExistingIfb(call);
    if (ingress) limitIngress(call, veth, ingress);
    if (!egress) return result;
    const { name, mac } = limitEgress(call, veth, egress);
    return { ...result, interfaces: [...result.interfaces, { name, mac }] };
  },

  async del(call) {
    const { host, context } = call;
    const ifb = findIfb(call);
    if (!ifb) return;
    if (context.sharing) await deleteLinkInBackground(host, ifb);
    else await deleteHostLinks(host, [ifb]);
  },

  check(call) {
    const result = requirePrevResult(call);
    const { ingress, egress } = wantedLimits(call.config);
    if (!ingress && !egress) return;
    const { host } = call;
    const veth = hostEnd(call, result);
    if (ingress) checkTokenBucket(host, veth, ingress);
    if (!egress) return;
    const ifb = findIfb(call);
    if (!ifb)
      throw new Error('The interface that limits what the container sends is missing. Run "cni repair"');
    if (!ifb.up)
      throw new Error(
        `Interface "${ifb.name}", by which the container sends, is down. Bring it up with "ip link set ${ifb.name} up"`,
      );
    if (!isRedirected(host, veth, ifb))
      throw new Error(
        `What the container sends is not redirected from "${veth.name}" to "${ifb.name}". Run "cni repair"`,
      );
    checkTokenBucket(host, ifb, egress);
  },

  repair(call) {
    const result = requirePrevResult(call);
    const { ingress, egress } = wantedLimits(call.config);
    if (!ingress && !egress) return [];
    const veth = hostEnd(call, result);
    return [
      ...(ingress ? bucketRepairs(call, veth, ingress) : []),
      ...(egress ? egressRepairs(call, veth, egress) : []),
    ];
  },

  status(call) {
    // The runtime's limits are for one container: another may have none, and needs nothing here.
    const { ingress, egress } = wantedLimits(call.config);
    if (!ingress && !egress) return;
    probeKernel((host) => {
      const lo = requireLink(host, 'lo');
      if (ingress) host.execute(addTokenBucket(lo.index, ingress.bucket, lo.name));
      if (!egress) return;
      const attachment = { network: 'probe', containerId: 'probe', ifname: 'eth0' };
      const ifb = createIfb({ host, undo: () => {} }, attachment, 1500);
      host.execute(
        addTokenBucket(ifb.index, egress.bucket, ifb.name),
        addIngress(ifb.index, ifb.name),
        redirectIngress(ifb.index, ifb.index, ifb.name),
      );
    });
  },

  gc: (call) => collectIfbs(call.host, call.network, call.validAttachments),
});

/**
 * The requested limits: the configuration's, which hide the runtime's altogether.
 * @throws Error for an impossible limit.
 */
function wantedLimits(config: Config): {
  ingress?: Limit | undefined;
  egress?: Limit | undefined;
} {
  const keys = Object.keys(limits) as (keyof typeof limits)[];
  const own = keys.some((key) => config[key] !== undefined);
  const { ingressRate, ingressBurst, egressRate, egressBurst } = own
    ? config
    : (config.runtimeConfig?.bandwidth ?? {});
  return {
    ingress: wantedLimit('ingress', ingressRate, ingressBurst),
    egress: wantedLimit('egress', egressRate, egressBurst),
  };
}

function wantedLimit(direction: string, rate = 0, burst = 0): Limit | undefined {
  if (rate === 0 && burst === 0) return undefined;
  const [rateKey, burstKey] = [`"${direction}Rate"`, `"${direction}Burst"`];
  if (rate === 0) throw new Error(`${burstKey} is set without ${rateKey}. Set both or neither`);
  if (burst === 0) throw new Error(`${rateKey} is set without ${burstKey}. Set both or neither`);
  const [bytes, burstBytes] = [Math.floor(rate / 8), Math.floor(burst / 8)];
  if (bytes === 0) throw new Error(`${rateKey} is ${rate}, but it must be at least 8 bits per second`);
  if (burstBytes === 0) throw new Error(`${burstKey} is ${burst}, but it must be at least 8 bits`);
  if (burstBytes >= 0xffffffff)
    throw new Error(`${burstKey} is ${burst}, but it must be less than 4 GB, in bits`);
  return {
    bucket: tokenBucket(bytes, burstBytes, latency),
    wrapped: tokenBucket(bytes, burstBytes, latency, wrap),
  };
}

/** The host's end of the veth pair whose peer is the container's interface. */
function hostEnd(call: Call, result: Result): Link {
  const link = requireLink(call.sandbox.socket, call.ifname);
  const end = link.kind === 'veth' && link.parent ? call.hostLink(link.parent) : undefined;
  const isListed = result.interfaces.some(({ name, sandbox }) => name === end?.name && !sandbox);
  if (end?.kind === 'veth' && end.parent === link.index && isListed) return end;
  throw new Error(
    `Interface "${call.ifname}" of the sandbox is not one end of a veth pair whose peer is on the host and in "prevResult". ` +
      'Use "bandwidth" after a plugin that creates such a pair, as bridge and ptp do',
  );
}

/** What the container receives is what leaves by the host's end. */
function limitIngress(call: BandwidthCall, veth: Link, { bucket }: Limit): void {
  const { host } = call;
  try {
    host.execute(addTokenBucket(veth.index, bucket, veth.name));
  } catch (error) {
    if (!isKernelError(error, 'EEXIST')) throw error;
    throw new Error(
      `What leaves by interface "${veth.name}" is already limited. Run DEL before ADD is tried again`,
      { cause: error },
    );
  }
  call.undo(
    `remove the limit of "${veth.name}"`,
    () => void host.execute(deleteTokenBucket(veth.index, veth.name)),
  );
}

/**
 * What the container sends comes in by the host's end, where it cannot be shaped. So it is redirected to an
 * intermediate interface (ifb), and shaped as it leaves that.
 */
function limitEgress(call: BandwidthCall, veth: Link, { bucket }: Limit): Link {
  const { host } = call;
  const ifb = createIfb(call, call.attachment, veth.mtu);
  host.execute(addTokenBucket(ifb.index, bucket, ifb.name));
  redirect(call, veth, ifb);
  return ifb;
}

/** The limit of what leaves by an interface. */
function bucketRepairs({ host }: BandwidthCall, { index, name }: Link, wanted: Limit): Repair[] {
  const actual = getTokenBucket(host, index);
  if (actual && !differingKey(actual, wanted)) return [];
  const restore = () => {
    if (actual) host.execute(deleteTokenBucket(index, name));
    host.execute(addTokenBucket(index, wanted.bucket, name));
  };
  return [{ what: `limit of what leaves by interface "${name}"`, restore }];
}

/** The interface by which the container sends, and the redirection to it. */
function egressRepairs(call: BandwidthCall, veth: Link, wanted: Limit): Repair[] {
  const { host } = call;
  const ifb = findIfb(call);
  if (!ifb) {
    const what = 'interface by which the container sends';
    return [{ what, restore: () => void limitEgress(call, veth, wanted) }];
  }
  const bringUp = () => void host.execute(setLink(ifb.index, { up: true }, ifb.name));
  return [
    ...(ifb.up ? [] : [{ what: `state "up" of interface "${ifb.name}"`, restore: bringUp }]),
    ...bucketRepairs(call, ifb, wanted),
    ...(isRedirected(host, veth, ifb)
      ? []
      : [
          {
            what: `redirection from interface "${veth.name}" to "${ifb.name}"`,
            restore: () => redirectAgain(call, veth, ifb),
          },
        ]),
  ];
}

function checkTokenBucket(host: RouteSocket, { index, name }: Link, wanted: Limit): void {
  const actual = getTokenBucket(host, index);
  if (!actual) throw new Error(`Interface "${name}" is not limited. Run "cni repair"`);
  const key = differingKey(actual, wanted);
  if (key)
    throw new Error(
      `The token bucket of interface "${name}" has a ${key} of ${actual[key]}, but should have one of ${wanted.bucket[key]}. Run "cni repair"`,
    );
}

/** The key of a limit whose value neither suite would set. */
function differingKey(actual: TokenBucket, { bucket, wrapped }: Limit): keyof TokenBucket | undefined {
  return bucketKeys.find((key) => actual[key] !== bucket[key] && actual[key] !== wrapped[key]);
}
