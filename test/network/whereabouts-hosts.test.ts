/** whereabouts with etcd: hosts of one name, and what stands in the way of a release. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import test from 'ava';
import { writeCached } from '../../cli/libcni/cache.ts';
import { Etcd } from '../support/etcd.ts';
import { type Host, makeHost, Namespace, type Teardown } from '../support/host.ts';
import { logEntries, logFile } from '../support/log.ts';
import { link, until } from '../support/observe.ts';
import { makeOperator } from '../support/operator.ts';
import { makeAuthority, tlsKeys, tlsOptions } from '../support/pki.ts';
import { runPlugin } from '../support/plugin.ts';
import { Cluster, clusterOf } from '../support/whereabouts.ts';

const valid = (...ids: string[]) => ({
  conf: { 'cni.dev/valid-attachments': ids.map((containerID) => ({ containerID, ifname: 'eth0' })) },
});

/** Gives a host the product UUID of its firmware, as in "a" for a00…; "" for none. */
async function identify(host: Host, digit: string): Promise<void> {
  const uuid = digit && `${digit}0000000-0000-4000-8000-000000000000`;
  const script = `directory=/sys/class/dmi/id
    if test -d $directory; then mount -t tmpfs tmpfs $directory
    else mount -t tmpfs tmpfs /sys/class; mkdir -p $directory; fi
    test -z '${uuid}' || echo '${uuid}' > $directory/product_uuid`;
  await host.run(['sh', '-ec', script]);
}

/** Another machine that reaches the etcd of a host. */
async function machineBeside(t: Teardown, host: Host, digit: string): Promise<Namespace> {
  const other = await makeHost(t, { mayHaveAgent: false });
  await identify(other, digit);
  return new Namespace([
    ...['nsenter', `--net=/proc/${host.pid}/ns/net`, `--mount=/proc/${other.pid}/ns/mnt`, '--'],
  ]);
}

/** Writes the keys of an attachment to etcd; without a host, like versions that did not record it. */
async function seed(etcd: Etcd, node: string, id: string, address: number, host?: string): Promise<void> {
  const owner = `/cni/addresses/of/${node}/vlan7/${id}/eth0`;
  const addresses = [{ group: '@', address: `10.70.0.${address}` }];
  await etcd.put(owner, JSON.stringify({ identity: '', addresses, host }));
  const key = `/cni/addresses/in/@/4-0a4600${address.toString(16).padStart(2, '0')}`;
  await etcd.put(key, JSON.stringify({ owner }));
}

/** An operator's host whose network "vlan7" is that of a cluster. */
async function operatorOf(t: Teardown) {
  const operator = await makeOperator(t, []);
  const cluster = new Cluster(operator.host, await Etcd.start(t, operator.host), {});
  const ipam = { type: 'whereabouts', ...cluster.ipam };
  operator.configure({
    cniVersion: '1.1.0',
    name: 'vlan7',
    plugins: [{ type: 'macvlan', master: 'lo', ipam }],
  });
  const owners = async () =>
    Object.keys(await cluster.etcd.all('/cni/addresses/of/'))
      .filter((key) => key.includes('/vlan7/'))
      .map((key) => key.split('/')[6]);
  const gc = async (node: string, self: string, ...more: string[]) => {
    const { exit, stdout, stderr } = await operator.tryCni(['gc', '--node', node, ...more], {
      NODENAME: self,
    });
    return { exit, said: stdout + stderr };
  };
  return { ...operator, cluster, owners, gc };
}

