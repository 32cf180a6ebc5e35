/** multus: what is saved of a pod's networks, by Multus or by this suite. */

import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'ava';
import { fail } from '../proof/injection.ts';
import { Attachment, attach, type Conflist, pluginConfig, runNetworkVerb } from '../support/chain.ts';
import type { Host, Pod } from '../support/host.ts';
import { suites } from '../support/plugin.ts';
import {
  annotated,
  annotatedMultus,
  interfacesOf,
  ipv4Of,
  makeHostWithNetworks,
  mentions,
  named,
  savedOf,
  settled,
  several,
  writeNetworks,
} from '../support/several.ts';

const standard = 'k8s.v1.cni.cncf.io/networks';
const fileOf = (host: Host, { containerId }: Pod) => host.file(`/var/lib/cni/multus/${containerId}`);

test('the plugins of what Multus saved get the CNI_ARGS of the call', async (t) => {
  const host = await makeHostWithNetworks(t);
  await host.run(['mkdir', '/run/bin']);
  const script = '#!/bin/sh\necho "$CNI_COMMAND $CNI_IFNAME $CNI_ARGS" >> /run/calls; echo "{}"\n';
  writeFileSync(host.file('/run/bin/telling'), script, { mode: 0o755 });
  const env = { CNI_PATH: `${suites.ours}:/run/bin` };
  const telling = (name: string) => ({
    ...{ Name: name },
    Bytes: Buffer.from(
      JSON.stringify({ cniVersion: '1.0.0', name, plugins: [{ type: 'telling' }] }),
    ).toString('base64'),
  });
  const pod = await host.addPod();
  const file = fileOf(host, pod);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify([telling('first'), telling('second')]));
  const { args } = annotated({});
  const attachment = new Attachment(host, pod, several('multus', { clusterNetwork: 'pods' }), {
    args: `${args};IP=10.41.0.9`,
    env,
  });
  await attachment.check();
  await attachment.del();
  const own = args!.replace('IgnoreUnknown=1;', '');
  // Networks are detached all at once.
  t.deepEqual(readFileSync(host.file('/run/calls'), 'utf8').trim().split('\n').sort(), [
    `CHECK eth0 ${args};IP=10.41.0.9`,
    `CHECK net1 IgnoreUnknown=1;${own}`,
    `DEL eth0 ${args};IP=10.41.0.9`,
    `DEL net1 IgnoreUnknown=1;${own}`,
  ]);
});

/** What Multus reads of an element, and by what it decides. Source: CmdDel of its pkg/multus. */
interface Element {
  ConfList: { plugins?: { type: string }[] };
  Bytes: string;
  ifnameRequest?: string;
}

/** The network that Multus takes an element for: "Bytes" is a list if "ConfList" has plugins, else one plugin. */
function asMultusReads({ ConfList: { plugins = [] }, Bytes }: Element): Conflist {
  const value = JSON.parse(Buffer.from(Bytes, 'base64').toString());
  if (plugins.length > 0) return value;
  const { name, cniVersion, type } = value;
  if (typeof type !== 'string') throw new Error("missing 'type'");
  return { name, cniVersion, plugins: [value] };
}

test('Multus can detach what is saved here', async (t) => {
  const host = await makeHostWithNetworks(t);
  const { plugins } = named.find(({ name }) => name === 'backup')!;
  writeNetworks(host, [{ cniVersion: '1.1.0', name: 'tuned', plugins: [...plugins, { type: 'tuning' }] }]);
  const network = annotatedMultus;
  const { pod } = await attach(host, network, annotated({ [standard]: 'storage,tuned@fast' }));
  const elements: Element[] = JSON.parse(readFileSync(fileOf(host, pod), 'utf8'));
  t.deepEqual(
    elements.map(({ ConfList, ifnameRequest }) => [ifnameRequest, ConfList.plugins]),
    [
      ['eth0', [{ type: 'bridge' }, { type: 'portmap' }]],
      ['net1', [{ type: 'macvlan' }]],
      ['fast', [{ type: 'bridge' }, { type: 'tuning' }]],
    ],
  );
  for (const one of elements.toReversed())
    await new Attachment(host, pod, asMultusReads(one), { ifname: one.ifnameRequest! }).del();
  t.deepEqual(await interfacesOf(pod), []);
  // libcni forgets its results by itself.
  const own = mentions(host, pod).filter((file) => !file.includes('/results/'));
  t.deepEqual(own, [`/var/lib/cni/multus/${pod.containerId}`]);
});

