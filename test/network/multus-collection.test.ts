/** GC of multus and genie beside attachments to the same networks by other networks, directories, plugins. */

import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import test from 'ava';
import { fail, findPoints } from '../proof/injection.ts';
import {
  Attachment,
  attach,
  type Conflist,
  pluginConfig,
  runNetworkVerb,
  validKeys,
} from '../support/chain.ts';
import { command } from '../support/command.ts';
import type { Host } from '../support/host.ts';
import { until } from '../support/observe.ts';
import { type PrintedError, runPlugin, suites } from '../support/plugin.ts';
import {
  annotated,
  annotatedMultus,
  interfacesOf,
  makeHostWithNetworks,
  mentions,
  several,
  writeNetworks,
} from '../support/several.ts';
import { makeSlowIpam } from '../support/slow-ipam.ts';

const capabilities = { 'io.kubernetes.cri.pod-annotations': true };
const multus = annotatedMultus;
const genie = { ...several('genie', { default_plugin: 'pods', capabilities }), name: 'genies' };
const asking = annotated({ 'k8s.v1.cni.cncf.io/networks': 'storage', cni: 'pods,storage' });

/** Adds a pod by the command, which keeps libcni's cache. @returns the container ID that it saves. */
async function addByCommand(host: Host, network: Conflist): Promise<{ containerId: string; netns: string }> {
  writeFileSync(host.file(`/etc/cni/net.d/80-${network.name}.conflist`), JSON.stringify(network));
  const { netns } = await host.addPod();
  await host.run([command, 'add', network.name, netns], { env: { CNI_PATH: suites.ours } });
  const [containerId] = readdirSync(host.file('/var/lib/cni/elsewhere'));
  return { containerId: containerId!, netns };
}

/** An address of "storage" that only host-local still knows. */
async function forget(host: Host): Promise<{ containerId: string }> {
  await runPlugin(host, 'host-local', 'ADD', {
    ...{ containerId: 'forgotten', netns: '/run/netns/none' },
    config: {
      ...{ cniVersion: '1.1.0', name: 'storage', type: 'macvlan' },
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.41.1.0/24' }]] },
    },
  });
  return { containerId: 'forgotten' };
}

for (const [whose, collected, other] of [
  ['multus', multus, genie],
  ['genie', genie, multus],
] as const)
  test(`GC of ${whose} leaves what living pods of the other plugin have on the same networks`, async (t) => {
    const host = await makeHostWithNetworks(t);
    const own = await attach(host, collected, asking);
    const foreign = await attach(host, other, asking);
    const forgotten = await forget(host);
    const [ofOwn, ofForeign] = [own, foreign].map(({ pod }) => mentions(host, pod));
    const valid = [{ containerID: own.pod.containerId, ifname: 'eth0' }];
    const { exit, stderr } = await runNetworkVerb(host, collected, 'GC', { valid });
    t.is(exit, 0, stderr);
    t.deepEqual(mentions(host, own.pod), ofOwn);
    t.deepEqual(mentions(host, foreign.pod), ofForeign);
    t.deepEqual(mentions(host, forgotten as never), []);
    await own.check();
    await foreign.check();
  });

test('GC leaves what pods have whose networks are saved in another directory, and touches no network when it is not known', async (t) => {
  const host = await makeHostWithNetworks(t);
  // The keys of a plugin's configuration count whatever their case.
  const elsewhere = several('multus', { clusterNetwork: 'storage', cnidir: '/var/lib/cni/elsewhere' });
  const { containerId, netns } = await addByCommand(host, { ...elsewhere, name: 'elsewhere' });
  const own = await attach(host, multus, asking);
  const mentionsOf = () => mentions(host, { containerId } as never);
  const before = mentionsOf();
  t.true(before.some((file) => file.includes('/networks/storage/')));
  const valid = [{ containerID: own.pod.containerId, ifname: 'eth0' }];
  const collect = async () => {
    await forget(host);
    const { exit, stderr } = await runNetworkVerb(host, multus, 'GC', { valid });
    t.is(exit, 0, stderr);
    return { stderr, forgotten: mentions(host, { containerId: 'forgotten' } as never) };
  };
  t.deepEqual((await collect()).forgotten, []);
  t.deepEqual(mentionsOf(), before);

  const file = join('/var/lib/cni/elsewhere', containerId);
  rmSync(host.file(file));
  const lost = await collect();
  t.regex(lost.stderr, new RegExp(`Nothing is saved of the networks of 1 container.*${containerId}`));
  t.is(lost.forgotten.length, 1);
  t.deepEqual(
    mentionsOf(),
    before.filter((one) => one !== file),
  );

  // A container that is gone keeps nothing from being collected, even if what was saved of it is lost.
  await host.run(['ip', 'netns', 'delete', basename(netns)]);
  const { stderr, forgotten } = await collect();
  t.notRegex(stderr, /Nothing is saved/);
  t.deepEqual(forgotten, []);
  t.false(mentionsOf().some((one) => one.includes('/networks/storage/')));
  await own.check();
});

