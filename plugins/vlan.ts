/** vlan: an interface in a VLAN of a parent of the host. */

import { defineMainPlugin } from '../lib/cni/main-plugin.ts';
import {
  checkParent,
  checkParentExists,
  createOnParent,
  findParent,
  parentShape,
} from '../lib/cni/parent.ts';
import { integer, string } from '../lib/cni/schema.ts';
import { vlanId, vlanKind } from '../lib/kernel/link-kinds.ts';

export const plugin = defineMainPlugin({
  name: 'vlan',
  summary: 'Gives a sandbox an interface in a VLAN of an interface of the host.',
  kind: 'vlan',
  needsIpam: true,
  config: {
    ...parentShape,
    master: string({ description: 'Interface whose tagged frames it gets.' }),
    vlanId: integer({ max: 4094, description: 'The VLAN.' }),
  },

  explain: ({ vlanId, master }) => [`Creates an interface in VLAN ${vlanId ?? 0} of "${master}"`],

  validate({ master }) {
    if (!master) throw new Error('"master" is not set. Name the interface that carries the VLAN');
  },

  create(call) {
    return createOnParent(call, vlanKind(call.config.vlanId ?? 0), findParent(call));
  },

  check(call, checked) {
    checkParent(call, checked);
    const { link } = checked;
    const wanted = call.config.vlanId ?? 0;
    if (vlanId(link) !== wanted)
      throw new Error(
        `Interface "${link.name}" is in VLAN ${vlanId(link)}, but should be in VLAN ${wanted}. Delete the container and add it again`,
      );
  },

  status: (call) => checkParentExists(call),
});
