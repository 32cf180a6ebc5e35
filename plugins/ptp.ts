/** ptp: a pair of interfaces between the node and the sandbox, with every address routed over it. */

import { chooseDns } from '../lib/cni/config.ts';
import { ipamAdd, ipamCheck, ipamDel, ipamGc, ipamStatus } from '../lib/cni/delegate.ts';
import { masquerade, masqueradeShape } from '../lib/cni/masquerade.ts';
import type { Call, Plugin } from '../lib/cni/plugin.ts';
import type { Result } from '../lib/cni/result.ts';
import {
  checkInterface,
  configureInterface,
  enableForwarding,
  openSandbox,
  removeVethPair,
} from '../lib/cni/sandbox.ts';
import { type Infer, integer, object } from '../lib/cni/schema.ts';
import { begin, runAll } from '../lib/cni/steps.ts';
import { addAddress } from '../lib/kernel/address.ts';
import { deleteLink } from '../lib/kernel/link.ts';
import { addRoute, RouteScope } from '../lib/kernel/route.ts';
import { openRouteSocket } from '../lib/kernel/route-socket.ts';
import { createVethPair } from '../lib/kernel/veth.ts';
import { isKernelError } from '../lib/netlink/libc.ts';

const config = object({
  ...masqueradeShape,
  mtu: integer({ max: 65535, description: 'MTU of both interfaces in bytes; 0 leaves it to the kernel.' }),
});

type PtpCall = Call<Infer<typeof config>>;

export const plugin: Plugin<Infer<typeof config>> = {
  name: 'ptp',
  summary: 'Connects a sandbox to the node by a pair of interfaces of its own.',
  config,

  async add(call) {
    const { ips, routes, dns } = await ipamAdd(call);
    const withoutGateway = ips.find(({ gateway }) => !gateway);
    if (withoutGateway)
      throw new Error(
        `The IPAM plugin gave address ${withoutGateway.address} without a gateway. Set "gateway" in its range`,
      );
    const result: Result = {
      interfaces: [],
      ips: ips.map((ip) => ({ ...ip, interface: 1 })),
      routes,
      dns: chooseDns(call.config.dns, dns),
    };
    const rules = begin(() => masquerade(call).add(ips));
    try {
      connect(call, result);
    } finally {
      await rules();
    }
    return result;
  },

  async del(call) {
    const pair = begin(() => removeVethPair(call));
    const rules = begin(() => masquerade(call).del());
    await runAll(pair, () => ipamDel(call), rules);
  },

  async check(call) {
    await ipamCheck(call);
    const { sandbox, link } = checkInterface(call, 'veth');
    sandbox.socket.close();
    if (link.operState !== 'up') throw new Error(`Interface "${call.ifname}" has no peer that is up`);
    await masquerade(call).check();
  },

  async status(call) {
    await ipamStatus(call);
    await masquerade(call).status();
  },

  async gc(call) {
    await runAll(
      () => ipamGc(call),
      () => masquerade(call).gc(),
    );
  },
};

/** Makes the pair, and gives both ends their addresses and routes. */
function connect(call: PtpCall, result: Result): void {
  const host = openRouteSocket();
  const sandbox = openSandbox(call);
  const { hostLink, sandboxLink } = createVethPair({
    host,
    sandbox,
    sandboxEnd: { name: call.ifname, mtu: call.config.mtu ?? 0 },
  });
  call.undo(() => void host.execute(deleteLink(hostLink.index, hostLink.name)));
  result.interfaces.push(
    { name: hostLink.name, mac: hostLink.mac },
    { name: sandboxLink.name, mac: sandboxLink.mac, sandbox: call.netns },
  );

  enableForwarding(result.ips);
  const gateways = new Map(result.ips.map(({ gateway }) => [`${gateway}`, gateway!]));
  host.execute(
    ...[...gateways.values()].map((gateway) =>
      addAddress(hostLink.index, gateway.toPrefix(), { noDad: true, label: hostLink.name }),
    ),
  );
  configureInterface(sandbox, call.ifname, result, { onlyByGateway: true });
  for (const { address } of result.ips) {
    try {
      host.execute(
        addRoute({ dst: address.address.toPrefix(), link: hostLink.index, scope: RouteScope.Host }),
      );
    } catch (error) {
      if (!isKernelError(error, 'EEXIST')) throw error;
    }
  }
}
