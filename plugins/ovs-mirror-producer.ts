/** ovs-mirror-producer: has Open vSwitch copy what a pod receives or sends to a mirror. */

import { defineMirrorPlugin } from '../lib/cni/ovs-mirror.ts';

export const plugin = defineMirrorPlugin({
  name: 'ovs-mirror-producer',
  summary: 'Has Open vSwitch copy frames of the container to mirrors.',
  explain: (mirror) => `Adds the port of the container to mirror "${mirror}", as one whose frames are copied`,

  rolesOf: ({ ingress, egress }) => [
    ...(ingress ? (['source'] as const) : []),
    ...(egress ? (['destination'] as const) : []),
  ],
});