test('Multus finds the results of what is saved here in its cache, and DEL, GC and a failing ADD clear it', async (t) => {
  const host = await makeHostWithNetworks(t);
  const network = annotatedMultus;
  const results = host.file('/var/lib/cni/multus/results');
  const cached = () =>
    Object.fromEntries(
      readdirSync(results).map((name) => [name, JSON.parse(readFileSync(join(results, name), 'utf8'))]),
    );
  const env = annotated({ [standard]: 'storage,tuned@fast' });
  writeNetworks(host, [
    { cniVersion: '0.4.0', name: 'tuned', plugins: [...named[2]!.plugins, { type: 'tuning' }] },
  ]);
  const one = await attach(host, network, env);
  const { containerId, netns } = one.pod;
  const keys = [
    ['pods', 'eth0'],
    ['storage', 'net1'],
    ['tuned', 'fast'],
  ] as const;
  t.deepEqual(
    Object.keys(cached()).sort(),
    keys.map(([name, ifname]) => `${name}-${containerId}-${ifname}`),
  );
  for (const [name, ifname] of keys) {
    const {
      config,
      result,
      cniArgs,
      capabilityArgs: _,
      ...rest
    } = cached()[`${name}-${containerId}-${ifname}`];
    t.deepEqual(rest, { kind: 'cniCacheV1', containerId, ifName: ifname, networkName: name, netns });
    t.is(JSON.parse(Buffer.from(config, 'base64').toString()).name, name);
    t.is(result.cniVersion, name === 'tuned' ? '0.4.0' : '1.1.0');
    t.deepEqual(
      result.ips.map(({ address }: { address: string }) => address).sort(),
      (await ipv4Of(one.pod, ifname)).sort(),
    );
    t.true(cniArgs.some(([key]: string[]) => key === 'K8S_POD_NAME'));
  }
  t.is(statSync(results).mode & 0o777, 0o700);
  t.deepEqual(
    [...new Set(readdirSync(results).map((name) => statSync(join(results, name)).mode & 0o777))],
    [0o600],
  );

  // Killed while it wrote.
  writeFileSync(join(results, `storage-${containerId}-net1.4194305.tmp`), '{');
  await one.del();
  t.deepEqual(readdirSync(results), []);

  const lost = await attach(host, network, env);
  writeFileSync(join(results, `storage-${lost.pod.containerId}-net1.4194305.tmp`), '{');
  t.is((await runNetworkVerb(host, network, 'GC', { valid: [] })).exit, 0);
  t.deepEqual(readdirSync(results), []);
  t.deepEqual(await interfacesOf(lost.pod), []);

  const failing = new Attachment(
    host,
    await host.addPod(),
    network,
    annotated({ [standard]: 'storage,nowhere' }),
  );
  t.not((await failing.tryAdd()).exit, 0);
  t.deepEqual(readdirSync(results), []);
});

