import test from 'ava';
import type { AgentSize, SoakAgent } from '../../../scripts/soak/agent.ts';
import { Gate } from '../../../scripts/soak/gate.ts';
import { MemoryWatch } from '../../../scripts/soak/memory.ts';
import { Times } from '../../../scripts/soak/times.ts';

/** Times of 2,000 calls that grow evenly, in milliseconds. */
function timesOf(ours: [from: number, to: number], reference: [from: number, to: number]): Times {
  const times = new Times();
  for (let i = 0; i < 2000; i++)
    for (const [contender, [from, to]] of [
      ['agent', ours],
      ['reference', reference],
    ] as const)
      times.add(contender, 'ADD', from + ((to - from) * i) / 2000);
  return times;
}

test('a time that grows is told, unless that of the reference grows as well', (t) => {
  t.regex(
    timesOf([10, 30], [10, 10]).growths()[0] ?? '',
    /^ADD with agent took 1\d ms in the first quarter and 2\d ms/,
  );
  t.deepEqual(timesOf([10, 30], [20, 60]).growths(), []);
  t.deepEqual(timesOf([10, 10], [10, 10]).growths(), []);
});

test('an agent that grows with its calls is told, unless it is another one or has done little', (t) => {
  const growthsOf = (mayBeKilled: boolean, ...sizes: AgentSize[]) => {
    let last: AgentSize | undefined;
    const memory = new MemoryWatch({ size: () => last } as SoakAgent);
    for (const size of sizes) {
      last = size;
      memory.look(mayBeKilled);
    }
    return memory.growths().length;
  };
  const [early, leaking, sound] = [
    { calls: 300, own: 20_000 },
    { calls: 1000, own: 90_000 },
    { calls: 1000, own: 30_000 },
  ];
  t.is(growthsOf(false, early, leaking), 1);
  t.is(growthsOf(false, early, sound), 0);
  t.is(growthsOf(true, early, leaking), 0);
  t.is(growthsOf(false, early, { calls: 400, own: 90_000 }), 0);
});

test('nothing else goes on while something is done alone', async (t) => {
  const gate = new Gate();
  const said: string[] = [];
  const say = (what: string) => async () => {
    said.push(`${what} begins`);
    await new Promise((resolve) => setTimeout(resolve, 5));
    said.push(`${what} ends`);
  };
  const before = [gate.share(say('one')), gate.share(say('two'))];
  const alone = [gate.alone(say('alone')), gate.alone(say('never'))];
  await Promise.all([...before, ...alone, gate.share(say('three'))]);
  t.deepEqual(said, [
    'one begins',
    'two begins',
    'one ends',
    'two ends',
    'alone begins',
    'alone ends',
    'three begins',
    'three ends',
  ]);
});
