/** loopback: brings up the sandbox's "lo". */

import type { Call } from '../lib/cni/call.ts';
import { isOfOther } from '../lib/cni/own-interface.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { emptyResult, type Result } from '../lib/cni/result.ts';
import { type InterfaceAddress, listAddresses } from '../lib/kernel/address.ts';
import { requireLink, setLink } from '../lib/kernel/link.ts';
import type { Sandbox } from '../lib/kernel/sandbox.ts';

export const plugin = definePlugin({
  name: 'loopback',
  summary: 'Brings up the loopback interface of a sandbox.',
  role: 'main',
  config: {},

  explain: () => ['Brings up "lo" in the container'],

  add(call) {
    const { sandbox } = call;
    const { socket } = sandbox;
    const lo = requireLink(socket, 'lo');
    socket.execute(setLink(lo.index, { up: true }, 'lo'));
    if (!lo.up)
      call.undo('set interface "lo" down', () => void socket.execute(setLink(lo.index, { up: false }, 'lo')));
    const addresses = loopbackAddresses(sandbox, lo.index);
    return call.prevResult ?? describe(call, addresses);
  },

  del(call) {
    const sandbox = call.sandboxIfPresent;
    if (!sandbox) return;
    const lo = requireLink(sandbox.socket, 'lo');
    if (!isOfOther(call, lo)) sandbox.socket.execute(setLink(lo.index, { up: false }, 'lo'));
  },

  check(call) {
    requirePrevResult(call);
    if (!requireLink(call.sandbox.socket, 'lo').up)
      throw new Error(
        `Interface "lo" of sandbox "${call.netns}" is down. Bring it up with "ip link set lo up" in it`,
      );
  },
});

/** @throws Error when "lo" has an address that is not a loopback address. */
function loopbackAddresses({ socket }: Sandbox, index: number): InterfaceAddress[] {
  const addresses = listAddresses(socket, index);
  const foreign = addresses.find(({ prefix }) => !prefix.address.isLoopback);
  if (foreign)
    throw new Error(
      `Interface "lo" has address ${foreign.prefix}, which is not a loopback address. Remove it from the sandbox`,
    );
  return addresses;
}

function describe(call: Call, addresses: readonly InterfaceAddress[]): Result {
  const ofFamily = (family: number) => addresses.find(({ prefix }) => prefix.family === family);
  return {
    ...emptyResult(),
    interfaces: [{ name: 'lo', mac: '00:00:00:00:00:00', sandbox: call.netns }],
    ips: [ofFamily(4), ofFamily(6)].flatMap((found) =>
      found ? [{ address: found.prefix, interface: 0 }] : [],
    ),
  };
}
