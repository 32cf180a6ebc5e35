/** genie: pods with the networks that their annotation "cni" names. */

import { rmSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { Attachment, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import {
  annotated,
  interfacesOf,
  ipv4Of,
  makeHostWithNetworks,
  mentions,
  named,
  savedOf,
  several,
  writeNetworks,
} from '../support/several.ts';

const network = several('genie', {
  default_plugin: 'uplink',
  capabilities: { 'io.kubernetes.cri.pod-annotations': true },
});
const standard = 'k8s.v1.cni.cncf.io/networks';

test('a pod has the networks of its annotation, by name or file, or those by default', async (t) => {
  const host = await makeHostWithNetworks(t);
  await host.run(['mv', '/etc/cni/net.d/22-backup.conflist', '/etc/cni/net.d/22-weave.conflist']);
  for (const [annotations, interfaces, first] of [
    [{ cni: 'weave,storage@st4,pods' }, ['eth0', 'eth1', 'st4'], /^10\.41\.2\./],
    [{ cni: 'backup' }, ['eth0'], /^10\.41\.2\./],
    [{}, ['eth0'], /^10\.41\.3\./],
    // The first network on disk is that of the cluster.
    [{ [standard]: 'shop/backup,storage' }, ['eth0', 'eth1', 'eth2'], /^10\.41\.0\./],
    [{ cni: ' ', [standard]: 'storage@st0' }, ['eth0', 'st0'], /^10\.41\.0\./],
    [{ cni: 'backup', [standard]: 'storage' }, ['eth0', 'eth1'], /^10\.41\.0\./],
    // Chosen by load, in which packets that the kernel itself has just sent by a bridge count, too.
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

const bare = several('genie', { capabilities: network.plugins[0]!.capabilities });

test('without networks by default, a pod that names none has that of the first file that can be used', async (t) => {
  const host = await makeHostWithNetworks(t);
  const [, , backup] = named;
  const single = { name: 'backup', cniVersion: '1.1.0', ...backup!.plugins[0] };
  for (const [file, content] of [
    ['00-genie.conf', { name: 'several', cniVersion: '1.1.0', ...bare.plugins[0] }],
    ['01-torn.conflist', {}],
    ['02-backup.conf', single],
  ] as const)
    writeFileSync(host.file(`/etc/cni/net.d/${file}`), JSON.stringify(content));
  const pod = await attach(host, bare, annotated({}));
  t.regex((await ipv4Of(pod.pod, 'eth0'))[0]!, /^10\.41\.2\./);
  t.is((await runNetworkVerb(host, bare, 'STATUS')).exit, 0);
  await pod.del();
  t.deepEqual(mentions(host, pod.pod), []);
  await host.run(['sh', '-c', 'cd /etc/cni/net.d; mv 00-genie.conf /run; rm *; mv /run/00-genie.conf .']);
  const refused = await new Attachment(host, await host.addPod(), bare, annotated({})).tryAdd();
  t.regex(refused.error!.msg, /"\/etc\/cni\/net\.d" has no network .* by default/);
  t.regex((await runNetworkVerb(host, bare, 'STATUS')).error!.msg, /has no network .* by default/);
});

for (const [asked, expected] of [
  ['pods,storage@eth2,backup', { pods: 'eth0', storage: 'eth2', backup: 'eth1' }],
  ['pods,storage@eth4,backup', { pods: 'eth0', storage: 'eth4', backup: 'eth1' }],
  ['storage@eth4,backup', { storage: 'eth4', backup: 'eth0' }],
  ['storage,backup@eth0', { storage: 'eth1', backup: 'eth0' }],
] as const)
  test(`interfaces of "${asked}" are numbered as CNI-Genie does`, async (t) => {
    const host = await makeHostWithNetworks(t);
    const one = await attach(host, network, annotated({ cni: asked }));
    const { pod } = one;
    const saved = savedOf(host, pod, 'genie').map(({ Name, ifnameRequest }) => [Name, ifnameRequest]);
    t.deepEqual(Object.fromEntries(saved), expected);
    t.deepEqual(await interfacesOf(pod), Object.values(expected).sort());
    t.deepEqual(
      one.result!.ips!.map(({ address }) => address),
      await ipv4Of(pod, 'eth0'),
    );
    // As for a pod that CNI-Genie has attached: nothing is saved of its networks.
    rmSync(host.file(`/var/lib/cni/genie/${pod.containerId}`));
    await one.del();
    t.deepEqual(await interfacesOf(pod), []);
    t.deepEqual(mentions(host, pod), []);
  });

for (const [what, annotations, message] of [
  ['without the interface of the runtime', { cni: 'storage@eth4' }, /asks for the interface "eth0".*"eth4"/],
  ['of one name', { cni: 'storage@eth0,backup@eth0' }, /are both to have the interface "eth0"/],
  ['with one of the cluster’s name', { [standard]: 'storage@eth0' }, /are both to have the interface "eth0"/],
  ['of LogicalNetworks', { cni: '', networks: 'lan' }, /LogicalNetworks "lan", which are not supported/],
] as const)
  test(`interfaces ${what} are refused`, async (t) => {
    const host = await makeHostWithNetworks(t);
    const refused = new Attachment(host, await host.addPod(), network, annotated(annotations as never));
    t.regex((await refused.tryAdd()).error!.msg, message);
    t.deepEqual(await interfacesOf(refused.pod), []);
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
