/** whereabouts with the Kubernetes API: an address that two pools have, and a pool that cannot be made. */

import test from 'ava';
import { until } from '../support/observe.ts';
import { type KubeCluster, kubeClusterOf, pod } from '../support/whereabouts-kubernetes.ts';

const address = '10.70.0.9';
const asked = (name: string, ipam: object = {}) => pod(name, { args: `IP=${address}`, ipam });
/** As when "range" is made larger while pods live: another pool, and the same reservation. */
const wider = { range: '10.70.0.0/16' };

/** Who has reserved an address across overlapping ranges. */
function reserved(cluster: KubeCluster) {
  const { spec } = cluster.api.of('overlappingrangeipreservations').get('kube-system', address);
  return [spec!.podref, spec!.containerid];
}

test("a pod's former container in another pool gives back nothing of the new one", async (t) => {
  const cluster = await kubeClusterOf(t);
  await cluster.add('old', asked('web'));
  await cluster.add('new', asked('web', wider));
  await cluster.del('old');
  t.deepEqual(cluster.allocations(), {});
  t.deepEqual(reserved(cluster), ['default/web', 'new']);
  t.regex((await cluster.run('ADD', 'x', asked('x'))).error!.msg, /10\.70\.0\.9 is reserved already/);
  await cluster.del('new', { ipam: wider });
  t.deepEqual(cluster.reservations(), []);
  // A container that no pool knows is one whose address whereabouts has given to the next one.
  await cluster.add('old', asked('web'));
  cluster.api
    .of('ippools')
    .patch(
      ...(['kube-system', '10.70.0.0-24'] as const),
      { spec: { allocations: { 9: { id: 'theirs' } } } },
      'application/merge-patch+json',
    );
  await cluster.del('theirs');
  t.deepEqual(cluster.reservations(), []);
});

test('the end of a quarantine frees no address that the pod has by another pool', async (t) => {
  const cluster = await kubeClusterOf(t);
  await cluster.add('old', asked('web'));
  await cluster.del('old', { ipam: { quarantine: 1 } });
  t.is(cluster.allocations()[9]!.id, 'old');
  await cluster.add('new', asked('web', wider));
  const clock = Date.now();
  await until('the quarantine is over', async () => Date.now() > clock + 2500);
  t.regex((await cluster.run('ADD', 'x', asked('x'))).error!.msg, /10\.70\.0\.9 is reserved already/);
  t.deepEqual(reserved(cluster), ['default/web', 'new']);
});

test('a release that fails keeps no other one waiting', async (t) => {
  const cluster = await kubeClusterOf(t);
  const { api } = cluster;
  for (const id of ['a', 'b', 'c']) await cluster.add(id, pod(id));
  await api.down();
  for (const id of ['a', 'b', 'c']) await cluster.del(id);
  await api.up();
  let refused = 0;
  api.onRequest = ({ method, path }) =>
    method === 'GET' && path.includes('/ippools/') && refused++ === 0
      ? { status: 403, body: { kind: 'Status', message: 'forbidden' } }
      : undefined;
  const { exit, stderr } = await cluster.run('STATUS', '');
  t.is(exit, 0);
  t.regex(stderr, /forbids it/);
  t.is(Object.keys(cluster.allocations()).length, 1);
});

test('a pool that fails keeps the addresses of no other one', async (t) => {
  const cluster = await kubeClusterOf(t, { ipRanges: [{ range: 'fd00:70::/64' }] });
  const { api } = cluster;
  await cluster.add('a', pod('a'));
  const second = 'fd00-70---64';
  t.is(Object.keys(cluster.allocations(second)).length, 1);
  api.onRequest = ({ path }) =>
    path.includes('/ippools/10.70.0.0-24')
      ? { status: 403, body: { kind: 'Status', message: 'forbidden' } }
      : undefined;
  t.regex((await cluster.del('a')).stderr, /released by the next call that reaches/);
  t.deepEqual(cluster.allocations(second), {});
  t.is(Object.keys(cluster.allocations()).length, 1);
  api.onRequest = () => undefined;
  t.is((await cluster.run('STATUS', '')).exit, 0);
  t.deepEqual(cluster.allocations(), {});
});

test('a pool that can be neither read nor made is not asked for without a pause', async (t) => {
  const cluster = await kubeClusterOf(t);
  let begun = 0;
  let posts = 0;
  cluster.api.onRequest = ({ method, resource }) => {
    if (method !== 'POST' || resource !== 'ippools') return undefined;
    begun ||= Date.now();
    posts++;
    const body = { kind: 'Status', reason: 'AlreadyExists', message: 'it is there' };
    return Date.now() < begun + 3000 ? { status: 409, body } : undefined;
  };
  await cluster.add('a', pod('a'));
  t.true(posts > 1);
  // Pauses of at most half a second, starting at 10 ms.
  t.true(posts < 40, `${posts} requests in three seconds`);
});
