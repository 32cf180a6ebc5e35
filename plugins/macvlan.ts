/** macvlan: an interface with a MAC address of its own on one of the node's. */

import {
  checkMaster,
  checkMasterExists,
  createInSandbox,
  findMaster,
  interfacePlugin,
  masterSchema,
  requestedMac,
} from '../lib/cni/interface-plugin.ts';
import { boolean, type Infer, integer, object, string } from '../lib/cni/schema.ts';
import { macvlanKind, macvlanMode, macvlanModes } from '../lib/kernel/link.ts';

const modes = Object.keys(macvlanModes);

const config = object({
  master: masterSchema,
  mode: string({
    values: ['', ...modes],
    description: 'How the interfaces of a master talk to one another; "bridge" by default.',
  }),
  mtu: integer({ max: 65535, description: "MTU in bytes; 0 is the master's." }),
  mac: string({ description: 'MAC address; random by default.' }),
  linkInContainer: boolean({ description: 'The master is in the sandbox.' }),
  bcqueuelen: integer({
    max: 0xffffffff,
    description: 'Length of the queue for broadcasts; 0 leaves it to the kernel.',
  }),
  runtimeConfig: object({ mac: string() }),
});

export const plugin = interfacePlugin<Infer<typeof config>>({
  name: 'macvlan',
  summary: 'Gives a sandbox an interface with a MAC address of its own on an interface of the node.',
  kind: 'macvlan',
  config,

  create(call, sandbox) {
    const mac = requestedMac(call);
    const { mode, mtu = 0, bcqueuelen = 0 } = call.config;
    const { socket, master } = findMaster(call, sandbox);
    createInSandbox(socket, sandbox, call.ifname, macvlanKind(mode || 'bridge', bcqueuelen), {
      parent: master.index,
      mtu: mtu || master.mtu,
      ...(mac && { mac }),
    });
  },

  check(call, link, sandbox) {
    checkMaster(call, link, sandbox);
    const wanted = call.config.mode || 'bridge';
    if (macvlanMode(link) !== wanted)
      throw new Error(`Interface "${link.name}" has mode "${macvlanMode(link)}" where "${wanted}" is wanted`);
  },

  status: checkMasterExists,
});
