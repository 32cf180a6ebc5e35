/** The parts of ipvlan that do not need its kernel module. The rest is in test/uml/masters.test.ts. */

import test from 'ava';
import { runNetworkVerb, sample } from '../support/chain.ts';
import { makeHost } from '../support/host.ts';

test('STATUS looks for a master only if one is configured: else the plugin before may make it', async (t) => {
  const host = await makeHost(t);
  const network = { ...sample('62-ipvlan.conflist'), cniVersion: '1.1.0' };
  const [plugin] = network.plugins;
  const status = async (keys: object) =>
    (await runNetworkVerb(host, { ...network, plugins: [{ ...plugin!, ...keys }] }, 'STATUS')).error?.msg ??
    '';
  t.is(await status({ master: undefined }), '');
  t.is(await status({ master: '' }), '');
  t.regex(await status({ master: 'up0' }), /^Master "up0" does not exist/);
});
