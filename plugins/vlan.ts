/** vlan: an interface in a VLAN of one of the node's. */

import {
  checkMaster,
  checkMasterExists,
  createInSandbox,
  findMaster,
  interfacePlugin,
} from '../lib/cni/interface-plugin.ts';
import { boolean, type Infer, integer, object, string } from '../lib/cni/schema.ts';
import { vlanId, vlanKind } from '../lib/kernel/link.ts';

const config = object({
  master: string({ description: 'Interface whose tagged frames it gets.' }),
  vlanId: integer({ max: 4094, description: 'The VLAN.' }),
  mtu: integer({ max: 65535, description: "MTU in bytes; 0 is the master's." }),
  linkInContainer: boolean({ description: 'The master is in the sandbox.' }),
});

export const plugin = interfacePlugin<Infer<typeof config>>({
  name: 'vlan',
  summary: 'Gives a sandbox an interface in a VLAN of an interface of the node.',
  kind: 'vlan',
  needsIpam: true,
  config,

  create(call, sandbox) {
    const { master: name, vlanId: vid = 0, mtu = 0 } = call.config;
    if (!name) throw new Error('"master" is not set. Name the interface that carries the VLAN');
    const { socket, master } = findMaster(call, sandbox);
    createInSandbox(socket, sandbox, call.ifname, vlanKind(vid), {
      parent: master.index,
      mtu: mtu || master.mtu,
    });
  },

  check(call, link, sandbox) {
    checkMaster(call, link, sandbox);
    const wanted = call.config.vlanId ?? 0;
    if (vlanId(link) !== wanted)
      throw new Error(`Interface "${link.name}" is in VLAN ${vlanId(link)} where ${wanted} is wanted`);
  },

  status: checkMasterExists,
});
