/** ovs-mirror-consumer: sends the frames that an Open vSwitch mirror copies to a pod. */

import { defineMirrorPlugin } from '../lib/cni/ovs-mirror.ts';

export const plugin = defineMirrorPlugin({
  name: 'ovs-mirror-consumer',
  summary: 'Has Open vSwitch send the copies of mirrors to the container.',
  explain: (mirror) => `Makes the port of the container the output of mirror "${mirror}"`,
  rolesOf: () => ['output'],
});