test('what Multus attached is taken down by the results in its cache, down to the rules of the firewall', async (t) => {
  const host = await makeHostWithNetworks(t);
  const [pods, , backup] = named.map((one): Conflist => ({ ...one, cniVersion: '1.0.0' }));
  const walled = { ...pods!, plugins: [pods!.plugins[0]!, { type: 'firewall', backend: 'iptables' }] };
  const pod = await host.addPod();
  const { args } = annotated({});
  const ofMultus = `${args};MAC=02:00:00:00:00:42`;
  const directory = host.file('/var/lib/cni/multus');
  mkdirSync(`${directory}/results`, { recursive: true });
  const saved = [];
  // A list and a single plugin, as Multus writes them. Source: DelegateNetConf of its pkg/types.
  for (const [network, ifname, isList] of [
    [walled, 'eth0', true],
    [backup!, 'net1', false],
  ] as const) {
    const attachment = new Attachment(host, pod, network, { ifname, suite: 'reference' });
    const result = await attachment.add();
    const { name, cniVersion, plugins } = network;
    const bytes = Buffer.from(JSON.stringify(isList ? network : { name, cniVersion, ...plugins[0] }));
    const short = plugins.map(({ type }) => ({ type, ipam: {}, dns: {} }));
    saved.push({
      Conf: isList ? { ipam: {}, dns: {} } : { name, cniVersion, ...short[0] },
      ConfList: isList ? { name, cniVersion, plugins: short } : {},
      ...{ Name: `shop/${name}`, IsFilterV4Gateway: false, IsFilterV6Gateway: false },
      Bytes: bytes.toString('base64'),
    });
    const cached = {
      ...{ kind: 'cniCacheV1', containerId: pod.containerId, config: bytes.toString('base64') },
      ...{ ifName: ifname, networkName: name, netns: pod.netns, result },
      cniArgs: ofMultus.split(';').map((pair) => pair.split('=')),
    };
    writeFileSync(`${directory}/results/${name}-${pod.containerId}-${ifname}`, JSON.stringify(cached));
  }
  writeFileSync(fileOf(host, pod), JSON.stringify(saved));
  const [eth0] = await ipv4Of(pod, 'eth0');
  const rules = () => host.run(['iptables-save']);
  const own = `-s ${eth0!.split('/')[0]}/32`;
  t.true((await rules()).includes(own));
  // The foreign plugin notes what it is given.
  await host.run(['mkdir', '/run/bin']);
  const script = '#!/bin/sh\necho "$CNI_COMMAND $CNI_IFNAME $CNI_ARGS" >> /run/calls; exec $REAL/bridge\n';
  writeFileSync(host.file('/run/bin/bridge'), script, { mode: 0o755 });
  const env = { CNI_PATH: `/run/bin:${suites.ours}`, REAL: suites.ours };
  await new Attachment(host, pod, several('multus', { clusterNetwork: 'pods' }), { args: args!, env }).del();
  t.false((await rules()).includes(own));
  t.deepEqual(await interfacesOf(pod), []);
  t.deepEqual(mentions(host, pod), []);
  t.deepEqual(readFileSync(host.file('/run/calls'), 'utf8').trim().split('\n'), [
    `DEL net1 ${ofMultus}`,
    `DEL eth0 ${ofMultus}`,
  ]);
});

test('GC that is short of files fails, in place of leaving a container to nobody', async (t) => {
  const host = await makeHostWithNetworks(t);
  const network = annotatedMultus;
  const one = await attach(host, network, annotated({ [standard]: 'storage' }));
  const other = await attach(host, network, annotated({ [standard]: 'storage' }));
  await one.pod.remove();
  await other.pod.remove();
  const stdin = JSON.stringify({
    ...pluginConfig(network, network.plugins[0]!),
    'cni.dev/valid-attachments': [],
  });
  const start = { type: 'multus', stdin, env: { CNI_COMMAND: 'GC', CNI_PATH: suites.ours } };
  // The first time, it is opened to be listed, and then for each file in it.
  const { exit, stdout } = await fail(
    host,
    start,
    { call: 'openat', nth: 3, path: '/var/lib/cni/multus' },
    'EMFILE',
  );
  t.is(exit, 1);
  t.like(JSON.parse(stdout), { code: 5 });
  t.regex(stdout, /Cannot read .*\/var\/lib\/cni\/multus\/.* too many open files/);
  const left = [one, other].filter(({ pod }) => mentions(host, pod).length > 0);
  t.is(left.length, 1);
  t.is((await runNetworkVerb(host, network, 'GC', { valid: [] })).exit, 0);
  for (const { pod } of [one, other]) t.deepEqual(mentions(host, pod), []);
});

