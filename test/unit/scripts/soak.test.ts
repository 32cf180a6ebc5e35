import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { type AgentSize, SoakAgent } from '../../../scripts/soak/agent.ts';
import { Gate } from '../../../scripts/soak/gate.ts';
import { MemoryWatch } from '../../../scripts/soak/memory.ts';
import { ReferenceReach } from '../../../scripts/soak/reference-reach.ts';
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
    const memory = new MemoryWatch({ size: () => last });
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

test('an agent that ends by itself is told and started again, one that is killed is not told', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'soak-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const program = join(directory, 'agent');
  writeFileSync(program, '#!/bin/sh\necho ready\nexec sleep 60\n', { mode: 0o755 });
  const told: string[] = [];
  let tell = () => {};
  const agent = new SoakAgent((how) => {
    told.push(how);
    tell();
  }, program);
  await agent.start();
  await agent.kill();
  t.deepEqual(told, []);
  const first = agent.pid!;
  const ended = new Promise<void>((resolve) => {
    tell = resolve;
  });
  process.kill(first, 'SIGSEGV');
  await ended;
  await agent.start();
  t.not(agent.pid, first);
  t.truthy(agent.pid);
  await agent.end();
  t.deepEqual(told, ['SIGSEGV']);
});

test('pods of the reference out of reach are its own doing, unless this suite loses more', (t) => {
  const excessOf = (alone: [lost: number, asked: number], mixed: [lost: number, asked: number]) => {
    const reach = new ReferenceReach();
    for (const [isAlone, [lost, asked]] of [
      [true, alone],
      [false, mixed],
    ] as const)
      for (let i = 0; i < asked; i++) reach.note(isAlone, i >= lost);
    return reach.excess().length;
  };
  t.is(excessOf([10, 500], [20, 1000]), 0);
  t.is(excessOf([10, 500], [60, 1000]), 1);
  t.is(excessOf([0, 500], [0, 1000]), 0);
  t.is(excessOf([0, 500], [20, 1000]), 1);
  // Where nothing is known of the reference, nothing can be said.
  t.is(excessOf([0, 0], [20, 1000]), 0);
});
