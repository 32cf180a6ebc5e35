/** whereabouts by the Kubernetes API: what others have written, what is broken, and answers that are lost. */

import { mkdirSync, readdirSync } from 'node:fs';
import { dirname } from 'node:path';
import test from 'ava';
import { KubeApi, type Reply } from '../support/kube-api.ts';
import type { KubeObject } from '../support/kube-objects.ts';
import { until } from '../support/observe.ts';
import { makeOperator } from '../support/operator.ts';
import { apiVersion, KubeCluster, kubeClusterOf, pod } from '../support/whereabouts-kubernetes.ts';

const merge = 'application/merge-patch+json';
const noneIsValid = { conf: { 'cni.dev/valid-attachments': [] } };

/** Files of attachments below a directory of a node, as their paths. */
function filesBelow({ host }: KubeCluster, part: 'held' | 'pending'): string[] {
  const directory = host.file('/var/lib/cni/whereabouts');
  return readdirSync(directory, { recursive: true })
    .map(String)
    .filter((path) => /[0-9a-f]{32}$/.test(path) && path.includes('/'))
    .filter((path) => path.includes('held/') === (part === 'held'))
    .map((path) => `${directory}/${path}`);
}

test('GC goes on after a file that cannot be read, and says so', async (t) => {
  const cluster = await kubeClusterOf(t);
  for (const id of ['a', 'b', 'c']) await cluster.add(id, pod(id));
  const [first] = filesBelow(cluster, 'held');
  for (const name of ['0'.repeat(32), '1'.repeat(32)]) mkdirSync(first!.replace(/[0-9a-f]{32}$/, name));
  const gc = await cluster.run('GC', '', noneIsValid);
  t.is(gc.exit, 1);
  t.regex(gc.error!.msg, /0{32}/);
  t.regex(gc.stderr, /1{32}/);
  t.deepEqual(cluster.allocations(), {});
  t.deepEqual(cluster.reservations(), []);
});

test('GC knows what the node has also by another kubeconfig', async (t) => {
  const cluster = await kubeClusterOf(t);
  for (const id of ['a', 'b', 'c']) await cluster.add(id, pod(id));
  const kubeconfig = `${dirname(cluster.api.kubeconfig())}/another`;
  await cluster.host.run(['cp', cluster.api.kubeconfig(), kubeconfig]);
  const valid = { 'cni.dev/valid-attachments': [{ containerID: 'c', ifname: 'eth0' }] };
  const gc = await cluster.run('GC', '', { ipam: { kubernetes: { kubeconfig } }, conf: valid });
  t.is(gc.exit, 0, gc.stdout);
  t.deepEqual(
    Object.values(cluster.allocations()).map(({ id }) => id),
    ['c'],
  );
  t.is(filesBelow(cluster, 'held').length, 1);
});

test('a pool whose range is no network counts from the address that it names, and no offset is negative', async (t) => {
  const cluster = await kubeClusterOf(t, { range: '10.70.0.0/29' });
  cluster.seedPool('10.70.0.0-29', '10.70.0.4/29');
  const given = [];
  for (const id of ['a', 'b', 'c']) given.push(await cluster.add(id, pod(id)));
  t.deepEqual(given.toSorted(), ['10.70.0.4', '10.70.0.5', '10.70.0.6']);
  t.deepEqual(Object.keys(cluster.allocations('10.70.0.0-29')), ['0', '1', '2']);
  t.regex((await cluster.run('ADD', 'd', pod('d'))).error!.msg, /No address is free/);
  const before = await cluster.run('ADD', 'd', pod('d', { args: 'IP=10.70.0.2' }));
  t.regex(before.error!.msg, /counts from 10\.70\.0\.4, so that it has no place for .* 10\.70\.0\.2/);
  for (const id of ['a', 'b', 'c']) await cluster.del(id);
  t.deepEqual(cluster.allocations('10.70.0.0-29'), {});
});

