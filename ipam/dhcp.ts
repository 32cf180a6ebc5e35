/** dhcp: addresses from a DHCP server on the sandbox's own link, with leases that a daemon keeps. */

import { attachmentKey } from '../lib/attachment.ts';
import type { Call } from '../lib/cni/call.ts';
import { definePlugin } from '../lib/cni/plugin.ts';
import { parseResult } from '../lib/cni/result.ts';
import { type InferShape, object, withDefault } from '../lib/cni/schema.ts';
import { CniError, ErrorCode } from '../lib/errors.ts';
import { clientOptions, dhcpShape } from './dhcp/options.ts';
import type { LeaseOwner } from './dhcp/owner.ts';
import {
  askDaemon,
  DaemonGoneError,
  DaemonMuteError,
  defaultSocket,
  readAllocation,
} from './dhcp/protocol.ts';

const config = { ipam: withDefault(object(dhcpShape), {}) };

type DhcpCall = Call<InferShape<typeof config>>;

export const plugin = definePlugin({
  name: 'dhcp',
  summary: 'Gets addresses from a DHCP server; "dhcp daemon" keeps their leases.',
  role: 'ipam',
  config,

  validate: ({ ipam }) => void clientOptions(ipam, '', {}),

  explain: ({ ipam }) => [
    `Has the daemon on ${ipam.daemonSocketPath || defaultSocket} ask for an address on the interface, and renew it in time`,
    ipam.provide?.length
      ? `Tells the server DHCP options ${ipam.provide.map(({ option }) => option).join(', ')}`
      : '',
    ipam.priority === undefined ? '' : `Gives the server's routes metric ${ipam.priority}`,
  ],

  async add(call) {
    const { priority } = call.config.ipam;
    const args = looseArgs(call.context.invocation.args);
    const owner = ownerOf(call);
    // Refuses a wrong configuration here rather than in the daemon, before anything is sent.
    clientOptions(call.config.ipam, attachmentKey(owner), args);
    const answer = await askDaemon(socketOf(call), {
      method: 'allocate',
      owner,
      config: call.config.ipam,
      args,
    });
    const { result, isNew } = readAllocation(answer);
    if (isNew) call.undo('release the lease', () => release(call));
    const { routes, ...rest } = parseResult(result, '1.1.0', 'The result of the daemon');
    return {
      ...rest,
      routes: priority === undefined ? routes : routes.map((route) => ({ ...route, priority })),
    };
  },

  async del(call) {
    try {
      await release(call);
    } catch (error) {
      // Its leases end by themselves, so the container must not be kept for that.
      if (!(error instanceof DaemonGoneError)) throw error;
      call.warn(`${error.message}. The lease is not given back, and ends in time`);
    }
  },

  async check(call) {
    await askDaemon(socketOf(call), { method: 'check', owner: ownerOf(call) });
  },

  async status(call) {
    try {
      await askDaemon(socketOf(call), { method: 'ping' });
    } catch (error) {
      if (error instanceof DaemonMuteError) throw error;
      // No ADD can succeed, and existing leases are not renewed either.
      throw new CniError(ErrorCode.LimitedConnectivity, (error as Error).message);
    }
  },

  async gc(call) {
    const keep = call.validAttachments.map(attachmentKey);
    await askDaemon(socketOf(call), { method: 'collect', network: call.network, keep });
  },
});

async function release(call: DhcpCall): Promise<void> {
  await askDaemon(socketOf(call), { method: 'release', owner: ownerOf(call) });
}

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
  return { ...call.attachment, netns: call.netns };
}

function socketOf({ config }: DhcpCall): string {
  return config.ipam.daemonSocketPath || defaultSocket;
}

/** CNI_ARGS for "fromArg": every name counts, and what is not a pair is ignored. */
function looseArgs(text: string): Record<string, string> {
  const pairs = text.split(';').flatMap((pair) => {
    const at = pair.indexOf('=');
    return at > 0 ? [[pair.slice(0, at), pair.slice(at + 1)] as const] : [];
  });
  return Object.fromEntries(pairs);
}
