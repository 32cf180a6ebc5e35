import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Random } from '../../../scripts/random.ts';
import { SoakAgent } from '../../../scripts/soak/agent.ts';
import { Gate } from '../../../scripts/soak/gate.ts';
import { MemoryWatch } from '../../../scripts/soak/memory.ts';
import { differences } from '../../../scripts/soak/picture.ts';
import { Times } from '../../../scripts/soak/times.ts';

/** Times of calls that grow evenly, each up to a third more or less, in milliseconds. */
function timesOf(
  ours: [from: number, to: number],
  reference: [from: number, to: number],
  { calls = 400, command = 'ADD' } = {},
): Times {
  const times = new Times();
  const random = new Random(1);
  for (let i = 0; i < calls; i++)
    for (const [contender, verb, [from, to]] of [
      ['agent', command, ours],
      ['reference', command === 'GC' ? 'DEL' : command, reference],
    ] as const)
      times.add(contender, verb, (from + ((to - from) * i) / calls) * (random.between(66, 133) / 100));
  return times;
}

test('a time that grows is told, GC as well, unless that of the reference grows too', (t) => {
  t.regex(
    timesOf([10, 50], [10, 10]).growths()[0] ?? '',
    /^ADD with agent took 1\d ms in the first quarter and 4\d ms/,
  );
  t.regex(timesOf([10, 50], [10, 10], { command: 'GC' }).growths()[0] ?? '', /^GC with agent took/);
  t.deepEqual(timesOf([10, 50], [20, 100]).growths(), []);
  t.deepEqual(timesOf([10, 10], [10, 10]).growths(), []);
});

test('a time that grows is not told of so few calls that it may be chance', (t) => {
  t.deepEqual(timesOf([10, 50], [10, 10], { calls: 70 }).growths(), []);
  t.deepEqual(timesOf([10, 18], [10, 10], { calls: 100 }).growths(), []);
});

/** What is reported of an agent looked at every 100 calls. @param ownAt its memory after so many, in KiB. */
async function growthsOf(
  ownAt: (calls: number) => number,
  { upTo = 4500, mayBeKilled = false } = {},
): Promise<string[]> {
  let calls = 200;
  const memory = new MemoryWatch({ size: async () => ({ calls, own: ownAt(calls) }) });
  for (; calls <= upTo; calls += 100) await memory.look(mayBeKilled);
  return memory.growths();
}

/** What an agent has whose heap grows by 8 MiB until it is collected. */
const collected = (calls: number) => 22_000 + 5 * (calls % 1600);

test('an agent that grows by 4 KiB a call is told, unless it is another one or has done little', async (t) => {
  const leaking = (calls: number) => collected(calls) + 4 * calls;
  t.regex(
    (await growthsOf(leaking))[0] ?? '',
    /^The agent grew from 23\.\d MiB after 200 calls to 4\d\.\d MiB after/,
  );
  t.deepEqual(await growthsOf(leaking, { mayBeKilled: true }), []);
  t.deepEqual(await growthsOf(leaking, { upTo: 1000 }), []);
});

test('an agent that grows by 30 KiB a call is told after some hundred calls', async (t) => {
  t.is((await growthsOf((calls) => collected(calls) + 30 * calls, { upTo: 900 })).length, 1);
});

test('an agent whose heap grows until it is collected is not told, however much was seen of it', async (t) => {
  for (let upTo = 200; upTo <= 4500; upTo += 100)
    t.deepEqual(await growthsOf(collected, { upTo }), [], `${upTo}`);
  t.deepEqual(await growthsOf((calls) => collected(calls) + 1.7 * calls), []);
});

test('what is lost is told apart from what is left', (t) => {
  t.deepEqual(differences(new Set(['link a', 'link b']), new Set(['link b', 'link c'])), {
    left: ['link c'],
    lost: ['link a'],
  });
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
  const alone = [gate.alone(say('alone')), gate.alone(say('alone as well'))];
  await Promise.all([...before, ...alone, gate.share(say('three'))]);
  t.deepEqual(said, [
    'one begins',
    'two begins',
    'one ends',
    'two ends',
    'alone begins',
    'alone ends',
    'alone as well begins',
    'alone as well ends',
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