test("a reservation with the container ID of the pod's former container goes with the one that has it", async (t) => {
  const cluster = await kubeClusterOf(t, { range: '10.70.0.4/32' });
  await cluster.add('old', pod('web'));
  // whereabouts gives it to the pod's next container, and leaves the reservation as it is.
  const change = { spec: { allocations: { 0: { id: 'new' } } } };
  cluster.api.of('ippools').patch('kube-system', '10.70.0.4-32', change, merge);
  await cluster.del('old');
  t.deepEqual(cluster.reservations(), ['10.70.0.4']);
  await cluster.del('new');
  t.deepEqual(cluster.allocations('10.70.0.4-32'), {});
  t.deepEqual(cluster.reservations(), []);
});

test('a pod that wants another address frees neither one in quarantine nor that of its other container', async (t) => {
  const cluster = await kubeClusterOf(t, { quarantine: 600 });
  const wants = (name: string, last: number) => pod(name, { args: `IP=10.70.0.${last}` });
  await cluster.add('waits', wants('web', 5));
  await cluster.del('waits');
  t.is(await cluster.add('next', wants('web', 6)), '10.70.0.6');
  t.regex((await cluster.run('ADD', 'x', wants('other', 5))).error!.msg, /is reserved already/);
  await cluster.add('lives', wants('db', 7));
  t.is(await cluster.add('beside', wants('db', 8)), '10.70.0.8');
  t.like(cluster.allocations(), { 7: { id: 'lives' }, 8: { id: 'beside' } });
  t.regex((await cluster.run('ADD', 'x', wants('other', 7))).error!.msg, /is reserved already/);
  t.deepEqual(cluster.reservations(), ['10.70.0.5', '10.70.0.6', '10.70.0.7', '10.70.0.8']);
  // If it asks for no address, the pod gets back what waits for it, unless that does not fit any more.
  await cluster.del('next', { ipam: { quarantine: 0 } });
  t.is(await cluster.add('again', pod('web', { ipam: { range_end: '10.70.0.9' } })), '10.70.0.5');
});

test('DEL releases what whereabouts attached, though the ranges of the network are wrong by now', async (t) => {
  const cluster = await kubeClusterOf(t);
  await cluster.add('a', pod('a'));
  // Only this suite writes down what it has attached.
  await cluster.host.run(['rm', '-r', '/var/lib/cni/whereabouts']);
  await cluster.del('a', pod('a', { ipam: { exclude: ['x'], range_end: 'y' } }));
  t.deepEqual(cluster.allocations(), {});
  t.deepEqual(cluster.reservations(), []);
});

test('an address that was entered is taken back by an ADD that fails, though the answer was lost', async (t) => {
  const cluster = await kubeClusterOf(t, {
    ipRanges: [{ range: 'fd00::/127', range_start: 'fd00::1', range_end: 'fd00::1' }],
  });
  cluster.seedReservation('fd00--1', 'default/elsewhere');
  let lost = 0;
  cluster.api.onRequest = ({ method, path, body }) => {
    if (method !== 'PATCH' || !path.endsWith('/10.70.0.0-24') || lost++ > 0) return undefined;
    cluster.api.of('ippools').patch('kube-system', '10.70.0.0-24', body, merge);
    return 'close';
  };
  t.regex((await cluster.run('ADD', 'a', pod('a'))).error!.msg, /No address is free in fd00::1-fd00::1/);
  t.true(lost > 1, 'it is asked once more');
  t.deepEqual(cluster.allocations(), {});
  t.deepEqual(cluster.reservations(), ['fd00--1']);
});

test('an address that was entered is taken back when it cannot be reserved, or by the next call', async (t) => {
  const cluster = await kubeClusterOf(t);
  const { api } = cluster;
  api.isAllowed = (_, verb, resource) => verb !== 'create' || resource !== 'overlappingrangeipreservations';
  t.regex((await cluster.run('ADD', 'a', pod('a'))).error!.msg, /forbids it/);
  t.deepEqual(cluster.allocations(), {});
  api.isAllowed = () => true;
  api.onRequest = ({ method, resource, body }) => {
    if (method !== 'POST' || resource !== 'overlappingrangeipreservations') return undefined;
    if (cluster.reservations().length === 0) api.of(resource).create('kube-system', body as KubeObject);
    return 'close';
  };
  t.regex((await cluster.run('ADD', 'a', pod('a'))).error!.msg, /does not answer/);
  // Of an API that does not answer, ADD asks nothing more; the next call does.
  t.is((await cluster.run('STATUS', '')).exit, 0);
  t.deepEqual(cluster.allocations(), {});
  t.deepEqual(cluster.reservations(), []);
});

