/** genie: pods with the networks that their annotation "cni" names. */

import { rmSync } from 'node:fs';
import test from 'ava';
import { Attachment, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import {
  annotated,
  interfacesOf,
  ipv4Of,
  makeHostWithNetworks,
  mentions,
  savedOf,
  several,
  writeNetworks,
} from '../support/several.ts';

const network = several('genie', {
  default_plugin: 'pods',
  capabilities: { 'io.kubernetes.cri.pod-annotations': true },
});
const standard = 'k8s.v1.cni.cncf.io/networks';

test('a pod has the networks of its annotation, by name or file, or those by default', async (t) => {
  const host = await makeHostWithNetworks(t);
  await host.run(['mv', '/etc/cni/net.d/22-backup.conflist', '/etc/cni/net.d/22-weave.conflist']);
  for (const [annotations, interfaces, first] of [
    [{ cni: 'weave,storage@st4,pods' }, ['eth0', 'eth2', 'st4'], /^10\.41\.2\./],
    [{ cni: 'backup@ignored' }, ['eth0'], /^10\.41\.2\./],
    [{}, ['eth0'], /^10\.41\.0\./],
    [{ [standard]: 'storage' }, ['eth0'], /^10\.41\.0\./],
    [{ cni: ' ', [standard]: 'shop/backup,storage' }, ['eth0', 'eth1'], /^10\.41\.2\./],
    // By load: what the kernel itself has just sent by a bridge counts, too.
    [{ cni: '' }, ['eth0'], /^10\.41\./],
  ] as const) {
    const pod = await attach(host, network, annotated(annotations as never));
    t.deepEqual(await interfacesOf(pod.pod), [...interfaces], JSON.stringify(annotations));
    t.regex((await ipv4Of(pod.pod, 'eth0'))[0]!, first);
    t.is(savedOf(host, pod.pod, 'genie').length, interfaces.length);
    await pod.check();
    await pod.del();
    t.deepEqual(await interfacesOf(pod.pod), []);
    t.deepEqual(mentions(host, pod.pod), []);
  }
});

test('GC frees what pods that are gone had, and STATUS asks the networks by default', async (t) => {
  const host = await makeHostWithNetworks(t);
  const stale = await attach(host, network, annotated({ cni: 'pods,storage' }));
  const kept = await attach(host, network, annotated({ cni: 'storage' }));
  const valid = [{ containerID: kept.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, network, 'GC', { valid })).exit, 0);
  t.deepEqual(mentions(host, stale.pod), []);
  await kept.check();
  t.is((await runNetworkVerb(host, network, 'STATUS')).exit, 0);
  t.is((await runNetworkVerb(host, several('genie', {}), 'STATUS')).exit, 0);
  const missing = several('genie', { default_plugin: 'missing' });
  t.regex((await runNetworkVerb(host, missing, 'STATUS')).error!.msg, /has the network "missing"/);
});

test('a pod that names no network is refused where there is none by default', async (t) => {
  const host = await makeHostWithNetworks(t);
  const bare = several('genie', network.plugins[0]!);
  delete bare.plugins[0]!.default_plugin;
  const attachment = new Attachment(host, await host.addPod(), bare, annotated({}));
  t.regex(
    (await attachment.tryAdd()).error!.msg,
    /no annotation "cni", and the configuration no "default_plugin"/,
  );
});

test('DEL of a pod whose networks are not saved detaches it from any that ADD may have chosen by load', async (t) => {
  const host = await makeHostWithNetworks(t);
  const blank = annotated({ cni: '' });
  const busy = await attach(host, network, annotated({ cni: 'pods' }));
  const traffic = await busy.pod.start(t, ['ping', '-i', '0.002', '-s', '1000', '10.41.0.1']);
  const pod = await attach(host, network, blank);
  t.notRegex((await ipv4Of(pod.pod, 'eth0'))[0]!, /^10\.41\.0\./);
  traffic.kill();
  rmSync(host.file(`/var/lib/cni/genie/${pod.pod.containerId}`));
  t.true(mentions(host, pod.pod).length > 0);
  await pod.del();
  t.deepEqual(await interfacesOf(pod.pod), []);
  t.deepEqual(mentions(host, pod.pod), []);
  await busy.check();
});

test('a device of the host, which one pod takes away from all others, is not chosen by load', async (t) => {
  const host = await makeHostWithNetworks(t);
  const device: Conflist = {
    ...{ cniVersion: '1.1.0', name: 'absent' },
    plugins: [{ type: 'host-device', device: 'taken' }],
  };
  writeNetworks(host, [device]);
  const busy = await attach(host, network, annotated({ cni: 'pods,backup,uplink' }));
  for (const [gateway, ifname] of [
    ['10.41.0.1', 'eth0'],
    ['10.41.2.1', 'eth1'],
    ['10.41.3.1', 'eth2'],
  ] as const)
    await busy.pod.start(t, ['ping', '-i', '0.002', '-s', '1000', '-I', ifname, gateway]);
  rmSync(host.file('/etc/cni/net.d/21-storage.conflist'));
  const pod = await attach(host, network, annotated({ cni: '' }));
  t.is(savedOf(host, pod.pod, 'genie').length, 1);
  t.regex((await ipv4Of(pod.pod, 'eth0'))[0]!, /^10\.41\./);
});