test('two hosts of one name keep their pods apart; what one that is gone had is collected', async (t) => {
  const { host, cluster, configure, owners, gc } = await operatorOf(t);
  await identify(host, 'a');
  const second = { on: await machineBeside(t, host, 'b') };
  const { result: prevResult } = await cluster.run('ADD', 'on-a');
  await cluster.add('on-b', second);
  await cluster.add('stale-b', second);
  await seed(cluster.etcd, 'node-1', 'before', 250);

  const done = await cluster.run('GC', '', valid('on-a'));
  t.is(done.exit, 0, done.stdout);
  t.regex(done.stderr, /Kept 2 attachments of network "vlan7" on another host that is named "node-1", too/);
  t.deepEqual(await owners(), ['on-a', 'on-b', 'stale-b']);
  t.notRegex((await cluster.run('GC', '', { ...second, ...valid('on-a', 'on-b') })).stderr, /another host/);
  t.deepEqual(await owners(), ['on-a', 'on-b']);

  // A node that lives is not collected, and this one never is.
  for (const [self, said] of [
    ['node-9', /Node "node-1" lives/],
    ['node-1', /is this one/],
  ] as const) {
    const refused = await gc('node-1', self);
    t.is(refused.exit, 1);
    t.regex(refused.said, said);
  }
  await cluster.etcd.forgetPresence();
  await cluster.run('STATUS', '');
  // The host that is gone has left nothing on the other network.
  const plugins = [{ type: 'macvlan', master: 'lo', ipam: { type: 'whereabouts', ...cluster.ipam } }];
  configure({ cniVersion: '1.1.0', name: 'vlan8', plugins });
  await cluster.add('on-8', { conf: { name: 'vlan8' } });
  const removed = await gc('node-1', 'node-1');
  t.regex(removed.said, /^Removed on-b eth0/m);
  t.notRegex(removed.said, /is this one/);
  t.is(removed.exit, 0);
  t.deepEqual(await owners(), ['on-a']);
  await cluster.etcd.forgetPresence();
  await cluster.add('new-b', second);
  await cluster.add('new-8', { ...second, conf: { name: 'vlan8' } });
  await cluster.del('on-8', { conf: { name: 'vlan8' } });
  const others = await gc('node-1', 'node-9');
  t.regex(others.said, /^Removed on-a eth0/m);
  t.notRegex(others.said, /lives/);
  t.is(others.exit, 0);
  t.deepEqual(await owners(), ['new-b']);
  t.regex((await cluster.run('CHECK', 'on-a', { prevResult })).error!.msg, /is not reserved/);
});

test('GC that cannot release one says also what it keeps of another host', async (t) => {
  const cluster = await clusterOf(t);
  await identify(cluster.host, 'a');
  await seed(cluster.etcd, 'node-1', 'far', 250, 'other');
  const key = Buffer.from('/cni/addresses/of/node-1/vlan7/broken/eth0').toString('base64');
  await cluster.etcd.ask('/v3/kv/put', { key, value: Buffer.from([0xff]).toString('base64') });
  const { error, stderr } = await cluster.run('GC', '', valid());
  t.regex(error!.msg, /has a value that is not text/);
  t.regex(stderr, /Kept an attachment of network "vlan7" on another host/);
});

test('without a number of the firmware, a machine ID counts if it is not of this boot alone', async (t) => {
  const cluster = await clusterOf(t);
  await identify(cluster.host, '');
  const hostOf = async (id: string) =>
    JSON.parse(
      (await cluster.etcd.all(`/cni/addresses/of/node-1/vlan7/${id}/`))[
        `/cni/addresses/of/node-1/vlan7/${id}/eth0`
      ]!,
    ).host as unknown;
  await cluster.add('a');
  const own = existsSync('/etc/machine-id') ? readFileSync('/etc/machine-id', 'utf8').trim() : '';
  const host = await hostOf('a');
  t.is(typeof host, /^[0-9a-f]{32}$/.test(own) ? 'string' : 'undefined');
  t.not(host, own);
  if (own) {
    await cluster.host.run(['tee', '/run/machine-id'], { stdin: `${'0123456789abcdef'.repeat(2)}\n` });
    await cluster.host.run(['mount', '--bind', '/run/machine-id', '/etc/machine-id']);
    await cluster.add('b');
    t.is(await hostOf('b'), undefined);
  }
  await cluster.del('a');
  // What firmware reports that has no UUID.
  await identify(cluster.host, 'f');
  const [zeros, ones] = ['0', 'f'].map((digit) => '8-4-4-4-12'.replace(/\d+/g, (n) => digit.repeat(+n)));
  for (const uuid of [zeros!, ones!, 'Not Specified']) {
    await cluster.host.run(['tee', '/sys/class/dmi/id/product_uuid'], { stdin: `${uuid}\n` });
    await cluster.add(uuid.slice(0, 3));
    t.is(await hostOf(uuid.slice(0, 3)), own ? undefined : host);
  }
});

