/** `cni attach` and `cni detach`, and what the operators' command knows of a pod with several networks. */

import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { type Attachment, attach, runNetworkVerb } from '../support/chain.ts';
import type { Host } from '../support/host.ts';
import { files, routes, until } from '../support/observe.ts';
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
import { makeSlowIpam } from '../support/slow-ipam.ts';

const network = annotatedMultus;
const asking = (networks: string) => annotated({ 'k8s.v1.cni.cncf.io/networks': networks });

const cni = (host: Host, args: readonly string[], env: NodeJS.ProcessEnv = {}) =>
  host.tryRun([join(suites.ours, 'cni'), ...args], { env: { CNI_PATH: suites.ours, ...env } });

test('a running pod is attached and detached, and its DEL and CHECK include the network', async (t) => {
  const host = await makeHostWithNetworks(t);
  const one = await attach(host, network, asking(''));
  const { pod } = one;
  for (const verb of ['attach', 'detach'])
    for (const name of ['backup', 'storage']) await cni(host, [verb, pod.containerId, name]);
  const before = await settled(host);

  const attached = await cni(host, ['attach', 'shop/web', 'backup']);
  t.is(attached.exit, 0, attached.stderr);
  t.regex(
    attached.stdout,
    /^Pod "shop\/web" has the interface "net1" on network "backup", with 10\.41\.2\.\d+\/24\.$/m,
  );
  t.true(attached.stdout.includes((await ipv4Of(pod, 'net1'))[0]!));
  const further = await cni(host, ['attach', 'web', 'storage', '--ifname', 'st0'], {
    CAP_ARGS: '{"ips": ["10.41.1.99"]}',
  });
  t.is(further.exit, 0, further.stderr);
  t.deepEqual(await ipv4Of(pod, 'st0'), ['10.41.1.99/24']);
  await one.check();
  await pod.run(['ip', 'link', 'set', 'st0', 'down']);
  t.regex((await one.tryCheck()).error!.msg, /Network "storage", interface "st0"/);

  for (const name of ['backup', 'storage']) {
    const detached = await cni(host, ['detach', 'web', name, '--trace']);
    t.is(detached.exit, 0, detached.stderr);
    t.regex(detached.stdout + detached.stderr, /"prevResult"/, 'plugins get the result of ADD');
  }
  t.deepEqual(await interfacesOf(pod), ['eth0']);
  t.deepEqual(await settled(host), before);

  await cni(host, ['attach', 'web', 'storage']);
  t.deepEqual(await interfacesOf(pod), ['eth0', 'net1']);
  await one.del();
  t.deepEqual(await interfacesOf(pod), []);
  t.deepEqual(mentions(host, pod), []);
});

test('the default route stays with the network that has it', async (t) => {
  const host = await makeHostWithNetworks(t);
  const one = await attach(host, network, asking(''));
  t.is((await cni(host, ['attach', 'web', 'uplink'])).exit, 0);
  const defaults = (await routes(one.pod)).filter(({ dst }) => dst === 'default');
  t.deepEqual(
    defaults.map(({ dev, gateway }) => [dev, gateway]),
    [['eth0', '10.41.0.1']],
  );
  await one.check();
});