test('DEL that is short of files keeps what is saved, and is done when it is repeated', async (t) => {
  const host = await makeHostWithNetworks(t);
  const network = annotatedMultus;
  const one = new Attachment(host, await host.addPod(), network);
  const { containerId, netns } = one.pod;
  const CNI = { CNI_COMMAND: 'DEL', CNI_CONTAINERID: containerId, CNI_NETNS: netns, CNI_IFNAME: 'eth0' };
  const env = { ...CNI, CNI_PATH: suites.ours };
  // Without the annotation, only what is saved tells which network it is.
  const start = { type: 'multus', stdin: JSON.stringify(pluginConfig(network, network.plugins[0]!)), env };
  // What the directory is opened for, in this order.
  for (const [index, purpose] of ['read', 'read', 'remove'].entries()) {
    await one.add(annotated({ [standard]: 'storage' }));
    const point = { call: 'openat', nth: index + 1, path: '/var/lib/cni/multus' };
    const { exit, stdout } = await fail(host, start, point, 'EMFILE');
    t.is(exit, 1);
    t.regex(stdout, new RegExp(`Cannot ${purpose} .*multus.* too many open files\\. Raise its limit`));
    t.deepEqual(
      savedOf(host, one.pod).map(({ Name }) => Name),
      ['pods', 'storage'],
    );
    await one.del();
    t.deepEqual(await interfacesOf(one.pod), []);
    t.deepEqual(mentions(host, one.pod), []);
  }
});

test('DEL and CHECK pass over one network that cannot be used, and say so', async (t) => {
  const host = await makeHostWithNetworks(t);
  const network = annotatedMultus;
  const one = await attach(host, network, annotated({ [standard]: 'storage,backup' }));
  const [pods, storage, backup] = savedOf(host, one.pod);
  writeFileSync(fileOf(host, one.pod), JSON.stringify([pods, { ...storage, Bytes: 'AAAA' }, backup]));
  const passedOver = /Network 2 of those saved in "\/var\/lib\/cni\/multus\/.*" is passed over/;
  t.regex((await one.tryCheck()).stderr, passedOver);
  const { exit, stderr } = await one.tryDel();
  t.is(exit, 0);
  t.regex(stderr, passedOver);
  t.deepEqual(await interfacesOf(one.pod), ['net1']);
});

/** More than a file may have, in bytes. */
const tooLarge = 1024 * 1024 + 1;

/** A network whose default network has a configuration of that length. */
const padded = (length: number) =>
  several('multus', {
    delegates: [
      {
        ...{ name: 'padded', type: 'bridge', bridge: 'br8', padding: 'x'.repeat(length) },
        ipam: { type: 'host-local', ranges: [[{ subnet: '10.41.8.0/24' }]] },
      },
    ],
  });

for (const when of ['at once', 'with what ADD gave'])
  test(`ADD takes everything back when what is to be saved is too large ${when}`, async (t) => {
    const host = await makeHostWithNetworks(t);
    const small = await attach(host, padded(0));
    // The configuration is saved in base64, which has 4 characters for 3 bytes, and the result is longer than that.
    const missing = tooLarge + 100 - statSync(fileOf(host, small.pod)).size;
    await small.del();
    await small.pod.remove();
    const before = await settled(host);
    const network = padded(when === 'at once' ? tooLarge : Math.ceil((missing * 3) / 4));
    const attachment = new Attachment(host, await host.addPod(), network);
    const { error, stderr } = await attachment.tryAdd();
    t.regex(error!.msg, /"\/var\/lib\/cni\/multus\/.*" would have \d+ bytes, more than the 1048576/);
    t.notRegex(stderr, /While undoing/);
    t.deepEqual(await interfacesOf(attachment.pod), []);
    t.deepEqual(mentions(host, attachment.pod), []);
    t.deepEqual({ ...(await settled(host)), sandboxes: [] }, { ...before, sandboxes: [] });
  });

test('DEL of what was not saved says which result it cannot forget, and is done', async (t) => {
  const host = await makeHostWithNetworks(t);
  const one = await attach(host, annotatedMultus, annotated({ [standard]: 'backup' }));
  rmSync(fileOf(host, one.pod));
  const result = host.file(`/var/lib/cni/multus/results/pods-${one.pod.containerId}-eth0`);
  rmSync(result);
  mkdirSync(result);
  const { exit, stderr } = await one.tryDel();
  t.is(exit, 0, stderr);
  t.regex(stderr, /GC forgets the results of the container's networks: Cannot remove/);
  t.notRegex(stderr, /Nothing was saved/);
  t.deepEqual(await interfacesOf(one.pod), []);
});