test('DEL without any backend, as the file that named it has gone, succeeds and remembers', async (t) => {
  const cluster = await kubeClusterOf(t);
  const directory = '/etc/cni/net.d/whereabouts.d';
  const share = (kubeconfig: string) =>
    cluster.host.run(['sh', '-c', `mkdir -p ${directory}; cat > ${directory}/whereabouts.conf`], {
      stdin: JSON.stringify({ kubernetes: { kubeconfig } }),
    });
  const ipam = { kubernetes: undefined };
  await share(cluster.api.kubeconfig());
  await cluster.add('a', pod('a', { ipam }));
  await share('');
  t.regex((await cluster.del('a', { ipam })).stderr, /no "kubernetes\.kubeconfig".*by the next call/);
  t.regex((await cluster.del('b', { ipam })).stderr, /no "kubernetes\.kubeconfig".*GC then releases/);
  t.not(cluster.reservations().length, 0);
  await share(cluster.api.kubeconfig());
  t.is((await cluster.run('STATUS', '', { ipam })).exit, 0);
  t.deepEqual(cluster.allocations(), {});
  t.deepEqual(cluster.reservations(), []);
});

test('what is no answer of the API is told, by code 11, whatever was asked', async (t) => {
  const cluster = await kubeClusterOf(t);
  await cluster.add('first', pod('first'));
  const object = { metadata: { name: '10.70.0.0-24' } };
  for (const [verb, method, resource, body, pattern] of [
    ['ADD', 'GET', 'ippools', {}, /does not speak as the Kubernetes API does/],
    ['ADD', 'GET', 'ippools', { metadata: null }, /does not speak as the Kubernetes API does/],
    ['ADD', 'GET', 'ippools', { ...object, spec: null }, /IPPool "10\.70\.0\.0-24" has range undefined/],
    ['ADD', 'GET', 'ippools', { ...object, spec: [] }, /IPPool "10\.70\.0\.0-24" has range undefined/],
    ['ADD', 'PATCH', 'ippools', {}, /does not speak as the Kubernetes API does/],
    ['ADD', 'POST', 'overlappingrangeipreservations', {}, /does not speak as the Kubernetes API does/],
    ['STATUS', 'GET', 'ippools', { items: [{}] }, /does not speak as the Kubernetes API does/],
  ] as const) {
    cluster.api.onRequest = (request) =>
      request.method === method && request.resource === resource ? { status: 200, body } : undefined;
    const { error, exit } = await cluster.run(verb, 'a', pod('a'));
    t.is(exit, 1);
    t.regex(`${error!.msg} ${error!.details}`, pattern);
    t.true([7, 11, 50].includes(error!.code), `${error!.code}`);
    cluster.api.onRequest = () => undefined;
    await cluster.del('a');
  }
  t.deepEqual(cluster.reservations().length, 1);
  // DEL remembers what it could not release.
  cluster.api.onRequest = () => ({ status: 200, body: {} });
  t.regex((await cluster.del('first')).stderr, /released by the next call that reaches/);
  cluster.api.onRequest = () => undefined;
  t.is((await cluster.run('STATUS', '')).exit, 0);
  t.deepEqual(cluster.allocations(), {});
});