test('what hosts have written that told no host is kept while any of that name lives', async (t) => {
  const { cluster, owners, gc, host } = await operatorOf(t);
  await identify(host, 'a');
  await seed(cluster.etcd, 'node-1', 'before', 250);
  await cluster.run('STATUS', '');
  const refused = await gc('node-1', 'node-9');
  t.regex(refused.said, /Node "node-1" lives/);
  // As when the host that came last under the name is gone, but another one lives.
  const key = Buffer.from('/cni/addresses/nodes/node-1').toString('base64');
  await cluster.etcd.ask('/v3/kv/deleterange', { key });
  t.regex((await gc('node-1', 'node-9')).said, /Node "node-1" lives/);
  t.deepEqual(await owners(), ['before']);
  await cluster.etcd.forgetPresence();
  const before = await gc('node-1', 'node-9');
  t.regex(before.said, /^Removed before eth0: 10\.70\.0\.250$/m);
  t.is(before.exit, 0);
  // DEL of an attachment that was written without a host.
  await seed(cluster.etcd, 'node-1', 'before', 250);
  const ips = [{ address: '10.70.0.250/24' }];
  await cluster.del('before', { prevResult: { cniVersion: '1.1.0', ips } });
  t.deepEqual(await cluster.kept(), {});
});

test('attachments that tell no host do not keep those of a host that is gone, nor pass as left behind', async (t) => {
  const { host, cluster, owners, gc } = await operatorOf(t);
  await identify(host, 'a');
  const { etcd } = cluster;
  await seed(etcd, 'node-1', 'before', 250);
  await cluster.add('own');
  // As when a call was killed right after it got its lease; the next one puts the keys.
  const prefix = '/cni/addresses/nodes/';
  const presence = Object.keys(await etcd.all(prefix));
  t.is(presence.length, 2);
  for (const key of presence)
    await etcd.ask('/v3/kv/deleterange', { key: Buffer.from(key).toString('base64') });
  t.is((await cluster.run('STATUS', '')).exit, 0);
  t.deepEqual(Object.keys(await etcd.all(prefix)), presence);
  // As when the lease of callers that tell no host is not granted any more.
  const { said, exit } = await gc('node-1', 'node-9', '--dry-run');
  t.regex(said, /Node "node-1" lives/);
  t.notRegex(said, /Would remove/);
  t.is(exit, 1);
  for (const id of ['a', 'z']) await seed(etcd, 'node-1', id, id.charCodeAt(0), 'gone');
  const done = await gc('node-1', 'node-9');
  t.is(done.exit, 0, done.said);
  t.deepEqual(await owners(), ['before', 'own']);
});

test('gc --node says what it has removed when the node comes back meanwhile', async (t) => {
  const { cluster, owners, gc } = await operatorOf(t);
  await seed(cluster.etcd, 'node-5', 'a', 1, 'gone');
  await seed(cluster.etcd, 'node-5', 'b', 2, 'back');
  await seed(cluster.etcd, 'node-5', 'c', 3, 'gone');
  // Without a lease, the key is noticed only when an attachment is released.
  await cluster.etcd.put('/cni/addresses/nodes/node-5/back', '');
  const { exit, said } = await gc('node-5', 'node-9');
  t.is(exit, 1);
  t.regex(said, /^Removed a eth0: 10\.70\.0\.1$/m);
  t.regex(said, /^vlan7: 1 of 3 attachments of node "node-5" removed so far/m);
  t.regex(said, /Node "node-5" lives/);
  t.notRegex(said, /Removed [bc]/);
  t.deepEqual(await owners(), ['b', 'c']);
});

test("DEL releases what was reserved before the host's node got another name, and nothing of other hosts", async (t) => {
  const cluster = await clusterOf(t, { ipRanges: [{ range: 'fd00:70::/64' }] });
  await identify(cluster.host, 'a');
  const [short, long] = [{ node: 'worker' }, { node: 'worker.example' }];
  for (const quarantine of [0, 600]) {
    const ipam = { quarantine };
    const { result: prevResult } = await cluster.run('ADD', 'a', { ...short, ipam });
    t.is(Object.keys(await cluster.kept()).length, 3);
    await cluster.del('a', { ...long, ipam, prevResult });
    t.deepEqual(Object.keys(await cluster.etcd.all('/cni/addresses/of/')), []);
    t.is(Object.keys(await cluster.kept()).length, quarantine === 0 ? 0 : 2);
  }

  // Also if etcd could not be reached then.
  const { result: late } = await cluster.run('ADD', 'c', short);
  await cluster.etcd.kill(0);
  await cluster.del('c', { ...long, prevResult: late });
  await cluster.etcd.startMember(0);
  await cluster.etcd.untilHealthy();
  t.is((await cluster.run('STATUS', '', long)).exit, 0);
  t.deepEqual(Object.keys(await cluster.etcd.all('/cni/addresses/of/')), []);

  // A host that has a container of the same ID, as people choose them, and the address that this one had.
  const { result: prevResult } = await cluster.run('ADD', 'b', short);
  const [key, text] = Object.entries(await cluster.etcd.all('/cni/addresses/of/'))[0]!;
  await cluster.etcd.put(key, JSON.stringify({ ...(JSON.parse(text) as object), host: 'another' }));
  const kept = await cluster.kept();
  await cluster.del('b', { ...long, prevResult });
  t.deepEqual(await cluster.kept(), kept);
});

