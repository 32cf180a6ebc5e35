/** dhcp: addresses from a DHCP server on the sandbox's own link, kept by a daemon. */

import type { Call } from '../lib/cni/call.ts';
import { definePlugin } from '../lib/cni/plugin.ts';
import { parseResult } from '../lib/cni/result.ts';
import { type InferShape, object, withDefault } from '../lib/cni/schema.ts';
import { CniError, ErrorCode } from '../lib/errors.ts';
import { type LeaseOwner, leaseKey } from './dhcp/lease.ts';
import { clientOptions, dhcpShape } from './dhcp/options.ts';
import { askDaemon, DaemonGoneError, defaultSocket } from './dhcp/protocol.ts';

const config = { ipam: withDefault(object(dhcpShape), {}) };

type DhcpCall = Call<InferShape<typeof config>>;

export const plugin = definePlugin({
  name: 'dhcp',
  summary: 'Gets addresses from a DHCP server; "dhcp daemon" keeps their leases.',
  role: 'ipam',
  config,

  async add(call) {
    const args = looseArgs(call.context.invocation.args);
    // Refused here rather than by the daemon, before anything is sent.
    clientOptions(call.config.ipam, leaseKey(ownerOf(call)), args);
    const value = await askDaemon(socketOf(call), {
      method: 'allocate',
      owner: ownerOf(call),
      config: call.config.ipam,
      args,
    });
    const result = parseResult(value, '1.1.0', 'The result of the daemon');
    const { priority } = call.config.ipam;
    return priority === undefined
      ? result
      : { ...result, routes: result.routes.map((route) => ({ ...route, priority })) };
  },

  async del(call) {
    try {
      await askDaemon(socketOf(call), { method: 'release', owner: ownerOf(call) });
    } catch (error) {
      // Its leases end by themselves; a container must not be kept for that.
      if (!(error instanceof DaemonGoneError)) throw error;
      process.stderr.write(`${error.message}. The lease is not given back, and ends in time\n`);
    }
  },

  async check(call) {
    await askDaemon(socketOf(call), { method: 'check', owner: ownerOf(call) });
  },

  async status(call) {
    try {
      await askDaemon(socketOf(call), { method: 'ping' });
    } catch (error) {
      // Existing leases are not renewed either.
      throw new CniError(ErrorCode.LimitedConnectivity, (error as Error).message);
    }
  },

  async gc(call) {
    const network = call.config.name;
    const keep = call.validAttachments.map((one) => leaseKey(one));
    await askDaemon(socketOf(call), { method: 'collect', network, keep });
  },
});

/** `dhcp daemon` */
export async function command(args: readonly string[]): Promise<number> {
  if (args[0] !== 'daemon') {
    process.stderr.write(
      `"dhcp ${args[0]}" is not known. Use "dhcp daemon"; a container runtime runs "dhcp" alone\n`,
    );
    return 2;
  }
  return await (await import('./dhcp/daemon.ts')).runDaemon(args.slice(1));
}

function ownerOf(call: DhcpCall): LeaseOwner {
  return { containerId: call.containerId, network: call.config.name, ifname: call.ifname, netns: call.netns };
}

function socketOf({ config }: DhcpCall): string {
  return config.ipam.daemonSocketPath || defaultSocket;
}

/** CNI_ARGS for "fromArg": every name counts, and what makes no pair is passed over. */
function looseArgs(text: string): Record<string, string> {
  const pairs = text.split(';').flatMap((pair) => {
    const at = pair.indexOf('=');
    return at > 0 ? [[pair.slice(0, at), pair.slice(at + 1)] as const] : [];
  });
  return Object.fromEntries(pairs);
}