test('pods whose network saves elsewhere since they were added stay as long as the runtime knows them', async (t) => {
  const host = await makeHostWithNetworks(t);
  const keys = { clusterNetwork: 'storage' };
  const { containerId } = await addByCommand(
    host,
    several('multus', { ...keys, cniDir: '/var/lib/cni/elsewhere' }),
  );
  const mentionsOf = () => mentions(host, { containerId } as never);
  const before = mentionsOf();
  const collect = async (...containers: string[]) => {
    await forget(host);
    const valid = containers.map((containerID) => ({ containerID, ifname: 'eth0' }));
    const { exit, stderr } = await runNetworkVerb(host, several('multus', keys), 'GC', { valid });
    t.is(exit, 0, stderr);
    t.deepEqual(mentions(host, { containerId: 'forgotten' } as never), []);
  };
  await collect(containerId);
  t.deepEqual(mentionsOf(), before);
  await collect();
  t.deepEqual(
    mentionsOf().filter((one) => !one.includes('/results/')),
    [],
  );
});

test('what genie added is collected by the multus that has taken its place', async (t) => {
  const host = await makeHostWithNetworks(t);
  const pod = await attach(host, several('genie', { default_plugin: 'pods', capabilities }), asking);
  t.true(mentions(host, pod.pod).some((file) => file.includes('/genie/')));
  const { exit, stderr } = await runNetworkVerb(host, multus, 'GC', { valid: [] });
  t.is(exit, 0, stderr);
  t.deepEqual(mentions(host, pod.pod), []);
});

test('GC that is short of files takes nothing from living pods, whichever file it cannot open', async (t) => {
  const host = await makeHostWithNetworks(t);
  const elsewhere = several('multus', { clusterNetwork: 'storage', cnidir: '/var/lib/cni/elsewhere' });
  const { containerId } = await addByCommand(host, { ...elsewhere, name: 'elsewhere' });
  const own = await attach(host, multus, asking);
  const present = () => [mentions(host, { containerId } as never), mentions(host, own.pod)];
  const before = present();
  const valid = [{ containerID: own.pod.containerId, ifname: 'eth0' }];
  const stdin = JSON.stringify({ ...pluginConfig(multus, multus.plugins[0]!), ...validKeys(valid) });
  const start = { type: 'multus', stdin, env: { CNI_COMMAND: 'GC', CNI_PATH: suites.ours } };
  const { points } = await findPoints(host, start);
  let failures = 0;
  // Every third, as each takes a start under strace.
  for (const point of points.filter(({ call }) => call === 'openat').filter((_, i) => i % 3 === 0)) {
    const { exit, stdout, isReached } = await fail(host, start, point, 'EMFILE');
    t.deepEqual(present(), before, point.text);
    if (exit === 0 || !isReached) continue;
    failures++;
    t.true((JSON.parse(stdout) as PrintedError).msg.length > 0, point.text);
  }
  t.true(failures > 2, `${failures}`);
  await forget(host);
  t.is((await runNetworkVerb(host, multus, 'GC', { valid })).exit, 0);
  t.deepEqual(mentions(host, { containerId: 'forgotten' } as never), []);
  t.deepEqual(present(), before);
});

test('GC leaves a pod alone that is being attached', async (t) => {
  const host = await makeHostWithNetworks(t);
  const directory = makeSlowIpam(host);
  const slow = { type: 'bridge', bridge: 'br8', ipam: { type: 'slow' } };
  writeNetworks(host, [{ cniVersion: '1.1.0', name: 'slow', plugins: [slow] }]);
  const env = { CNI_PATH: `${suites.ours}:${directory}` };
  const asked = annotated({ 'k8s.v1.cni.cncf.io/networks': 'storage,slow' });
  const one = new Attachment(host, await host.addPod(), multus, { ...asked, env });
  const adding = one.tryAdd();
  await until('the IPAM plugin waits', async () => existsSync(host.file(`${directory}/waiting`)));
  const { exit, stderr } = await runNetworkVerb(host, multus, 'GC', { valid: [], env });
  t.is(exit, 0, stderr);
  writeFileSync(host.file(`${directory}/go`), '');
  t.is((await adding).exit, 0);
  t.deepEqual(await interfacesOf(one.pod), ['eth0', 'net1', 'net2']);
  await one.check();
  await runNetworkVerb(host, multus, 'GC', { valid: [], env });
  t.deepEqual(await interfacesOf(one.pod), []);
  t.deepEqual(mentions(host, one.pod), []);
});