test('gc --node with a former name of the host keeps its living pods', async (t) => {
  const { host, cluster, owners, gc } = await operatorOf(t);
  await identify(host, 'a');
  await seed(cluster.etcd, 'worker', 'lost', 250, 'gone');
  const living = await host.addPod();
  const former = { node: 'worker' };
  const { result } = await cluster.run('ADD', living.containerId, former);
  await cluster.add('stale', former);
  writeCached(host.file('/var/lib/cni'), {
    network: 'vlan7',
    containerId: living.containerId,
    ifname: 'eth0',
    config: Buffer.from('{}'),
    netns: living.netns,
    args: [],
    capabilityArgs: {},
    result: { ...result },
  });
  await cluster.etcd.forgetPresence();
  for (const more of [['--dry-run'], []]) {
    const { exit, said } = await gc('worker', 'worker.example', ...more);
    t.is(exit, more.length > 0 ? 1 : 0, said);
    t.regex(
      said,
      new RegExp(`Kept ${living.containerId} eth0: 10\\.70\\.0\\.\\d+, which lives on this host`),
    );
    t.regex(said, /vlan7: 2 attachments of node "worker" (?:would be )?removed/);
  }
  t.deepEqual(await owners(), [living.containerId]);
});

test('a pod is torn down also while a certificate cannot be read, and its address is released later', async (t) => {
  const host = await makeHost(t);
  const tls = await makeAuthority(host, 'own', ['127.0.1.1']);
  const etcd = await Etcd.start(t, host, { tls, options: tlsOptions('own') });
  const cluster = new Cluster(host, etcd, tlsKeys(tls));
  for (const [key, file] of Object.entries(tlsKeys(tls))) {
    const { result: prevResult } = await cluster.run('ADD', 'a');
    await host.run(['mv', file, `${file}.away`]);
    const refused = await cluster.run('ADD', 'b');
    t.regex(refused.error!.msg, new RegExp(`"${key}" is "${file}", which cannot be read`));
    t.regex(
      (await cluster.del('a', { prevResult })).stderr,
      /released by the next call that reaches etcd.*cannot/,
    );
    await host.run(['mv', `${file}.away`, file]);
    t.not(Object.keys(await cluster.kept()).length, 0);
    t.is((await cluster.run('STATUS', '')).exit, 0);
    t.deepEqual(await cluster.kept(), {});
  }
});

test('a password in the address of etcd is not told to anybody', async (t) => {
  const { cluster, configure, tryCni } = await operatorOf(t);
  for (const etcd_host of [
    'https://root:s3c,ret@192.0.2.1:2379',
    'root:s3cret@x',
    '192.0.2.1,u:s3c@ret@x:y',
  ]) {
    const outcome = await cluster.run('ADD', 'a', { ipam: { etcd_host } });
    t.is(outcome.exit, 1);
    t.regex(outcome.error!.msg, /"etcd_host" has an "@".* Take them out/);
    const ipam = { type: 'whereabouts', ...cluster.ipam, etcd_host };
    const plugins = [{ type: 'macvlan', master: 'lo', ipam }];
    configure({ cniVersion: '1.1.0', name: 'vlan7', plugins });
    const said = [JSON.stringify(outcome)];
    for (const args of [
      ['explain', 'vlan7'],
      ['network', 'ls'],
      ['gc', '--node', 'node-9'],
    ]) {
      const { exit, stdout, stderr } = await tryCni(args);
      t.not(exit, 0);
      said.push(stdout, stderr);
    }
    t.notRegex(said.join('\n'), /s3c|ret@/);
  }
});

