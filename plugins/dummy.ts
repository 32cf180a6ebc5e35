/** dummy: an interface that leads nowhere, for addresses that only the sandbox itself uses. */

import { createInSandbox, interfacePlugin } from '../lib/cni/interface-plugin.ts';
import { object } from '../lib/cni/schema.ts';

export const plugin = interfacePlugin({
  name: 'dummy',
  summary: 'Gives a sandbox an interface that leads nowhere.',
  kind: 'dummy',
  needsIpam: true,
  config: object({}),

  create(call, sandbox) {
    createInSandbox(sandbox.socket, sandbox, call.ifname, { kind: 'dummy' });
  },
});
