import test from 'ava';
import { Etcd } from '../support/etcd.ts';
import { makeHost, startAgent } from '../support/host.ts';
import { Cluster, clusterOf } from '../support/whereabouts.ts';

/** How often etcd was asked for something, by its own count. */
async function asked({ host, etcd }: Cluster, method: string): Promise<number> {
  const text = await host.run(['curl', '-s', `${etcd.hosts}/metrics`]);
  const lines = text.matchAll(/^grpc_server_handled_total\{.*grpc_method="(\w+)".*\} (\d+)$/gm);
  return [...lines].reduce((sum, [, name, count]) => sum + (name === method ? Number(count) : 0), 0);
}

/** Takes addresses of a range as another suite would, without a call for each. */
async function fill({ etcd }: Cluster, count: number, from = 0x0a470000): Promise<void> {
  const encode = (text: string) => Buffer.from(text).toString('base64');
  const puts = Array.from({ length: count }, (_, i) => ({
    request_put: {
      key: encode(`/cni/addresses/in/@/4-${(from + i).toString(16).padStart(8, '0')}`),
      value: encode('{"owner":"/cni/addresses/of/node-9/vlan7/x/eth0"}'),
    },
  }));
  for (let i = 0; i < puts.length; i += 100)
    await etcd.ask('/v3/kv/txn', { success: puts.slice(i, i + 100) });
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
  const before = await asked(cluster, 'Txn');
  t.regex(
    (await cluster.run('ADD', 'none')).error!.msg,
    /No address is free in 10\.71\.0\.0-10\.71\.15\.254/,
  );
  t.is((await asked(cluster, 'Txn')) - before, 2);
});

test('what others have of the excluded part of a range does not make it full', async (t) => {
  const cluster = await clusterOf(t, {
    range: '10.71.0.0/20',
    exclude: ['10.71.0.0/21', '10.71.8.0/22'],
    gateway: '10.71.12.7',
  });
  await fill(cluster, 3072);
  for (const id of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'])
    t.regex(await cluster.add(id), /^10\.71\.1[2-5]\.\d+$/);
});

test('CHECK takes one request', async (t) => {
  const cluster = await clusterOf(t, { ipRanges: [{ range: 'fd00:70::/64' }] });
  const { result: prevResult } = await cluster.run('ADD', 'a');
  const before = await asked(cluster, 'Txn');
  t.is((await cluster.run('CHECK', 'a', { prevResult })).exit, 0);
  t.is((await asked(cluster, 'Txn')) - before, 1);
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
  const before = await asked(cluster, 'Authenticate');
  const ids = ['a', 'b', 'c', 'd'];
  const given = await Promise.all(ids.map((id) => cluster.add(id)));
  t.is(new Set(given).size, 4);
  t.is((await asked(cluster, 'Authenticate')) - before, 1);
  // Its tokens are in the memory of the member.
  await etcd.kill(0);
  await etcd.startMember(0);
  await etcd.untilHealthy();
  await Promise.all(ids.map((id) => cluster.del(id)));
  t.is(await asked(cluster, 'Authenticate'), 1);
  const other = await cluster.run('ADD', 'e', { ipam: { etcd_password: 'wrong' } });
  t.regex(other.error!.msg, /etcd refuses user "root"/);
});
