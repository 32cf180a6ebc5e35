/** multus: plugins of others that the plugins of a pod's networks run. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { type Attachment, attach, runNetworkVerb } from '../support/chain.ts';
import { makeHostWithDevices } from '../support/host.ts';
import { logEntries, logFile } from '../support/log.ts';
import { suites } from '../support/plugin.ts';
import { annotated, several, writeNetworks } from '../support/several.ts';

test('an IPAM plugin of others gets the environment of the network that it is for', async (t) => {
  const host = await makeHostWithDevices(t);
  mkdirSync(host.file('/run/bin'));
  const script = `#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $CNI_PATH" >> /run/calls
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.41.1.9/24"}]}'
`;
  writeFileSync(host.file('/run/bin/telling'), script, { mode: 0o755 });
  const macvlan = { type: 'macvlan', master: 'up0', ipam: { type: 'telling' } };
  // That version has no GC of a whole network.
  writeNetworks(host, [{ cniVersion: '1.0.0', name: 'told', plugins: [macvlan] }]);
  const network = several('multus', {
    delegates: [{ type: 'loopback', name: 'first' }],
    binDir: '/run/vendor',
    capabilities: { 'io.kubernetes.cri.pod-annotations': true },
  });
  const env = { CNI_PATH: `${suites.ours}:/run/bin`, CNI_LOG: logFile };
  const asked = JSON.stringify([{ name: 'told', mac: '02:00:00:00:00:77' }]);
  const { args, capabilities } = annotated({ 'k8s.v1.cni.cncf.io/networks': asked });
  const options = { args: `${args};IP=10.41.0.9`, capabilities: capabilities!, env };
  const one = await attach(host, network, options);
  await one.check();
  await one.del();
  const stale = await attach(host, network, options);
  t.is((await runNetworkVerb(host, network, 'GC', { valid: [], env })).exit, 0);
  const called = (verb: string, { pod }: Attachment) =>
    `${verb} ${pod.containerId} ${pod.netns} net1 ${args};MAC=02:00:00:00:00:77 /run/vendor:${env.CNI_PATH}`;
  t.deepEqual(readFileSync(host.file('/run/calls'), 'utf8').trim().split('\n'), [
    called('ADD', one),
    called('CHECK', one),
    called('DEL', one),
    called('ADD', stale),
    called('DEL', stale),
  ]);
  for (const { plugin, verb, ifname, containerId } of await logEntries(host, 21)) {
    const isFurther = plugin === 'macvlan' || plugin === 'telling';
    t.is(ifname, verb === 'GC' ? undefined : isFurther ? 'net1' : 'eth0', `${plugin} ${verb}`);
    t.is(containerId === undefined, verb === 'GC', `${plugin} ${verb}`);
  }
});
