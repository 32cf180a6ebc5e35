/** ipvlan: an interface that shares the MAC address of one of the node's. */

import {
  checkMaster,
  checkMasterExists,
  createInSandbox,
  findMaster,
  interfacePlugin,
  masterSchema,
} from '../lib/cni/interface-plugin.ts';
import type { Call } from '../lib/cni/plugin.ts';
import { boolean, type Infer, integer, object, string } from '../lib/cni/schema.ts';
import { ipvlanKind, ipvlanMode, ipvlanModes } from '../lib/kernel/link.ts';

const modes = Object.keys(ipvlanModes);

const config = object({
  master: masterSchema,
  mode: string({
    values: ['', ...modes],
    description: 'Layer at which the interfaces of a master are switched; "l2" by default.',
  }),
  mtu: integer({ max: 65535, description: "MTU in bytes; 0 is the master's." }),
  linkInContainer: boolean({ description: 'The master is in the sandbox.' }),
});

type Config = Infer<typeof config>;

export const plugin = interfacePlugin<Config>({
  name: 'ipvlan',
  summary: 'Gives a sandbox an interface that shares the MAC address of an interface of the node.',
  kind: 'ipvlan',
  needsIpam: true,
  config,

  create(call, sandbox) {
    const chained = { ...call, config: { ...call.config, ...chainedMaster(call) } };
    const { socket, master } = findMaster(chained, sandbox);
    createInSandbox(socket, sandbox, call.ifname, ipvlanKind(call.config.mode || 'l2'), {
      parent: master.index,
      mtu: call.config.mtu || master.mtu,
    });
  },

  inherit: (call) => (call.prevResult && call.prevResult.ips.length > 0 ? call.prevResult : undefined),

  check(call, link, sandbox) {
    checkMaster(call, link, sandbox);
    const wanted = call.config.mode || 'l2';
    if (ipvlanMode(link) !== wanted)
      throw new Error(`Interface "${link.name}" has mode "${ipvlanMode(link)}" where "${wanted}" is wanted`);
  },

  status: checkMasterExists,
});

/** Behind another plugin, the interface sits on what that one made. */
function chainedMaster({ config, prevResult }: Call<Config>): { master?: string } {
  if (config.master || !prevResult) return {};
  const [only, ...more] = prevResult.interfaces;
  if (!only?.name || more.length > 0)
    throw new Error(
      `"master" is not set, and the plugin before made ${prevResult.interfaces.length} interfaces where it could only be taken from one. Set "master"`,
    );
  return { master: only.name };
}
