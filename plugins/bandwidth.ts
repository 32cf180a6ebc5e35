/** bandwidth: limits what a container sends and receives. */

import type { Call } from '../lib/cni/call.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { probeKernel } from '../lib/cni/probe.ts';
import type { Result } from '../lib/cni/result.ts';
import { type InferShape, integer, object } from '../lib/cni/schema.ts';
import { getLink, type Link, requireLink } from '../lib/kernel/link.ts';
import type { RouteSocket } from '../lib/kernel/route-socket.ts';
import {
  addIngress,
  addTokenBucket,
  deleteIngress,
  deleteTokenBucket,
  getTokenBucket,
  ingressRedirects,
  redirectIngress,
  type TokenBucket,
  tokenBucket,
} from '../lib/kernel/traffic-control.ts';
import { isKernelError } from '../lib/netlink/libc.ts';
import { createIfb, deleteIfb, findIfb, staleIfbs } from './bandwidth/ifb.ts';

/** How long a packet may wait, in seconds. */
const latency = 0.025;

const bits = (description: string) => integer({ max: Number.MAX_SAFE_INTEGER, description });
const limits = {
  ingressRate: bits('What the container receives, in bits a second; 0 for no limit.'),
  ingressBurst: bits('What it may receive at once, in bits.'),
  egressRate: bits('What the container sends, in bits a second; 0 for no limit.'),
  egressBurst: bits('What it may send at once, in bits.'),
};

const config = { ...limits, runtimeConfig: object({ bandwidth: object(limits) }) };

type BandwidthCall = Call<InferShape<typeof config>>;

export const plugin = definePlugin({
  name: 'bandwidth',
  summary: 'Limits what a container sends and receives.',
  role: 'chained',
  since: '0.3.0',
  config,

  add(call) {
    const result = requirePrevResult(call);
    const { ingress, egress } = wantedLimits(call);
    if (!ingress && !egress) return result;
    const { host } = call;
    const veth = hostEnd(call, host, result);
    if (ingress) limitIngress(call, host, veth, ingress);
    if (!egress) return result;
    const { name, mac } = limitEgress(call, host, veth, egress);
    return { ...result, interfaces: [...result.interfaces, { name, mac }] };
  },

  del(call) {
    const { host } = call;
    const ifb = findIfb(host, call.attachment);
    if (ifb) deleteIfb(host, ifb);
  },

  check(call) {
    const result = requirePrevResult(call);
    const { ingress, egress } = wantedLimits(call);
    if (!ingress && !egress) return;
    const { host } = call;
    const veth = hostEnd(call, host, result);
    if (ingress) checkTokenBucket(host, veth, ingress);
    if (!egress) return;
    const ifb = findIfb(host, call.attachment);
    if (!ifb)
      throw new Error('The interface by which the container should send is missing. Add the container again');
    if (!ifb.up)
      throw new Error(`Interface "${ifb.name}", by which the container sends, is down. Set it up again`);
    if (!ingressRedirects(host, veth.index).includes(ifb.index))
      throw new Error(`What the container sends is not redirected from "${veth.name}" to "${ifb.name}"`);
    checkTokenBucket(host, ifb, egress);
  },

  status() {
    probeKernel((socket) => {
      const attachment = { network: 'trial', containerId: 'trial', ifname: 'eth0' };
      const ifb = createIfb(socket, attachment, 1500);
      socket.execute(
        addTokenBucket(ifb.index, tokenBucket(1e6, 1e6, latency), ifb.name),
        addIngress(ifb.index, ifb.name),
        redirectIngress(ifb.index, ifb.index, ifb.name),
      );
    });
  },

  gc(call) {
    const { host } = call;
    const { name } = call.config;
    const valid = call.validAttachments.map((attachment) => attachment);
    for (const link of staleIfbs(host, name, valid)) deleteIfb(host, link);
  },
});

/** The limits asked for: the configuration's, which hide the runtime's altogether. */
function wantedLimits({ config }: BandwidthCall): {
  ingress?: TokenBucket | undefined;
  egress?: TokenBucket | undefined;
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

function wantedLimit(direction: string, rate = 0, burst = 0): TokenBucket | undefined {
  if (rate === 0 && burst === 0) return undefined;
  const [rateKey, burstKey] = [`"${direction}Rate"`, `"${direction}Burst"`];
  if (rate === 0) throw new Error(`${burstKey} is set without ${rateKey}. Set both, or none`);
  if (burst === 0) throw new Error(`${rateKey} is set without ${burstKey}. Set both, or none`);
  const [bytes, burstBytes] = [Math.floor(rate / 8), Math.floor(burst / 8)];
  if (bytes === 0) throw new Error(`${rateKey} is ${rate}, but it must be at least 8 bits a second`);
  if (burstBytes === 0) throw new Error(`${burstKey} is ${burst}, but it must be at least 8 bits`);
  if (burstBytes >= 0xffffffff)
    throw new Error(`${burstKey} is ${burst}, but it must be less than 4 GB, in bits`);
  return tokenBucket(bytes, burstBytes, latency);
}

/** The node's end of the pair whose other end is the container's interface. */
function hostEnd(call: Call, host: RouteSocket, result: Result): Link {
  const link = requireLink(call.sandbox.socket, call.ifname);
  const end = link.kind === 'veth' && link.parent ? getLink(host, link.parent) : undefined;
  const listed = result.interfaces.some(({ name, sandbox }) => name === end?.name && !sandbox);
  if (end?.kind === 'veth' && end.parent === link.index && listed) return end;
  throw new Error(
    `Interface "${call.ifname}" of the sandbox is not one end of a pair whose other end is on the node and in "prevResult". ` +
      'Use "bandwidth" after a plugin that makes such a pair, as bridge and ptp do',
  );
}

/** What the container receives is what leaves by the node's end. */
function limitIngress(call: Call, host: RouteSocket, veth: Link, limit: TokenBucket): void {
  host.execute(addTokenBucket(veth.index, limit, veth.name));
  call.undo(() => void host.execute(deleteTokenBucket(veth.index, veth.name)));
}

/** What the container sends comes in by the node's end, and takes a detour over an interface that it can leave by. */
function limitEgress(call: Call, host: RouteSocket, veth: Link, limit: TokenBucket): Link {
  const ifb = createIfb(host, call.attachment, veth.mtu);
  call.undo(() => deleteIfb(host, ifb));
  host.execute(addTokenBucket(ifb.index, limit, ifb.name));
  try {
    host.execute(addIngress(veth.index, veth.name));
    call.undo(() => void host.execute(deleteIngress(veth.index, veth.name)));
  } catch (error) {
    // Others filter there too, say by a "clsact".
    if (!isKernelError(error, 'EEXIST')) throw error;
  }
  host.execute(redirectIngress(veth.index, ifb.index, veth.name));
  return ifb;
}

function checkTokenBucket(host: RouteSocket, { index, name }: Link, wanted: TokenBucket): void {
  const actual = getTokenBucket(host, index);
  if (!actual) throw new Error(`Interface "${name}" is not limited. Add the container again`);
  for (const key of ['rate', 'buffer', 'limit'] as const)
    if (actual[key] !== wanted[key])
      throw new Error(
        `Interface "${name}" is limited with a ${key} of ${actual[key]} where ${wanted[key]} is wanted`,
      );
}
