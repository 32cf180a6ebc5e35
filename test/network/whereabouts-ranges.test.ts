import test from 'ava';
import { Etcd } from '../support/etcd.ts';
import { makeHost, startAgent } from '../support/host.ts';
import { Cluster, clusterOf } from '../support/whereabouts.ts';

/** Takes addresses of a range as another suite would, without a call for each. */
async function fill({ etcd }: Cluster, count: number, from = 0x0a470000): Promise<void> {
  const pairs = Array.from({ length: count }, (_, i) => {
    const key = `/cni/addresses/in/@/4-${(from + i).toString(16).padStart(8, '0')}`;
    return [key, '{"owner":"/cni/addresses/of/node-9/vlan7/x/eth0"}'] as const;
  });
  for (let i = 0; i < count; i += 100) await etcd.putAll(pairs.slice(i, i + 100));
}

test('a large range that is full is counted, not searched', async (t) => {
  const cluster = await clusterOf(t, {
    range: '10.71.0.0/20',
    range_start: '10.71.0.0',
    exclude: ['10.71.15.255'],
  });
  await fill(cluster, 4094);
  const given = await cluster.add('last');
  t.is(given, '10.71.15.254');
  const before = await cluster.etcd.handled('Txn');
  t.regex(
    (await cluster.run('ADD', 'none')).error!.msg,
    /No address is free in 10\.71\.0\.1-10\.71\.15\.254/,
  );
  t.is((await cluster.etcd.handled('Txn')) - before, 2);
});

test('what others have of the excluded part of a range does not make it full', async (t) => {
  const cluster = await clusterOf(t, {
    range: '10.71.0.0/20',
    exclude: ['10.71.0.0/21', '10.71.8.0/22'],
    gateway: '10.71.12.7',
  });
  await fill(cluster, 3840);
  for (const id of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'])
    t.regex(await cluster.add(id), /^10\.71\.15\.\d+$/);
});

test('CHECK takes one request', async (t) => {
  const cluster = await clusterOf(t, { ipRanges: [{ range: 'fd00:70::/64' }] });
  const { result: prevResult } = await cluster.run('ADD', 'a');
  const before = await cluster.etcd.handled('Txn');
  t.is((await cluster.run('CHECK', 'a', { prevResult })).exit, 0);
  t.is((await cluster.etcd.handled('Txn')) - before, 1);
  const [key] = Object.keys(await cluster.etcd.all('/cni/addresses/in/@/6'));
  await cluster.etcd.put(key!, '{"owner":"/cni/addresses/of/node-9/vlan7/x/eth0"}');
  const lost = await cluster.run('CHECK', 'a', { prevResult });
  t.regex(lost.error!.msg, /Address fd00:70::[0-9a-f:]+ of container "a" is reserved for somebody else/);
});

test('the agent authenticates once, and again when etcd was started anew', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const etcd = await Etcd.start(t, host);
  await etcd.requirePassword('secret');
  await startAgent(t, host);
  const cluster = new Cluster(host, etcd, { etcd_username: 'root', etcd_password: 'secret' });
  const before = await cluster.etcd.handled('Authenticate');
  const ids = ['a', 'b', 'c', 'd'];
  const given = await Promise.all(ids.map((id) => cluster.add(id)));
  t.is(new Set(given).size, 4);
  t.is((await cluster.etcd.handled('Authenticate')) - before, 1);
  // A connection or two are kept for what comes next.
  const connections = await host.run(['ss', '-Htnp', 'state', 'established', 'dst', '127.0.1.1:2379']);
  const kept = connections.split('\n').filter((line) => line !== '' && !line.includes('"etcd"'));
  t.true(kept.length === 1 || kept.length === 2, connections);
  // Its tokens are in the memory of the member. A member that is killed would restore those of its last tenth
  // of a second from its log.
  await etcd.stop(0);
  await etcd.startMember(0);
  await etcd.untilHealthy();
  await Promise.all(ids.map((id) => cluster.del(id)));
  t.is(await cluster.etcd.handled('Authenticate'), 1);
  const other = await cluster.run('ADD', 'e', { ipam: { etcd_password: 'wrong' } });
  t.regex(other.error!.msg, /etcd refuses user "root"/);
});
