/** Runs once: no agent takes part. */

import { writeFileSync } from 'node:fs';
import test from 'ava';
import { command } from '../support/command.ts';
import { faults } from '../support/etcd-faults.ts';
import { Lives } from '../support/lives.ts';
import { until } from '../support/observe.ts';
import { nodesOf } from '../support/whereabouts.ts';

const range = { range: '10.70.0.0/23', range_start: '10.70.0.1', range_end: '10.70.1.64' };

test('300 pods at once on three nodes have 300 addresses of 320, and faults of etcd neither lose one nor give one twice', async (t) => {
  const cluster = await nodesOf(t, 3, range);
  const lives = new Lives(cluster);
  await lives.add(300);
  t.deepEqual(lives.problems, []);
  t.is(lives.size, 300);
  t.deepEqual(await lives.settle(), []);

  await lives.end(60);
  for (const [name, { cutOff, happen }] of Object.entries(faults)) {
    const [mend] = await Promise.all([happen(cluster), cutOff === undefined && lives.churn(15)]);
    const others = [0, 1, 2].filter((node) => node !== cutOff);
    // Pods of a node that is cut off are torn down all the same. Four calls at a time take as long as one.
    const cut = cutOff === undefined ? undefined : lives.churn(4, [cutOff]);
    // Two of three members are enough.
    await lives.add(10, others);
    await cut;
    if (cutOff !== undefined) {
      const waiting = ['find', '/var/lib/cni/whereabouts', '-type', 'f', '-name', '*[0-9a-f]'];
      const files = (await cluster.nodes[cutOff]!.host.run(waiting)).trim().split('\n');
      t.true(files.length >= 8, files.join());
    }
    await lives.end(10, others);
    await mend();
    t.deepEqual(await lives.settle(), [], name);
    t.deepEqual(lives.problems, [], name);
  }
});

test('what a node that is gone had is collected; a node that is only cut off is left alone as long as it counts as living', async (t) => {
  const cluster = await nodesOf(t, 3, { range: '10.70.0.0/29', quarantine: 1 });
  const { nodes, etcd, onNodes } = cluster;
  const operator = nodes[0]!.host;
  const ipam = { type: 'whereabouts', ...onNodes[0]!.ipam };
  const plugins = [{ type: 'macvlan', master: 'eth0', ipam }];
  writeFileSync(
    operator.file('/etc/cni/net.d/vlan7.conflist'),
    JSON.stringify({ cniVersion: '1.1.0', name: 'vlan7', plugins }),
  );
  const gc = async (...args: string[]) => {
    let exit = -1 as number | string;
    let said = '';
    // The members may elect another leader meanwhile.
    await until('etcd answers', async () => {
      const env = { NODENAME: 'node-1' };
      const outcome = await operator.tryRun([command, 'gc', ...args], { env });
      const text = outcome.stdout + outcome.stderr;
      exit = outcome.exit;
      said += text;
      return !text.includes('No member of etcd can answer');
    });
    return { exit, said };
  };
  const owners = async () =>
    Object.keys(await etcd.all('/cni/addresses/of/')).map((key) => key.split('/').slice(4, 7).join(' '));

  t.is((await gc('--node', 'node-2', '--all')).exit, 2);

  const near = await onNodes[0]!.add('near', { node: 'node-1' });
  // node-3 has no agent, which says only every minute that its node lives.
  const far = await onNodes[2]!.run('ADD', 'far', { node: 'node-3' });
  await onNodes[1]!.add('gone-1', { node: 'node-2' });
  await onNodes[1]!.add('gone-2', { node: 'node-2' });
  const all = ['node-1 vlan7 near', 'node-2 vlan7 gone-1', 'node-2 vlan7 gone-2', 'node-3 vlan7 far'];

  await nodes[2]!.cutOff();
  await etcd.kill(1);
  await etcd.startMember(1);
  await until('two members are enough', async () => (await onNodes[0]!.run('STATUS', '')).exit === 0);
  // As left by a call that was killed right after it got its lease.
  const [key, range_end] = ['node-3', 'node-4'].map((name) =>
    Buffer.from(`/cni/addresses/nodes/${name}`).toString('base64'),
  );
  await etcd.ask('/v3/kv/deleterange', { key, range_end });
  for (const node of ['node-3', 'NODE-2', 'node-1']) {
    const refused = await gc('--node', node);
    t.is(refused.exit, 1);
    t.regex(refused.said, /lives: it has called in the last 300 seconds|is this one\. Run "cni gc vlan7"/);
  }
  t.deepEqual(await owners(), all);
  await nodes[2]!.join();
  await etcd.untilHealthy();

  // The machine of node-2 is gone.
  await etcd.kill(1);
  await nodes[1]!.cutOff();
  await etcd.forgetPresence();
  await until(
    'node-3 has called',
    async () => (await onNodes[2]!.run('STATUS', '', { node: 'node-3' })).exit === 0,
  );
  t.regex((await gc('--node', 'node-3')).said, /"node-3" lives/);
  const dry = await gc('vlan7', '--node', 'node-2', '--dry-run');
  t.regex(dry.said, /^Would remove gone-1 eth0: 10\.70\.0\.\d$/m);
  t.regex(dry.said, /2 attachments of node "node-2" would be removed/);
  t.deepEqual(await owners(), all);
  // That another network keeps no list of nodes is no failure of this one.
  const kubernetes = { kubeconfig: '/etc/cni/kubeconfig' };
  const others = { type: 'whereabouts', range: '10.71.0.0/24', kubernetes };
  writeFileSync(
    operator.file('/etc/cni/net.d/vlan8.conflist'),
    JSON.stringify({
      ...{ cniVersion: '1.1.0', name: 'vlan8' },
      plugins: [{ type: 'macvlan', master: 'eth0', ipam: others }],
    }),
  );
  const done = await gc('--node', 'node-2');
  t.is(done.exit, 0, done.said);
  t.regex(done.said, /Network "vlan8": .* do not say on which node .* whereabouts' reconciler/);
  t.regex(done.said, /^Removed gone-2 eth0: 10\.70\.0\.\d$/m);
  t.deepEqual(
    await owners(),
    all.filter((one) => !one.startsWith('node-2')),
  );
  // All the rest of the range is available again once the quarantine is over.
  const ids = ['a', 'b', 'c', 'd'];
  const added = async () => {
    for (const id of ids) if ((await onNodes[0]!.run('ADD', id, { node: 'node-1' })).exit !== 0) return false;
    return true;
  };
  await until('the quarantine is over', added);

  // If the operator is wrong, a pod loses its address, but no two pods have one.
  await nodes[2]!.cutOff();
  await nodes[1]!.join();
  await etcd.startMember(1);
  await until('two members are enough', async () => (await onNodes[0]!.run('STATUS', '')).exit === 0);
  await etcd.forgetPresence();
  t.regex((await gc('--node', 'node-3')).said, /Removed far eth0/);
  await until('the last address is free', async () => {
    const { exit } = await onNodes[0]!.run('ADD', 'e', { node: 'node-1' });
    return exit === 0;
  });
  await nodes[2]!.join();
  await etcd.untilHealthy();
  const { result: prevResult } = far;
  const check = await onNodes[2]!.run('CHECK', 'far', { node: 'node-3', prevResult });
  t.regex(check.error!.msg, /is not reserved for container "far"/);
  await onNodes[2]!.del('far', { node: 'node-3', prevResult });
  t.deepEqual(
    await owners(),
    ['near', ...ids, 'e'].toSorted().map((id) => `node-1 vlan7 ${id}`),
  );
  t.is(await onNodes[0]!.add('near', { node: 'node-1' }), near);
});
