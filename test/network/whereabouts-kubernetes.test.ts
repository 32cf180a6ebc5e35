import { readdirSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import test from 'ava';
import { makeHost, startAgent } from '../support/host.ts';
import { KubeApi } from '../support/kube-api.ts';
import { until } from '../support/observe.ts';
import { makeOperator } from '../support/operator.ts';
import { succeeded } from '../support/plugin.ts';
import {
  anotherNode,
  apiVersion,
  KubeCluster,
  kubeClusterOf,
  offsetOf,
  pod,
} from '../support/whereabouts-kubernetes.ts';

test('nodes that add at once never give an address twice; CHECK and DEL', async (t) => {
  const cluster = await kubeClusterOf(t, { range: '10.70.0.0/28', gateway: '10.70.0.1' });
  const ids = Array.from({ length: 12 }, (_, i) => `c${i}`);
  const others = await Promise.all([anotherNode(t, cluster), anotherNode(t, cluster)]);
  const nodes = [{}, ...others.map((on) => ({ on }))];
  const onNode = (i: number) => ({ node: `node-${i % 3}`, ...nodes[i % 3] });
  // The first two read the pool before either of them changes it.
  const haveRead = Promise.withResolvers<undefined>();
  let reads = 0;
  cluster.api.onRequest = ({ method, resource }) => {
    if (method !== 'GET' || resource !== 'ippools' || ++reads > 2) return undefined;
    if (reads === 2) haveRead.resolve(undefined);
    return haveRead.promise;
  };
  const add = async (id: string, i: number) => {
    // An agent makes this node fast: it would read first, and give up before a slow machine lets another read.
    if (i % 3 === 0) await until('another node has read', () => reads > 0);
    return await cluster.add(id, pod(`p${i}`, onNode(i)));
  };
  const given = await Promise.all(ids.map(add));
  t.true(cluster.api.conflicts > 0);
  t.is(new Set(given).size, 12);
  t.false(given.includes('10.70.0.1'));
  t.deepEqual(
    Object.fromEntries(
      given.map((address, i) => [offsetOf(address), { id: ids[i], podref: `default/p${i}`, ifname: 'eth0' }]),
    ),
    cluster.allocations('10.70.0.0-28'),
  );
  t.deepEqual(cluster.reservations(), given.toSorted());
  t.is(
    await cluster.add('last', pod('last')),
    [...Array(15).keys()]
      .slice(2)
      .map((last) => `10.70.0.${last}`)
      .find((one) => !given.includes(one))!,
  );
  t.regex(
    (await cluster.run('ADD', 'more', pod('more'))).error!.msg,
    /No address is free in 10\.70\.0\.1-10\.70\.0\.14 of network "vlan7"/,
  );
  const again = await cluster.run('ADD', 'c0', pod('p0'));
  t.deepEqual(again.result!.ips, [{ address: `${given[0]}/28`, gateway: '10.70.0.1' }]);
  t.is((await cluster.run('CHECK', 'c0', { prevResult: again.result })).exit, 0);
  const other = await cluster.run('CHECK', 'c1', { prevResult: again.result });
  t.regex(
    other.error!.msg,
    new RegExp(`Address ${given[0]} of container "c1" is reserved for somebody else`),
  );
  // Without any argument but the container, as after a reboot, and more than once.
  for (const id of ['c0', 'c0', 'never']) await cluster.del(id);
  t.regex(
    (await cluster.run('CHECK', 'c0', { prevResult: again.result })).error!.msg,
    /is not reserved for container "c0"/,
  );
  t.is(await cluster.add('more', pod('more')), given[0]!);
  await Promise.all(ids.map((id, i) => cluster.del(id, onNode(i))));
  for (const id of ['more', 'last']) await cluster.del(id);
  t.deepEqual(cluster.allocations('10.70.0.0-28'), {});
  t.deepEqual(cluster.reservations(), []);
  t.false(cluster.api.requests.some(({ path }) => path.includes('lease')));
  const held = cluster.host.file('/var/lib/cni/whereabouts');
  t.deepEqual(
    readdirSync(held, { recursive: true }).filter(
      (name) => /[0-9a-f]{32}$/.test(`${name}`) && `${name}`.includes('held/'),
    ),
    [],
  );
});

test('objects have the names that whereabouts gives them, in both families', async (t) => {
  const cluster = await kubeClusterOf(t, {
    range: '10.70.0.20-10.70.0.20/24',
    ipRanges: [
      { range: 'FD00:70::/64', range_start: 'fd00:70::5', range_end: 'fd00:70::5' },
      { range: 'fd00:71::7/112', range_end: 'fd00:71::7', range_start: 'fd00:71::7' },
    ],
    network_name: 'blue',
  });
  const { result } = succeeded(await cluster.run('ADD', 'a', pod('web')));
  t.deepEqual(
    result!.ips!.map(({ address }) => address),
    ['10.70.0.20/24', 'fd00:70::5/64', 'fd00:71::7/112'],
  );
  const own = { id: 'a', podref: 'default/web', ifname: 'eth0' };
  t.deepEqual(cluster.allocations('blue-10.70.0.0-24'), { 20: own });
  t.deepEqual(cluster.allocations('blue-fd00-70---64'), { 5: own });
  t.deepEqual(cluster.allocations('blue-fd00-71---112'), { 7: own });
  t.deepEqual(cluster.reservations(), ['blue-10.70.0.20', 'blue-fd00-70--5', 'blue-fd00-71--7']);
  t.is(cluster.api.of('ippools').get('kube-system', 'blue-fd00-70---64').spec!.range, 'fd00:70::/64');
  t.is((await cluster.run('CHECK', 'a', pod('web', { prevResult: result }))).exit, 0);
  await cluster.del('a', { prevResult: result });
  t.deepEqual(cluster.reservations(), []);
  // All of a /64 is more than whereabouts can express as an offset.
  await cluster.add('b', pod('far', { ipam: { range: 'fd00:72::/64', ipRanges: [], network_name: '' } }));
  const [offset] = Object.keys(cluster.allocations('fd00-72---64'));
  t.true(BigInt(offset!) < 2n ** 63n);
});

test('a pool of whereabouts is taken over, with what is broken in it', async (t) => {
  const cluster = await kubeClusterOf(t, { range: '10.70.0.0/29' });
  const theirs = { id: 'old', podref: 'default/old', ifname: 'eth0' };
  // As written by old versions: without "ifname", from an address that is not the first, with odd offsets.
  cluster.seedPool('10.70.0.0-29', '10.70.0.1/29', {
    0: theirs,
    1: { id: 'older', podref: 'default/older' },
    2: { id: '', podref: '' },
    x: { id: 'b', podref: '' },
    '-1': { id: 'b', podref: '' },
    '99999999999999999999': { id: 'b', podref: '' },
  });
  cluster.seedReservation('10.70.0.1', 'default/old');
  const given = [await cluster.add('a', pod('a')), await cluster.add('b', pod('b'))];
  const third = await cluster.add('c', pod('c'));
  t.deepEqual([...given, third].toSorted(), ['10.70.0.4', '10.70.0.5', '10.70.0.6']);
  t.regex((await cluster.run('ADD', 'd', pod('d'))).error!.msg, /No address is free/);
  // DEL of what whereabouts has added, and the same pod in a new sandbox.
  await cluster.del('old');
  t.false(cluster.reservations().includes('10.70.0.1'));
  t.is(await cluster.add('d', pod('d')), '10.70.0.1');
  t.is(await cluster.add('a-2', pod('a')), given[0]!);
  await cluster.del('a');
  t.is(cluster.allocations('10.70.0.0-29')[`${Number(offsetOf(given[0]!)) - 1}`]!.id, 'a-2');
  t.true(cluster.reservations().includes(given[0]!));
  await cluster.del('older');
  t.deepEqual(Object.keys(cluster.allocations('10.70.0.0-29')).toSorted(), [
    '-1',
    '0',
    '2',
    '3',
    '4',
    '5',
    '99999999999999999999',
    'x',
  ]);
  cluster.seedPool('10.71.0.0-24', 'garbage');
  const broken = await cluster.run('ADD', 'e', pod('e', { ipam: { range: '10.71.0.0/24' } }));
  t.regex(broken.error!.msg, /IPPool "10\.71\.0\.0-24" has range "garbage".* Correct the object/);
});

test('what whereabouts changes meanwhile is seen', async (t) => {
  const cluster = await kubeClusterOf(t, { range: '10.70.0.4/31' });
  cluster.seedPool('10.70.0.4-31', '10.70.0.4/31');
  let changes = 0;
  // As whereabouts would, between the suite's reading and its change.
  cluster.api.onRequest = ({ method, resource, body }) => {
    if (method !== 'PATCH' || resource !== 'ippools' || changes++ > 0) return undefined;
    const pools = cluster.api.of('ippools');
    const { metadata } = pools.get('kube-system', '10.70.0.4-31');
    const [offset] = Object.keys((body as { spec: { allocations: object } }).spec.allocations);
    pools.patch(
      ...(['kube-system', '10.70.0.4-31'] as const),
      [
        { op: 'test', path: '/metadata/resourceVersion', value: metadata.resourceVersion },
        { op: 'test', path: `/spec/allocations/${offset}`, value: null },
        {
          op: 'add',
          path: `/spec/allocations/${offset}`,
          value: { id: 'x', podref: 'default/x', ifname: 'eth0' },
        },
      ],
      'application/json-patch+json',
    );
    return undefined;
  };
  const given = await cluster.add('a', pod('a'));
  t.is(changes, 2);
  const entries = Object.entries(cluster.allocations('10.70.0.4-31'));
  t.deepEqual(entries.map(([, { id }]) => id).toSorted(), ['a', 'x']);
  t.is(entries.find(([, { id }]) => id === 'a')![0], `${Number(offsetOf(given)) - 4}`);
});

test("the pod's new container keeps what the old one is about to give back", async (t) => {
  const cluster = await kubeClusterOf(t, { range: '10.70.0.4/32' });
  await cluster.add('old', pod('web'));
  const kind = (plural: string) => cluster.api.of(plural);
  // Both of them at once: the other node has been through when DEL is about to take the reservation.
  cluster.api.onRequest = ({ method, resource }) => {
    if (method !== 'GET' || resource !== 'overlappingrangeipreservations') return undefined;
    const merge = 'application/merge-patch+json';
    kind('ippools').patch(
      'kube-system',
      '10.70.0.4-32',
      { spec: { allocations: { 0: { id: 'new' } } } },
      merge,
    );
    kind(resource).patch('kube-system', '10.70.0.4', { spec: { containerid: 'new' } }, merge);
    return undefined;
  };
  await cluster.del('old');
  t.like(cluster.allocations('10.70.0.4-32'), { 0: { id: 'new', podref: 'default/web' } });
  t.deepEqual(cluster.reservations(), ['10.70.0.4']);
});

test('network inspect counts what all nodes have; gc --node says who collects', async (t) => {
  const { host, configure, cni, tryCni } = await makeOperator(t, []);
  const cluster = new KubeCluster(host, await KubeApi.start(t, host), { network_name: 'blue' });
  const ipam = { type: 'whereabouts', ...cluster.ipam };
  configure({ cniVersion: '1.1.0', name: 'vlan7', plugins: [{ type: 'macvlan', master: 'lo', ipam }] });
  const used = async () => {
    const { stdout } = await tryCni(['network', 'inspect', 'vlan7']);
    const [{ ranges, problems }] = JSON.parse(stdout);
    return [ranges[0].capacity, ranges[0].used, String(problems)];
  };
  // A busy machine may not answer in the time that it has.
  await until('none is used', async () => isDeepStrictEqual((await used()).slice(0, 2), [254, 0]));
  const offset = offsetOf(await cluster.add('a', pod('a')));
  cluster.api
    .of('ippools')
    .patch(
      'kube-system',
      'blue-10.70.0.0-24',
      { spec: { allocations: { [offset === '9' ? 10 : 9]: { id: 'x', podref: 'd/x' } } } },
      'application/merge-patch+json',
    );
  await until('two are used', async () => isDeepStrictEqual((await used()).slice(0, 2), [254, 2]));
  const gone = await tryCni(['gc', 'vlan7', '--node', 'node-9']);
  t.is(gone.exit, 1);
  t.regex(gone.stdout + gone.stderr, /do not say on which node .* whereabouts' reconciler/);
  await cluster.api.down();
  const [capacity, unknown, problems] = await used();
  t.deepEqual([capacity, unknown], [254, undefined]);
  t.regex(`${problems}`, /Nobody tells how many addresses are used.*does not answer/);
  t.regex(
    await cni(['explain', 'vlan7']),
    /Remembers it in the Kubernetes API of \/run\/kube-pki\/kubeconfig/,
  );
});

test('ADD and DEL take four requests at most; the agent does them over one connection', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const cluster = new KubeCluster(host, await KubeApi.start(t, host), {});
  await cluster.add('first', pod('first'));
  await startAgent(t, host);
  const { api } = cluster;
  const before = { connections: api.connections, requests: api.requests.length };
  await cluster.add('a', pod('a'));
  t.deepEqual(
    api.requests.slice(before.requests).map(({ method, resource }) => `${method} ${resource}`),
    ['GET ippools', 'PATCH ippools', 'POST overlappingrangeipreservations'],
  );
  const added = api.requests.length;
  await cluster.del('a');
  t.is(api.requests.length - added, 4);
  t.is(api.connections - before.connections, 1);
  // Another token is another user.
  api.tokens.clear();
  api.tokens.set('renewed', 'system:node');
  t.is((await cluster.run('ADD', 'b', pod('b'))).error!.code, 11);
  api.kubeconfig('kubeconfig', { token: 'renewed' });
  await cluster.add('b', pod('b'));
});

test('an address of ranges that overlap is given once', async (t) => {
  const cluster = await kubeClusterOf(t, { range: '10.70.0.4/31' });
  cluster.seedReservation('10.70.0.4', 'default/elsewhere');
  t.is(await cluster.add('a', pod('a')), '10.70.0.5');
  const wanted = await cluster.run('ADD', 'b', pod('b', { args: 'IP=10.70.0.4' }));
  t.regex(wanted.error!.msg, /requested address 10\.70\.0\.4 is reserved already/);
  t.regex((await cluster.run('ADD', 'b', pod('b'))).error!.msg, /No address is free/);
  t.deepEqual(Object.keys(cluster.allocations('10.70.0.4-31')), ['1']);
  const wider = { range: '10.70.0.0/28', range_start: '10.70.0.4', range_end: '10.70.0.6' };
  t.is(await cluster.add('b', pod('b', { ipam: wider })), '10.70.0.6');
  const alone = { enable_overlapping_ranges: false };
  t.is(await cluster.add('c', pod('c', { ipam: alone })), '10.70.0.4');
  t.is(
    await cluster.add('d', pod('d', { ipam: { network_name: 'blue' }, args: 'IP=10.70.0.5' })),
    '10.70.0.5',
  );
  for (const [id, ipam] of [
    ['a', {}],
    ['b', wider],
    ['c', alone],
    ['d', { network_name: 'blue' }],
  ] as const)
    await cluster.del(id, { ipam });
  t.deepEqual(cluster.reservations(), ['10.70.0.4']);
});

test('ranges of one network that are in one pool each give an address, again too, and take it back', async (t) => {
  const cluster = await kubeClusterOf(t, {
    range: '10.70.0.10-10.70.0.12/24',
    ipRanges: [{ range: '10.70.0.30-10.70.0.32/24' }],
  });
  const { result: prevResult, stdout } = await cluster.run('ADD', 'a', pod('a'));
  const given = prevResult?.ips?.map(({ address }) => address.replace(/\d\/24$/, '')) ?? [];
  t.deepEqual(given, ['10.70.0.1', '10.70.0.3'], stdout);
  t.deepEqual((await cluster.run('ADD', 'a', pod('a'))).result!.ips, prevResult!.ips);
  t.is((await cluster.run('CHECK', 'a', { prevResult })).exit, 0);
  t.is(Object.keys(cluster.allocations()).length, 2);
  // The pod has none of these addresses, but another one of its range.
  const asked = [10, 11, 12].find((last) => !prevResult!.ips![0]!.address.includes(`.${last}/`));
  const other = await cluster.run('ADD', 'a', pod('a', { args: `IP=10.70.0.${asked}` }));
  t.regex(other.error!.msg, /already has 10\.70\.0\.1\d /);
  await cluster.del('a');
  t.deepEqual(cluster.allocations(), {});
  t.deepEqual(cluster.reservations(), []);
});

test('an address in quarantine goes to no other pod, and back to one of the same name', async (t) => {
  const cluster = await kubeClusterOf(t, { range: '10.70.0.4/31', quarantine: 600 });
  const first = await cluster.add('a', pod('db-0'));
  for (let i = 0; i < 2; i++) await cluster.del('a');
  const patches = cluster.api.requests.filter(
    ({ method, resource }) => method === 'PATCH' && resource === 'ippools',
  );
  t.is(patches.length, 2, 'ADD, and the first DEL: another one does not prolong it');
  const offset = `${Number(offsetOf(first)) - 4}`;
  t.deepEqual(Object.keys(cluster.allocations('10.70.0.4-31')), [offset]);
  const lost = await cluster.run('CHECK', 'a', {
    prevResult: { cniVersion: '1.1.0', ips: [{ address: `${first}/31` }] },
  });
  t.regex(lost.error!.msg, /is not reserved/);
  const other = await cluster.add('b', pod('db-1'));
  t.not(other, first);
  t.regex((await cluster.run('ADD', 'c', pod('db-2'))).error!.msg, /No address is free/);
  t.regex(
    (await cluster.run('ADD', 'c', pod('db-2', { args: `IP=${first}` }))).error!.msg,
    /is reserved already/,
  );
  t.is(await cluster.add('d', pod('db-0', { node: 'node-2' })), first);
  const { metadata } = cluster.api.of('ippools').get('kube-system', '10.70.0.4-31');
  t.deepEqual(metadata.annotations ?? {}, {});
  // The former container of the pod changes nothing any more.
  await cluster.del('a');
  t.is(cluster.allocations('10.70.0.4-31')[offset]!.id, 'd');
  await cluster.del('b', { ipam: { quarantine: 1 } });
  await until('the quarantine is over', async () => (await cluster.run('ADD', 'e', pod('db-9'))).exit === 0);
  t.deepEqual(cluster.reservations(), ['10.70.0.4', '10.70.0.5']);
  const [reserved] = cluster.api
    .of('overlappingrangeipreservations')
    .list('kube-system')
    .filter(({ metadata: { name } }) => name === other);
  t.like(reserved!.spec, { podref: 'default/db-9', ifname: 'eth0' });
  // One that whereabouts has taken over is not free when the time is over.
  await cluster.del('e', { ipam: { quarantine: 1 } });
  cluster.api
    .of('ippools')
    .patch(
      'kube-system',
      '10.70.0.4-31',
      { spec: { allocations: { [`${1 - Number(offset)}`]: { id: 'theirs' } } } },
      'application/merge-patch+json',
    );
  const clock = Date.now();
  await until('that would be over', async () => Date.now() > clock + 2500);
  t.regex((await cluster.run('ADD', 'f', pod('f'))).error!.msg, /No address is free/);
  // GC gives back what nobody has taken.
  await cluster.del('d', { node: 'node-2', ipam: { quarantine: 1 } });
  await until('GC finds it', async () => {
    await cluster.run('GC', '', { conf: { 'cni.dev/valid-attachments': [] } });
    return Object.keys(cluster.allocations('10.70.0.4-31')).length === 1;
  });
  t.deepEqual(cluster.reservations(), [other]);
});

test('GC keeps what is valid, and what is of other nodes, networks and suites', async (t) => {
  const cluster = await kubeClusterOf(t, { range_end: '10.70.0.199' });
  await cluster.add('live', pod('live'));
  await cluster.add('stale', pod('stale'));
  const elsewhere = { on: await anotherNode(t, cluster), node: 'node-2' };
  await cluster.add('far', pod('far', elsewhere));
  await cluster.add('near', pod('near', { conf: { name: 'vlan70' } }));
  cluster.api
    .of('ippools')
    .patch(
      'kube-system',
      '10.70.0.0-24',
      { spec: { allocations: { 200: { id: 'theirs', podref: 'default/theirs', ifname: 'eth0' } } } },
      'application/merge-patch+json',
    );
  const gc = await cluster.run('GC', '', {
    conf: { 'cni.dev/valid-attachments': [{ containerID: 'live', ifname: 'eth0' }] },
  });
  t.is(gc.exit, 0, gc.stdout);
  const ids = () =>
    Object.values(cluster.allocations())
      .map(({ id }) => id)
      .toSorted();
  t.deepEqual(ids(), ['far', 'live', 'near', 'theirs']);
  t.is(cluster.reservations().length, 3);
  await cluster.run('GC', '', { ...elsewhere, conf: { 'cni.dev/valid-attachments': [] } });
  t.deepEqual(ids(), ['live', 'near', 'theirs']);
});

test('slices of nodes', async (t) => {
  const cluster = await kubeClusterOf(t, {
    range: '10.70.0.0/24',
    node_slice_size: '/30',
    network_name: 'blue',
  });
  t.regex(
    (await cluster.run('ADD', 'a', pod('a'))).error!.msg,
    /There is no NodeSlicePool "blue" in namespace "kube-system"/,
  );
  cluster.api.seed('nodeslicepools', {
    ...{ apiVersion, kind: 'NodeSlicePool', metadata: { name: 'blue', namespace: 'kube-system' } },
    spec: { range: '10.70.0.0/24', sliceSize: '/30' },
    status: {
      allocations: [
        { nodeName: 'node-1', sliceRange: '10.70.0.0/30' },
        { nodeName: 'node-2', sliceRange: '10.70.0.4/30' },
        { nodeName: '', sliceRange: '10.70.0.8/30' },
      ],
    },
  });
  const calling = { node: 'NODE-2' };
  const first = await cluster.run('ADD', 'a', pod('a', calling));
  const second = await cluster.add('b', pod('b', calling));
  const { address } = first.result!.ips![0]!;
  t.deepEqual([address, `${second}/24`].toSorted(), ['10.70.0.5/24', '10.70.0.6/24']);
  t.deepEqual(Object.keys(cluster.allocations('blue-node-2-10.70.0.4-30')), ['1', '2']);
  t.regex(
    (await cluster.run('ADD', 'c', pod('c', calling))).error!.msg,
    /No address is free in 10\.70\.0\.5-10\.70\.0\.6/,
  );
  const none = await cluster.run('ADD', 'c', pod('c', { node: 'node-9' }));
  t.regex(none.error!.msg, /NodeSlicePool "blue" has no slice for node "node-9"/);
  t.is((await cluster.run('STATUS', '', { node: 'node-9' })).error!.code, 50);
  t.is((await cluster.run('STATUS', '', calling)).exit, 0);
  t.is((await cluster.run('CHECK', 'a', pod('a', { ...calling, prevResult: first.result }))).exit, 0);
  await cluster.del('a', calling);
  await cluster.del('b', calling);
  t.deepEqual(cluster.allocations('blue-node-2-10.70.0.4-30'), {});
  t.regex(
    (await cluster.run('ADD', 'a', pod('a', { ipam: { ipRanges: [{ range: 'fd00::/64' }] } }))).error!.msg,
    /"node_slice_size" goes with one range/,
  );
});

test('while the API is away, ADD says so and pods are torn down; nothing is lost', async (t) => {
  const cluster = await kubeClusterOf(t, { range: '10.70.0.4/31' });
  const [one, two] = [await cluster.add('a', pod('a')), await cluster.add('b', pod('b'))];
  await cluster.api.down();
  const away = await cluster.run('ADD', 'c', pod('c'));
  t.is(away.error!.code, 11);
  t.regex(
    away.error!.msg,
    /The Kubernetes API at https:\/\/127\.0\.0\.1:6443 does not answer\. See that it is up/,
  );
  t.is((await cluster.run('STATUS', '')).error!.code, 50);
  t.regex((await cluster.del('a')).stderr, /released by the next call that reaches the Kubernetes API/);
  await cluster.api.up();
  t.is((await cluster.run('STATUS', '')).exit, 0);
  t.deepEqual(cluster.reservations(), [two]);
  t.is(await cluster.add('d', pod('d')), one);
  // A container that comes back with the same ID keeps what it had.
  await cluster.api.down();
  await cluster.del('b');
  await cluster.api.up();
  t.is(await cluster.add('b', pod('b')), two);
  t.is((await cluster.run('STATUS', '')).exit, 0);
  t.is(await cluster.add('b', pod('b')), two);
});

test('an ADD asks an API that fails no more, and what it was given is released later', async (t) => {
  const cluster = await kubeClusterOf(t);
  const { api } = cluster;
  const second = 'fd00-70---64';
  const both = { ipam: { ipRanges: [{ range: 'fd00:70::/64' }] } };
  const used = (pool: string) => Object.values(cluster.allocations(pool)).map(({ id }) => id);
  await cluster.add('before', pod('before'));
  const first = used('10.70.0.0-24');
  for (const id of ['new', 'before']) {
    let refused = 0;
    // The address is in the pool by then, but not reserved.
    api.onRequest = ({ method, path, body }) =>
      refused > 0 ||
      (method === 'POST' && /reservations$/.test(path) && JSON.stringify(body).includes('fd00'))
        ? { status: 503, body: { kind: 'Status', message: `refused ${++refused}` } }
        : undefined;
    t.regex((await cluster.run('ADD', id, pod(id, both))).error?.msg ?? '', /cannot answer.*refused 1/);
    t.is(refused, 1, id);
    t.deepEqual(used(second), [id]);
    api.onRequest = () => undefined;
    if (id === 'before') break;
    t.is((await cluster.run('STATUS', '', both)).exit, 0);
    t.deepEqual([used('10.70.0.0-24'), used(second)], [first, []]);
  }
  // What the attachment had before may be in use.
  t.is((await cluster.run('STATUS', '', both)).exit, 0);
  t.deepEqual([used('10.70.0.0-24'), used(second)], [first, ['before']]);
  await cluster.del('before', both);
  t.deepEqual([used('10.70.0.0-24'), used(second), cluster.reservations()], [[], [], []]);
});

test('every failure of the API is told, by code 11, and DEL goes on', async (t) => {
  const cluster = await kubeClusterOf(t, { range: '10.70.0.0/24' });
  const { api } = cluster;
  const failsBy = async (pattern: RegExp, access?: Parameters<KubeApi['kubeconfig']>[1]) => {
    const kubernetes = { kubeconfig: access ? api.kubeconfig('other', access) : api.kubeconfig() };
    const { error, exit } = await cluster.run('ADD', 'a', pod('a', { ipam: { kubernetes } }));
    t.is(exit, 1);
    t.is(error!.code, 11);
    t.regex(`${error!.msg} ${error!.details}`, pattern);
    t.notRegex(JSON.stringify(error), /node-token|s3cret/);
    const torn = await cluster.del('a', { ipam: { kubernetes } });
    t.regex(torn.stderr, /released by the next call that reaches the Kubernetes API/);
  };
  await failsBy(/does not know the user of kubeconfig .* Renew its token/, { token: 's3cret' });
  await failsBy(/do not match/, { cluster: { 'certificate-authority': 'other.crt' } });
  await failsBy(/ECONNREFUSED/, { cluster: { server: 'https://127.0.0.1:1' } });
  api.isAllowed = () => false;
  await failsBy(/forbids it to the user .* ClusterRole.*ippools/);
  api.isAllowed = () => true;
  api.onRequest = () => ({ status: 200, body: '<html>' });
  await failsBy(/does not speak as the Kubernetes API does/);
  api.onRequest = () => ({ status: 500, body: { kind: 'Status', message: 'etcdserver: request timed out' } });
  await failsBy(/cannot answer at present.*etcdserver: request timed out/);
  api.onRequest = () => ({ status: 404, body: 'default backend - 404' });
  await failsBy(/does not serve the kind of object/);
  api.onRequest = () => 'hang';
  await failsBy(/no answer within/);
  api.onRequest = () => undefined;
  api.removeKind('ippools');
  const { error } = await cluster.run('ADD', 'a', pod('a'));
  t.is(error!.code, 11);
  t.regex(error!.msg, /Install the CustomResourceDefinition of its kind/);
  t.regex((await cluster.del('a')).stderr, /released by the next call that reaches the Kubernetes API/);
  t.is((await cluster.run('STATUS', '')).error!.code, 50);
});

test('an ADD that cannot be completed leaves nothing', async (t) => {
  const cluster = await kubeClusterOf(t, {
    ipRanges: [{ range: 'fd00::/127', range_start: 'fd00::1', range_end: 'fd00::1' }],
  });
  cluster.seedReservation('fd00--1', 'default/elsewhere');
  t.regex((await cluster.run('ADD', 'a', pod('a'))).error!.msg, /No address is free in fd00::1-fd00::1/);
  t.deepEqual(cluster.allocations(), {});
  t.deepEqual(cluster.reservations(), ['fd00--1']);
});

test('what cannot be is refused', async (t) => {
  const cluster = await kubeClusterOf(t);
  for (const [calling, message] of [
    [{}, /CNI_ARGS has no K8S_POD_NAMESPACE and K8S_POD_NAME/],
    [pod('a', { ipam: { kubernetes: {} } }), /"ipam" has no "etcd_host" and no "kubernetes.kubeconfig"/],
    [pod('a', { ipam: { kubernetes: { kubeconfig: '/nowhere' } } }), /"\/nowhere" cannot be read/],
    [pod('a', { ipam: { kubernetes: { kubeconfig: 7 } } }), /kubeconfig/],
    [pod('a', { ipam: { network_name: 'Not_A_Name' } }), /takes no such object.*RFC 1123/],
    [pod('a', { args: 'IP=10.71.0.1' }), /No range gives the requested address/],
  ] as const) {
    const { exit, error } = await cluster.run('ADD', 'a', calling);
    t.is(exit, 1);
    t.regex(error!.msg, message);
  }
  t.deepEqual(cluster.api.of('ippools').list(undefined), []);
  t.is(await cluster.add('a', pod('a', { args: 'IP=10.70.0.9' })), '10.70.0.9');
  t.regex(
    (await cluster.run('ADD', 'a', pod('a', { args: 'IP=10.70.0.8' }))).error!.msg,
    /already has 10\.70\.0\.9 .* Run DEL/,
  );
});
