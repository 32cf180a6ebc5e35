/** ipvlan: an interface that shares the MAC address of its parent on the host. */

import type { Call } from '../lib/cni/call.ts';
import { defineMainPlugin } from '../lib/cni/main-plugin.ts';
import {
  checkMode,
  checkParent,
  checkParentExists,
  createOnParent,
  describeParent,
  findParentOfFrames,
  type ParentConfig,
  parentShape,
} from '../lib/cni/parent.ts';
import { string } from '../lib/cni/schema.ts';
import type { Link } from '../lib/kernel/link.ts';
import { ipvlanKind, ipvlanMode, ipvlanModes } from '../lib/kernel/link-kinds.ts';

const modes = Object.keys(ipvlanModes);
const modeOf = ({ mode }: { mode?: string }): string => mode || 'l2';

export const plugin = defineMainPlugin({
  name: 'ipvlan',
  summary: 'Gives a sandbox an interface that shares the MAC address of an interface of the host.',
  kind: 'ipvlan',
  needsIpam: true,
  config: {
    ...parentShape,
    mode: string({
      values: ['', ...modes],
      description: 'Layer at which the interfaces of a master are switched; "l2" by default.',
    }),
  },

  explain: (config) => [
    `Creates an ipvlan interface in mode "${modeOf(config)}" on ${describeParent(config)}`,
  ],

  inherit: ({ prevResult }) => (prevResult && prevResult.ips.length > 0 ? prevResult : undefined),

  create(call) {
    const parent = findOwnParent(call, call.config.master || chainedParent(call));
    return createOnParent(call, ipvlanKind(modeOf(call.config)), parent);
  },

  check(call, checked) {
    checkParent(call, checked);
    checkMode(checked, ipvlanMode(checked.link), modeOf(call.config));
  },

  status(call) {
    // Without "master", ADD may take the parent from prevResult, which STATUS does not get.
    if (call.config.master) checkParentExists(call, findOwnParent);
  },
});

function findOwnParent(call: Call<ParentConfig>, name?: string): Link {
  return findParentOfFrames(call, name, { isLargerMtuPossible: true });
}

/** Behind another plugin, the parent is the interface that the other plugin created. */
function chainedParent({ prevResult }: Call): string | undefined {
  if (!prevResult) return undefined;
  const [only, ...more] = prevResult.interfaces;
  if (only?.name && more.length === 0) return only.name;
  throw new Error(
    `"master" is not set, and the plugin before made ${prevResult.interfaces.length} interfaces where it could only be taken from one. Set "master"`,
  );
}
