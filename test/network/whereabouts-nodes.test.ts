import test from 'ava';
import { faults } from '../support/etcd-faults.ts';
import { Lives } from '../support/lives.ts';
import { nodesOf } from '../support/whereabouts.ts';

const range = { range: '10.70.0.0/23', range_start: '10.70.0.1', range_end: '10.70.1.64' };

test('300 pods at once on three nodes have 300 addresses of 320, and faults of etcd neither lose one nor give one twice', async (t) => {
  const cluster = await nodesOf(t, 3, range);
  const lives = new Lives(cluster);
  await lives.begin(300);
  t.deepEqual(lives.problems, []);
  t.deepEqual(lives.counts, { lives: 300, refused: 0 });
  t.deepEqual(await lives.settle(), []);

  await lives.end(60);
  for (const [name, happen] of Object.entries(faults)) {
    const [fault] = await Promise.all([
      happen(cluster),
      name === 'node cut off' ? undefined : lives.churn(15),
    ]);
    const others = [0, 1, 2].filter((node) => node !== fault.node);
    const { refused } = lives.counts;
    const before = others.reduce((sum, node) => sum + lives.sizeOn(node), 0);
    // Pods of a node that reaches nobody are torn down all the same. Four calls at a time take as long as one.
    const cut = fault.node === undefined ? undefined : lives.churn(4, [fault.node]);
    await lives.begin(10, others);
    const after = others.reduce((sum, node) => sum + lives.sizeOn(node), 0);
    t.is(after - before, 10, `${name}: two of three members are enough`);
    await cut;
    t.is(lives.counts.refused - refused, fault.node === undefined ? 0 : 4, name);
    await lives.end(10, others);
    await fault.mend();
    t.deepEqual(await lives.settle(), [], name);
    t.deepEqual(lives.problems, [], name);
  }
});