test('a range of slices is counted by one request', async (t) => {
  const { host, configure, tryCni } = await makeOperator(t, []);
  const cluster = new KubeCluster(host, await KubeApi.start(t, host), { network_name: 'blue' });
  const slices = Array.from({ length: 5 }, (_, i) => [`node-${i}`, `10.70.0.${16 * i}/28`] as const);
  cluster.api.seed('nodeslicepools', {
    ...{ apiVersion, kind: 'NodeSlicePool', metadata: { name: 'blue', namespace: 'kube-system' } },
    spec: { range: '10.70.0.0/24', sliceSize: '/28' },
    status: { allocations: slices.map(([nodeName, sliceRange]) => ({ nodeName, sliceRange })) },
  });
  for (const [node, range] of slices)
    cluster.seedPool(`blue-${node}-${range.replace('/', '-')}`, range, { 1: { id: node, podref: 'd/x' } });
  cluster.seedPool('other', 'garbage');
  const ipam = { type: 'whereabouts', ...cluster.ipam, node_slice_size: '/28' };
  configure({ cniVersion: '1.1.0', name: 'vlan7', plugins: [{ type: 'macvlan', master: 'lo', ipam }] });
  let used: number | undefined;
  await until('the API tells what is used', async () => {
    cluster.api.requests.length = 0;
    // The API has three seconds.
    used = JSON.parse((await tryCni(['network', 'inspect', 'vlan7'])).stdout)[0].ranges[0].used;
    return used !== undefined;
  });
  t.is(used, 5);
  t.is(cluster.api.requests.filter(({ resource }) => resource === 'ippools').length, 1);
});

test('pools are listed a hundred at a time', async (t) => {
  const cluster = await kubeClusterOf(t);
  for (let i = 0; i < 150; i++) cluster.seedPool(`other-${i}`, `10.71.${i}.0/24`);
  cluster.seedReservation('10.70.0.9', 'default/gone');
  // Whether a pod has it is found out from all pools.
  await cluster.run('ADD', 'a', pod('a', { args: 'IP=10.70.0.9' }));
  const lists = cluster.api.requests.filter(
    ({ method, path }) => method === 'GET' && /\/ippools(?:\?|$)/.test(path),
  );
  t.deepEqual(
    lists.map(({ path }) => path.replace(/^.*\/ippools/, '')),
    ['?limit=100', '?limit=100&continue=100'],
  );
});

test('what waits is released also by calls for another network of the API, and only of that', async (t) => {
  const cluster = await kubeClusterOf(t);
  await cluster.add('a', pod('a'));
  await cluster.api.down();
  await cluster.del('a');
  await cluster.api.up();
  const kubeconfig = `${dirname(cluster.api.kubeconfig())}/another`;
  await cluster.host.run(['cp', cluster.api.kubeconfig(), kubeconfig]);
  const other = { conf: { name: 'other' } };
  // Another kubeconfig may lead to another cluster.
  t.is((await cluster.run('STATUS', '', { ...other, ipam: { kubernetes: { kubeconfig } } })).exit, 0);
  t.is(cluster.reservations().length, 1);
  t.is((await cluster.run('STATUS', '', other)).exit, 0);
  t.deepEqual(cluster.reservations(), []);
  t.deepEqual([...filesBelow(cluster, 'pending'), ...filesBelow(cluster, 'held')], []);
});

test('a call works off a part of a long backlog, and the next ones the rest', async (t) => {
  const cluster = await kubeClusterOf(t);
  await cluster.api.down();
  const ids = Array.from({ length: 24 }, (_, i) => `c${i}`);
  await Promise.all(ids.map((id) => cluster.del(id)));
  t.is(filesBelow(cluster, 'pending').length, ids.length);
  await cluster.api.up();
  // Each release takes one request.
  cluster.api.onRequest = async ({ method, path }): Promise<Reply | undefined> => {
    if (method !== 'GET' || !path.endsWith('/10.70.0.0-24')) return undefined;
    await new Promise((resolve) => setTimeout(resolve, 200));
    return undefined;
  };
  t.is((await cluster.run('STATUS', '')).exit, 0);
  const left = filesBelow(cluster, 'pending').length;
  t.true(left > 0 && left < ids.length, `${left}`);
  await until('all is released', async () => {
    await cluster.run('STATUS', '');
    return filesBelow(cluster, 'pending').length === 0;
  });
});
