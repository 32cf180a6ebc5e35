/** firewall: lets a container's connections through a firewall that drops forwarded packets. */

import type { Call } from '../lib/cni/call.ts';
import { knownAddresses } from '../lib/cni/interface.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { type InferShape, string } from '../lib/cni/schema.ts';
import { CniError, ErrorCode } from '../lib/errors.ts';
import { isFirewalldRunning, Zone } from '../lib/firewall/firewalld.ts';
import {
  allowForwarding,
  checkForwarding,
  checkIsolation,
  type IngressPolicy,
  isolateBridge,
  removeForwardRules,
} from '../lib/firewall/forward-iptables.ts';
import { requireInstalled } from '../lib/firewall/iptables.ts';

const config = {
  backend: string({
    values: ['', 'iptables', 'firewalld'],
    description: 'What lets connections through; firewalld by default where it runs, else iptables.',
  }),
  firewalldZone: string({ description: 'Zone that the container is put into; "trusted" by default.' }),
  iptablesAdminChainName: string({
    pattern: /^[A-Za-z0-9_.-]{1,28}$/,
    description: 'Chain with rules of the operator that come first; "CNI-ADMIN" by default.',
  }),
  ingressPolicy: string({
    values: ['', 'open', 'same-bridge', 'isolated'],
    description: 'Who reaches the container over its bridge; everyone by default.',
  }),
};

type FirewallCall = Call<InferShape<typeof config>>;

export const plugin = definePlugin({
  name: 'firewall',
  summary: "Lets a container's connections through the firewall of the node.",
  role: 'chained',
  since: '0.4.0',
  config,

  async add(call) {
    const result = requirePrevResult(call);
    const addresses = knownAddresses(call);
    const bridge = bridgeOf(call);
    if (await usesFirewalld(call)) {
      const zone = zoneOf(call);
      call.undo(() => zone.remove(addresses));
      await zone.add(addresses);
    } else {
      call.undo(() => removeForwardRules(call.programs, addresses));
      await allowForwarding(call.programs, addresses, adminChain(call));
    }
    if (bridge) await isolateBridge(call.programs, bridge, policyOf(call));
    return result;
  },

  async del(call) {
    const addresses = knownAddresses(call);
    if (addresses.length === 0) return;
    if (await usesFirewalld(call)) await zoneOf(call).remove(addresses);
    // What iptables was told before firewalld was there goes as well.
    await removeForwardRules(call.programs, addresses);
  },

  async check(call) {
    requirePrevResult(call);
    const addresses = knownAddresses(call);
    if (await usesFirewalld(call)) await zoneOf(call).check(addresses);
    else await checkForwarding(call.programs, addresses, adminChain(call));
    const bridge = bridgeOf(call);
    if (bridge) await checkIsolation(call.programs, bridge, policyOf(call));
  },

  async status(call) {
    try {
      if (call.config.backend === 'firewalld' && !(await isFirewalldRunning(call.programs)))
        throw new Error(
          'firewalld does not run, or the system bus is out of reach. Start it, or set "backend" to "iptables"',
        );
      if (!(await usesFirewalld(call))) await requireInstalled(call.programs, 4);
    } catch (error) {
      throw new CniError(ErrorCode.NotAvailable, (error as Error).message);
    }
  },
});

async function usesFirewalld(call: FirewallCall): Promise<boolean> {
  const { config } = call;
  if (config.backend) return config.backend === 'firewalld';
  return await isFirewalldRunning(call.programs);
}

function zoneOf({ config, programs }: FirewallCall): Zone {
  return new Zone(programs, config.firewalldZone || 'trusted');
}

function adminChain({ config }: FirewallCall): string {
  return config.iptablesAdminChainName || 'CNI-ADMIN';
}

function policyOf({ config }: FirewallCall): IngressPolicy {
  return (config.ingressPolicy || 'open') as IngressPolicy;
}

/** The bridge to isolate: the first interface of the result, which the bridge plugin puts there. */
function bridgeOf(call: FirewallCall): string | undefined {
  if (policyOf(call) === 'open') return undefined;
  const bridge = call.prevResult?.interfaces[0];
  if (bridge && !bridge.sandbox) return bridge.name;
  throw new Error(
    `"ingressPolicy" is "${policyOf(call)}", but the plugin before made no bridge. Put this plugin behind "bridge", or take the key out`,
  );
}
