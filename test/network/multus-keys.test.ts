/** multus: keys of Multus that say where and which further plugins are run. */

import { readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { Attachment, attach, runNetworkVerb } from '../support/chain.ts';
import { suites } from '../support/plugin.ts';
import {
  interfacesOf,
  makeHostWithNetworks,
  mentions,
  named,
  several,
  writeNetworks,
} from '../support/several.ts';

test('plugins are looked for in "binDir" before CNI_PATH, in every verb', async (t) => {
  const host = await makeHostWithNetworks(t);
  await host.run(['mkdir', '/run/vendor']);
  // It answers with the result of the plugin before.
  const answer = `sed 's/.*"prevResult":\\(.*\\)}$/\\1/'`;
  const script = `#!/bin/sh\necho "$CNI_COMMAND $CNI_PATH" >> /run/calls; ${answer}\n`;
  writeFileSync(host.file('/run/vendor/telling'), script, { mode: 0o755 });
  // One that is in CNI_PATH as well.
  writeFileSync(
    host.file('/run/vendor/static'),
    '#!/bin/sh\necho "{\\"ips\\":[{\\"address\\":\\"10.7.7.7/24\\"}]}"\n',
    {
      mode: 0o755,
    },
  );
  const { plugins } = named.find(({ name }) => name === 'backup')!;
  const [main] = plugins;
  const vendored = [{ ...main!, ipam: { type: 'static' } }, { type: 'telling' }];
  writeNetworks(host, [{ cniVersion: '1.1.0', name: 'vendored', plugins: vendored }]);
  const network = several('multus', { clusterNetwork: 'vendored', binDir: '/run/vendor' });
  const attachment = new Attachment(host, await host.addPod(), network);
  await attachment.add();
  t.regex(await attachment.pod.run(['ip', 'address', 'show', 'eth0']), /inet 10\.7\.7\.7\/24/);
  await attachment.check();
  t.is((await runNetworkVerb(host, network, 'STATUS')).exit, 0);
  const valid = [{ containerID: attachment.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, network, 'GC', { valid })).exit, 0);
  await attachment.del();
  t.deepEqual(
    readFileSync(host.file('/run/calls'), 'utf8').trim().split('\n'),
    ['ADD', 'CHECK', 'STATUS', 'GC', 'DEL'].map((verb) => `${verb} /run/vendor:${suites.ours}`),
  );
  t.deepEqual(mentions(host, attachment.pod), []);
});

test('a chain of plugins in a directory, which is not run, is refused', async (t) => {
  const host = await makeHostWithNetworks(t);
  const keys = { clusterNetwork: '/etc/cni/net.d/20-pods.conflist' };
  const network = several('multus', { ...keys, auxiliaryCNIChainName: 'vendor' });
  const refused = new Attachment(host, await host.addPod(), network);
  t.regex((await refused.tryAdd()).error!.msg, /"auxiliaryCNIChainName" is "vendor", but .* are not run/);
  t.deepEqual(await interfacesOf(refused.pod), []);
  await refused.del();
  await attach(host, several('multus', keys));
});