test('an attachment that fails leaves nothing, and spares what others have made', async (t) => {
  const host = await makeHostWithNetworks(t);
  const broken = {
    cniVersion: '1.1.0',
    name: 'broken',
    plugins: [
      { type: 'bridge', bridge: 'br8', ipam: { type: 'host-local', ranges: [[{ subnet: '10.41.8.0/24' }]] } },
      { type: 'tuning', sysctl: { 'net.missing': '1' } },
    ],
  };
  writeNetworks(host, [broken], '/etc/cni/net.d/more');
  await host.run([
    'sh',
    '-c',
    'mv /etc/cni/net.d/more/* /etc/cni/net.d/80-broken.conflist; rmdir /etc/cni/net.d/more',
  ]);
  const one = await attach(host, network, asking('storage'));
  await one.pod.run(['ip', 'link', 'add', 'mine', 'type', 'veth', 'peer', 'name', 'yours']);
  await cni(host, ['attach', 'web', 'broken']);
  const before = await settled(host);
  const failed = await cni(host, ['attach', 'web', 'broken']);
  t.is(failed.exit, 1);
  t.regex(failed.stderr, /Plugin "tuning" failed ADD/);
  for (const [args, pattern] of [
    [['attach', 'web', 'backup', '--ifname', 'mine'], /has an interface "mine" already/],
    [['attach', 'web', 'backup', '--ifname', 'a/b'], /interface "a\/b".*contains/],
    [['attach', 'web', 'missing'], /No configuration in .* has the network "missing"/],
    [
      ['attach', 'nobody', 'backup'],
      /Nothing on this host is called "nobody"\. Give a pod or a container ID/,
    ],
    [['detach', 'web', 'pods'], /"pods" is the default network of pod "shop\/web"/],
    [
      ['detach', 'web', 'backup'],
      /is not attached to network "backup"\. It has "pods" \(eth0\), "storage" \(net1\)/,
    ],
    [['detach', '', 'storage'], /Nothing on this host is called ""/],
    [['detach', one.pod.containerId.slice(0, 3), 'storage'], /Nothing on this host is called/],
    [['detach', 'web', 'storage', '--ifname', 'net7'], /is not attached to network "storage"/],
  ] as const) {
    const { exit, stderr } = await cni(host, args);
    t.is(exit, 1);
    t.regex(stderr, pattern);
  }
  t.is((await cni(host, ['attach', 'web'])).exit, 2);
  t.deepEqual(await interfacesOf(one.pod), ['eth0', 'mine', 'net1', 'yours']);
  t.deepEqual(await settled(host), before);
});

for (const [what, meanwhile, expected] of [
  ['attached to another', (host: Host) => cni(host, ['attach', 'web', 'backup']), ['eth0', 'net1', 'net2']],
  ['detached from another', (host: Host) => cni(host, ['detach', 'web', 'storage']), ['eth0', 'net2']],
  ['deleted', (_: Host, one: Attachment, env: NodeJS.ProcessEnv) => one.tryDel({ env }), []],
] as const)
  test(`a pod that is ${what} while it is being attached to a network is so afterwards`, async (t) => {
    const host = await makeHostWithNetworks(t);
    const directory = makeSlowIpam(host);
    const slow = { type: 'bridge', bridge: 'br8', ipam: { type: 'slow' } };
    writeNetworks(host, [{ cniVersion: '1.1.0', name: 'slow', plugins: [slow] }], '/etc/cni/net.d/more');
    await host.run(['sh', '-c', 'cd /etc/cni/net.d; mv more/* 80-slow.conflist; rmdir more']);
    const one = await attach(host, network, asking(what.startsWith('detached') ? 'storage' : ''));
    const env = { CNI_PATH: `${suites.ours}:${directory}` };

    const attaching = cni(host, ['attach', 'web', 'slow'], env);
    await until('the IPAM plugin waits', async () => existsSync(host.file(`${directory}/waiting`)));
    const other = meanwhile(host, one, env);
    // Until it is done, or for as long as it would take if it did not have to wait.
    await Promise.race([other, sleep(3000)]);
    writeFileSync(host.file(`${directory}/go`), '');
    const first = await attaching;
    t.is(first.exit, 0, first.stderr);
    t.is((await other).exit, 0, (await other).stderr);
    t.deepEqual(await interfacesOf(one.pod), expected);
    if (expected.length > 0) {
      await one.check({ env });
      t.deepEqual(
        savedOf(host, one.pod).map(({ ifnameRequest }) => ifnameRequest),
        expected,
      );
      await one.del({ env });
    }
    t.deepEqual(await interfacesOf(one.pod), []);
    t.deepEqual(mentions(host, one.pod), []);
  });

test('an interface that the plugins leave is not said to be gone', async (t) => {
  const host = await makeHostWithNetworks(t);
  const script = `#!/bin/sh\necho '{"cniVersion": "1.0.0"}'\n`;
  await host.run(['mkdir', '/run/bin']);
  writeFileSync(host.file('/run/bin/careless'), script, { mode: 0o755 });
  writeNetworks(host, [{ cniVersion: '1.0.0', name: 'careless', plugins: [{ type: 'careless' }] }]);
  const { pod } = await attach(host, network, asking(''));
  const env = { CNI_PATH: `${suites.ours}:/run/bin` };
  t.is((await cni(host, ['attach', 'web', 'careless'], env)).exit, 0);
  await pod.run(['ip', 'link', 'add', 'net1', 'type', 'veth', 'peer', 'name', 'far']);
  const left = await cni(host, ['detach', 'web', 'careless'], env);
  t.is(left.exit, 1);
  t.regex(left.stderr, /Pod "shop\/web" has the interface "net1" still, though every plugin .* Remove it/);
  t.is(savedOf(host, pod).length, 2);
  await pod.run(['ip', 'link', 'delete', 'net1']);
  const gone = await cni(host, ['detach', 'web', 'careless'], env);
  t.is(gone.exit, 0, gone.stderr);
  t.is(savedOf(host, pod).length, 1);
});

