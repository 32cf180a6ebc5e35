/** dummy: an interface that leads nowhere, for addresses that only the sandbox itself uses. */

import { createInterface } from '../lib/cni/create-interface.ts';
import { defineMainPlugin } from '../lib/cni/main-plugin.ts';

export const plugin = defineMainPlugin({
  name: 'dummy',
  summary: 'Gives a sandbox an interface that leads nowhere.',
  kind: 'dummy',
  needsIpam: true,
  config: {},
  explain: () => ['Creates an interface that leads nowhere'],
  create: (call) => createInterface(call, { kind: 'dummy' }),
});
