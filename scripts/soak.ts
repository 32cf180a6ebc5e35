/**
 * Thousands of pods come and go, many at once, on networks with too few addresses, while plugins, their
 * children and the agent are killed, DELs are lost, the runtime is restarted, and each call is done by this
 * suite with its agent, by this suite without it, or by the reference plugins. No address may ever be in two
 * living pods, every pod must be reachable, and when all are gone, GC must leave nothing. Neither the time of
 * a call nor the memory of the agent may grow.
 *
 *     npm run soak                       2,000 lives, 32 at once
 *     npm run soak -- --lives 300 --at-once 16 --minutes 2     no new life after that time
 *     npm run soak -- --seed 7           the same choices again, as far as timing permits
 *     npm run soak -- --backend nftables --dual-stack    instead of iptables, and of only IPv4
 *     npm run soak -- --record           and writes the outcome to docs/reliability.md
 *
 * It runs on a host of its own, changes nothing on the machine, and exits with 1 when anything was wrong.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { backendNames } from '../lib/firewall/backend.ts';
import { Host } from '../test/support/host.ts';
import { continueOnOwnHost } from './own-host.ts';
import { newSeed, Random } from './random.ts';
import { record } from './reliability.ts';
import { SoakAgent } from './soak/agent.ts';
import { Caller } from './soak/call.ts';
import { Findings } from './soak/findings.ts';
import { leftovers } from './soak/leftovers.ts';
import { live } from './soak/life.ts';
import { MemoryWatch } from './soak/memory.ts';
import { networksFor } from './soak/networks.ts';
import { Observer } from './soak/observer.ts';
import { takePicture } from './soak/picture.ts';
import { Runtime } from './soak/runtime.ts';
import { Times } from './soak/times.ts';

const { values } = parseArgs({
  options: {
    lives: { type: 'string', default: '2000' },
    'at-once': { type: 'string', default: '32' },
    minutes: { type: 'string' },
    seed: { type: 'string' },
    backend: { type: 'string', default: 'iptables' },
    'dual-stack': { type: 'boolean', default: false },
    record: { type: 'boolean', default: false },
  },
});
const [lives, atOnce] = [Number(values.lives), Number(values['at-once'])];
const minutes = Number(values.minutes ?? Number.POSITIVE_INFINITY);
const seed = Number(values.seed ?? newSeed());
if (![lives, atOnce, minutes, seed].every((value) => value >= 0)) throw new Error('Give numbers');
const options = { backend: oneOf(backendNames, values.backend), isDualStack: values['dual-stack'] };

/** How often it reports progress, and looks at the agent's memory, in milliseconds. */
const [progressInterval, memoryInterval] = [10_000, 3000];
/** After how long GC takes an unfinished file to be left by a writer that was killed, in milliseconds. */
const unfinishedTime = 61_000;

if (process.env.SOAK_INSIDE) await run();
else continueOnOwnHost({ SOAK_INSIDE: 'yes' });

async function run(): Promise<void> {
  const limit = values.minutes ? ` --minutes ${minutes}` : '';
  const which = `--backend ${options.backend}${options.isDualStack ? ' --dual-stack' : ''}`;
  const command = `npm run soak -- --lives ${lives} --at-once ${atOnce}${limit} ${which} --seed ${seed}`;
  console.log(`Seed ${seed}: ${command}`);
  const start = performance.now();
  const elapsed = (since = start) => (performance.now() - since) / 60_000;
  // Preparation does not count: it takes minutes on a slow machine.
  let livingSince = start;
  const isOverTime = (limit: number) => elapsed(livingSince) >= limit;
  const host = new Host(process.pid);
  const findings = new Findings();
  const times = new Times();
  const agent = new SoakAgent((how) => findings.violation(`The agent ended by itself: ${how}`));
  const networks = networksFor(atOnce, options);
  let begun = 0;
  let ended = 0;
  // A single agent lives through the second half, so that its memory means something.
  const mayKillAgent = () => ended < lives / 2 && !isOverTime(minutes / 2);
  const runtime = new Runtime({ networks, caller: new Caller(agent, times), findings, mayKillAgent });
  await agent.start();
  const observed = { runtime, findings, networks };
  const observer = await Observer.start(host, observed, options);
  await runtime.prepare();
  const before = await takePicture(host);

  const world = { ...observed, observer };
  const choices = new Random(seed);
  const worker = async () => {
    while (begun < lives && !isOverTime(minutes)) {
      const life = ++begun;
      await live(world, life, new Random(choices.below(2 ** 31)));
      ended++;
    }
  };
  const memory = new MemoryWatch(agent);
  const looking = setInterval(() => memory.look(mayKillAgent()), memoryInterval);
  const progress = setInterval(() => {
    const { length } = findings.violations;
    console.log(
      `${elapsed().toFixed(1)} min: ${ended} of ${lives} lives, ${runtime.attached.size} pods attached, agent ${memory.latest}, ${length} violations`,
    );
  }, progressInterval);
  let isOver = false;
  const watching = observer.watch(() => isOver);
  livingSince = performance.now();
  await Promise.all(Array.from({ length: atOnce }, worker));
  isOver = true;
  await watching;
  clearInterval(progress);
  clearInterval(looking);
  await memory.look(false);
  await runtime.end(choices);
  await agent.end();
  observer.stop();

  let { left, lost } = await leftovers(host, before);
  if (left.some((line) => line.endsWith('.tmp'))) {
    await sleep(unfinishedTime);
    await runtime.end(choices);
    ({ left, lost } = await leftovers(host, before));
  }
  for (const line of left) findings.violation(`Left behind: ${line}`);
  for (const line of lost) findings.violation(`Lost: ${line}`);
  for (const text of [...times.growths(), ...memory.growths()]) findings.violation(text);
  const trends = times
    .trends()
    .map(
      ({ contender, command: verb, calls, first, last }) =>
        `${verb} (${contender}): ${first.toFixed()} ms in the first quarter of ${calls} calls, ${last.toFixed()} ms in the last`,
    );
  const told = [...trends, ...memory.report()];
  console.log(`\n${[findings.summary(), ...told].join('\n')}`);
  const { length } = findings.violations;
  console.log(`\n${ended} lives in ${elapsed().toFixed(1)} minutes, ${length} violations`);
  if (values.record)
    record({
      part: 'Lives of pods under load, with kills, lost DELs and restarts',
      unit: 'lives',
      tried: ended,
      failed: length,
      command,
      minutes: elapsed(),
      note: told.join('; '),
    });
  process.exit(length > 0 ? 1 : 0);
}

/** @throws Error when a value is not one of the known ones. */
function oneOf<T extends string>(known: readonly T[], value: string): T {
  const found = known.find((one) => one === value);
  if (found === undefined) throw new Error(`"${value}" is none of ${known.join(', ')}`);
  return found;
}