test('what runs in a pod keeps nobody from changing its networks', async (t) => {
  const host = await makeHostWithNetworks(t);
  const one = await attach(host, network, asking(''));
  const { pod } = one;
  // As an unprivileged user; it prints a line once it has the lock.
  const script = 'exec 9</proc/self/ns/net; flock 9; echo held; exec sleep 300';
  const holder = await pod.start(t, ['setpriv', '--reuid=65534', '--clear-groups', 'sh', '-c', script]);
  for (const verb of ['attach', 'detach', 'attach']) {
    const { exit, stderr } = await cni(host, [verb, 'web', 'backup']);
    t.is(exit, 0, stderr);
  }
  await one.del();
  t.deepEqual(await interfacesOf(pod), []);
  t.is(holder.exitCode, null);
  t.deepEqual(files(host, '/run/cni/networks'), {}, 'locks are removed');
});

test('a pod goes also where no lock can be made', async (t) => {
  const host = await makeHostWithNetworks(t);
  const one = await attach(host, network, asking('storage'));
  await host.run(['mount', '-t', 'tmpfs', '-o', 'ro', 'tmpfs', '/run/cni']);
  t.regex((await one.tryAdd()).error?.msg ?? '', /\/run\/cni\/networks.* read-only/);
  const { exit, stdout, stderr } = await one.tryDel();
  t.is(exit, 0, `${stdout}${stderr}`);
  t.regex(stderr, /Going on without a lock on the pod's networks: /);
  t.deepEqual(await interfacesOf(one.pod), []);
  t.deepEqual(mentions(host, one.pod), []);
});

test('a network of genie is attached as well', async (t) => {
  const host = await makeHostWithNetworks(t);
  const nested = { ...several('genie', { default_plugin: 'backup' }), name: 'nested' };
  writeNetworks(host, [nested], '/etc/cni/net.d/more');
  await host.run(['sh', '-c', 'cd /etc/cni/net.d; mv more/* 80-nested.conflist; rmdir more']);
  const one = await attach(host, network, asking(''));
  const attached = await cni(host, ['attach', 'web', 'nested']);
  t.is(attached.exit, 0, attached.stderr);
  t.regex((await ipv4Of(one.pod, 'net1'))[0]!, /^10\.41\.2\./);
  await one.check();
  await one.del();
  t.deepEqual(mentions(host, one.pod), []);
});

test('a pod of another plugin is refused', async (t) => {
  const host = await makeHostWithNetworks(t);
  const pod = await host.addPod();
  t.is((await cni(host, ['add', 'backup', pod.netns])).exit, 0);
  const { exit, stderr } = await cni(host, ['attach', 'cnitool-', 'storage']);
  t.is(exit, 1);
  t.regex(stderr, /on network "backup", which is not of "multus" or "genie"/);
});

test('list shows each network of a pod, and gc keeps them', async (t) => {
  const host = await makeHostWithNetworks(t);
  writeNetworks(host, [network], '/etc/cni/net.d/more');
  await host.run([
    'sh',
    '-c',
    'mv /etc/cni/net.d/more/* /etc/cni/net.d/90-several.conflist; rmdir /etc/cni/net.d/more',
  ]);
  const pod = await host.addPod();
  const env = { CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAME=web;NETWORKS=storage,backup' };
  const added = await cni(host, ['add', 'several', pod.netns], env);
  t.is(added.exit, 0, added.stderr);
  const listed = await cni(host, ['list', '-o', 'json']);
  t.is(listed.exit, 0, listed.stdout + listed.stderr);
  const { attachments } = JSON.parse(listed.stdout);
  t.deepEqual(
    attachments
      .map(({ network, ifname, state }: { network: string; ifname: string; state: string }) => [
        network,
        ifname,
        state,
      ])
      .sort(),
    [
      ['backup', 'net2', 'ok'],
      ['pods', 'eth0', 'ok'],
      ['several', 'eth0', 'ok'],
      ['storage', 'net1', 'ok'],
    ],
  );
  const before = await settled(host);
  const { exit, stdout, stderr } = await cni(host, ['gc']);
  t.is(exit, 0, stdout + stderr);
  t.notRegex(stdout, /Removed/);
  t.deepEqual(await settled(host), before);
  await pod.run(['ip', 'link', 'set', 'net2', 'down']);
  t.regex((await cni(host, ['list', '--network', 'backup'])).stdout, /broken/);

  await pod.remove();
  const collected = await cni(host, ['gc']);
  t.is(collected.exit, 0, collected.stdout + collected.stderr);
  t.deepEqual(mentions(host, pod), []);
  t.is((await runNetworkVerb(host, network, 'STATUS')).exit, 0);
});

for (const cniVersion of ['0.4.0', '1.0.0'])
  test(`a plugin of others gets the result in version ${cniVersion} of its network`, async (t) => {
    const host = await makeHostWithNetworks(t);
    await host.run(['mkdir', '/run/bin']);
    await host.run(['cp', join(suites.reference, 'portmap'), '/run/bin/portmap']);
    const env = { CNI_PATH: `/run/bin:${suites.ours}` };
    const { plugins } = named.find(({ name }) => name === 'pods')!;
    // The network of all pods must have no foreign plugin, as foreign ones do not support its version.
    const plain = several('multus', { ...network.plugins[0], clusterNetwork: 'storage' });
    const mixed = { cniVersion, name: 'mixed', plugins };
    writeNetworks(host, [{ ...mixed, plugins: [{ ...plugins[0]!, bridge: 'br7' }, plugins[1]!] }]);
    const { pod } = await attach(host, plain, { ...asking('mixed'), env });
    const listed = await cni(host, ['list'], env);
    t.is(listed.exit, 0, listed.stdout + listed.stderr);
    const detached = await cni(host, ['detach', 'web', 'mixed'], env);
    t.is(detached.exit, 0, detached.stderr);
    t.deepEqual(await interfacesOf(pod), ['eth0']);

    const other = await host.addPod();
    const file = host.file('/etc/cni/net.d/20-mixed.conflist');
    const verb = async (name: string, version: string) => {
      writeFileSync(
        file,
        readFileSync(file, 'utf8').replace(/"cniVersion":"[^"]*"/, `"cniVersion":"${version}"`),
      );
      const { exit, stderr } = await cni(host, [name, 'mixed', other.netns], env);
      t.is(exit, 0, stderr);
    };
    await verb('add', '0.4.0');
    await verb('check', '1.0.0');
    await verb('del', '1.0.0');
    t.deepEqual(mentions(host, other), []);
  });

test('a network that makes what is saved of the pod too large is not attached', async (t) => {
  const host = await makeHostWithNetworks(t);
  const one = await attach(host, network, asking(''));
  const file = host.file(`/var/lib/cni/multus/${one.pod.containerId}`);
  const define = (padding: number) => {
    const ipam = { type: 'host-local', ranges: [[{ subnet: '10.41.8.0/24' }]] };
    const plugin = { type: 'bridge', bridge: 'br8', padding: 'x'.repeat(padding), ipam };
    writeNetworks(host, [{ cniVersion: '1.1.0', name: 'padded', plugins: [plugin] }]);
  };
  define(0);
  t.is((await cni(host, ['attach', 'web', 'padded'])).exit, 0);
  const { size } = statSync(file);
  t.is((await cni(host, ['detach', 'web', 'padded'])).exit, 0);
  const before = [await settled(host), readFileSync(file, 'utf8')];
  // In base64, the configuration has 4 characters for 3 bytes: with ADD's result, it is 100 too long.
  define(Math.ceil(((1024 * 1024 + 100 - size) * 3) / 4));
  const refused = await cni(host, ['attach', 'web', 'padded']);
  t.is(refused.exit, 1);
  t.regex(refused.stderr, /would have \d+ bytes, more than the 1048576/);
  t.deepEqual(await interfacesOf(one.pod), ['eth0']);
  t.deepEqual([await settled(host), readFileSync(file, 'utf8')], before);
  await one.check();
});
