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
    const [, fault] = await Promise.all([lives.churn(15), happen(cluster)]);
    const others = [0, 1, 2].filter((node) => node !== fault.node);
    // Two of three members are enough.
    const { refused } = lives.counts;
    const before = lives.size;
    await lives.begin(10, others);
    t.deepEqual([lives.size - before, lives.counts.refused - refused], [10, 0], name);
    if (fault.node !== undefined) {
      await Promise.all([lives.churn(6, [fault.node]), lives.churn(6, others)]);
      t.is(lives.counts.refused - refused, 6, name);
    }
    await lives.end(10, others);
    await fault.mend();
    t.deepEqual(await lives.settle(), [], name);
    t.deepEqual(lives.problems, [], name);
  }
});