test('what waits is released also when the members of etcd are others by then', async (t) => {
  const cluster = await clusterOf(t);
  const before = { ipam: { etcd_host: `${cluster.etcd.hosts},127.0.1.9:2379` } };
  await cluster.add('a', before);
  await cluster.add('b', before);
  await cluster.etcd.kill(0);
  for (const id of ['a', 'b']) await cluster.del(id, before);
  await cluster.etcd.startMember(0);
  await cluster.etcd.untilHealthy();
  t.is((await cluster.run('STATUS', '', { conf: { name: 'other' } })).exit, 0);
  t.is(Object.keys(await cluster.kept()).length, 4);
  t.is((await cluster.run('STATUS', '')).exit, 0);
  t.deepEqual(await cluster.kept(), {});
});

test('what waits is released also by calls for another network of the cluster', async (t) => {
  const cluster = await clusterOf(t);
  const other = { conf: { name: 'other' } };
  await cluster.add('a');
  await cluster.add('b', other);
  await cluster.etcd.kill(0);
  await cluster.del('a');
  await cluster.etcd.startMember(0);
  await cluster.etcd.untilHealthy();
  t.is((await cluster.del('b', other)).stderr, '');
  t.deepEqual(await cluster.kept(), {});
  t.deepEqual(readdirSync(cluster.host.file('/var/lib/cni/whereabouts/etcd/vlan7')), ['lock']);
});

test('DEL does not wait for another call that works off what waits', async (t) => {
  const cluster = await clusterOf(t);
  await cluster.add('b');
  await cluster.etcd.kill(0);
  await cluster.del('a');
  const directory = '/var/lib/cni/whereabouts/etcd/vlan7';
  const lock = `${directory}/lock`;
  const hold = await cluster.host.start(t, [
    'flock',
    '-F',
    lock,
    'sh',
    '-c',
    'echo started; exec sleep 1000',
  ]);
  await cluster.etcd.startMember(0);
  await cluster.etcd.untilHealthy();
  t.is((await cluster.del('b')).stderr, '');
  const waiting = () => readdirSync(cluster.host.file(directory)).filter((one) => one !== 'lock');
  t.is(waiting().length, 1);
  hold.kill('SIGKILL');
  await until('what waits is released', async () => {
    await cluster.run('STATUS', '');
    return waiting().length === 0;
  });
});

/** A pod on a cluster's host, and the configuration of macvlan for it. */
async function macvlanOn({ host, ipam: own }: Cluster, more: object = {}) {
  await host.run(['ip', 'link', 'add', 'up0', 'up', 'type', 'veth', 'peer', 'name', 'up1']);
  const ipam = { type: 'whereabouts', ...own, ...more };
  const config = { cniVersion: '1.1.0', name: 'vlan7', type: 'macvlan', master: 'up0', ipam };
  return { config, pod: await host.addPod() };
}

test('an ADD that fails gives the address back once its interface is gone', async (t) => {
  const cluster = await clusterOf(t);
  const routes = [{ dst: '203.0.113.0/24', gw: '198.51.100.1' }];
  const { config, pod } = await macvlanOn(cluster, { routes });
  const env = { CNI_LOG: logFile };
  const { error } = await runPlugin(cluster.host, 'macvlan', 'ADD', { pod, config, env });
  t.regex(error!.msg, /203\.0\.113\.0/);
  const { undone } = (await logEntries(cluster.host, 3)).at(-1)!;
  t.deepEqual(
    undone!.map(({ step, error }) => [step, error]),
    [
      ['delete interface "eth0"', undefined],
      ['run DEL of "whereabouts"', undefined],
    ],
  );
  t.is(await link(pod, 'eth0'), undefined);
  t.deepEqual(await cluster.kept(), {});
});

test('an address is given back once its interface is gone, and not before', async (t) => {
  const cluster = await clusterOf(t);
  const { host, etcd } = cluster;
  const { config, pod } = await macvlanOn(cluster);
  const { result: prevResult, stdout } = await runPlugin(host, 'macvlan', 'ADD', { pod, config });
  t.truthy(prevResult, stdout);
  t.truthy(await link(pod, 'eth0'));
  etcd.signal(0, 'SIGSTOP');
  const deleting = runPlugin(host, 'macvlan', 'DEL', { pod, config: { ...config, prevResult } });
  await until('the interface is gone', async () => !(await link(pod, 'eth0')));
  etcd.signal(0, 'SIGCONT');
  const { exit, stderr } = await deleting;
  t.is(exit, 0);
  t.is(stderr, '', 'it had not waited for etcd in vain before');
  t.deepEqual(await cluster.kept(), {});
});
