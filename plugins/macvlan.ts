/** macvlan: an interface with a MAC address of its own on a parent of the host. */

import { defineMainPlugin } from '../lib/cni/main-plugin.ts';
import {
  checkMode,
  checkParent,
  checkParentExists,
  createOnParent,
  describeParent,
  findParentOfFrames,
  parentShape,
} from '../lib/cni/parent.ts';
import { requestedMac } from '../lib/cni/requested-mac.ts';
import { integer, object, string } from '../lib/cni/schema.ts';
import { macvlanKind, macvlanMode, macvlanModes } from '../lib/kernel/link-kinds.ts';

const modes = Object.keys(macvlanModes);
const modeOf = ({ mode }: { mode?: string }): string => mode || 'bridge';

export const plugin = defineMainPlugin({
  name: 'macvlan',
  summary: 'Gives a sandbox an interface with a MAC address of its own on an interface of the host.',
  kind: 'macvlan',
  config: {
    ...parentShape,
    mode: string({
      values: ['', ...modes],
      description: 'How the interfaces of a master talk to one another; "bridge" by default.',
    }),
    mac: string({ description: 'MAC address; random by default.' }),
    bcqueuelen: integer({
      max: 0xffffffff,
      description: 'Length of the queue for broadcasts; 0 leaves it to the kernel.',
    }),
    runtimeConfig: object({ mac: string() }),
  },

  explain: (config) => [
    `Creates a macvlan interface in mode "${modeOf(config)}" on ${describeParent(config)}`,
  ],

  create(call) {
    const { bcqueuelen = 0, runtimeConfig, mac: configured } = call.config;
    const mac = requestedMac(runtimeConfig?.mac, call.args(['MAC']).MAC, configured);
    const kind = macvlanKind(modeOf(call.config), bcqueuelen);
    return createOnParent(call, kind, findParentOfFrames(call), { ...(mac && { mac }) });
  },

  check(call, checked) {
    checkParent(call, checked);
    checkMode(checked, macvlanMode(checked.link), modeOf(call.config));
  },

  status: (call) => checkParentExists(call, findParentOfFrames),
});
