import test from 'ava';
import { hostTargets } from './host-targets.ts';
import { type Target, tryTarget } from './target.ts';
import { targets } from './targets.ts';
import { idleTime } from './waiting.ts';

const sample = 5000;
/** The same inputs each time; `npm run fuzz` makes others. */
const seed = 1;

// Serial, as the time of an input is measured for the whole process.
for (const target of targets.filter((one) => !hostTargets.includes(one)))
  test.serial(`hostile input does no harm: ${target.name}`, async (t) => {
    const { finding: found } = await tryTarget(target, {
      inputs: Math.ceil(sample / targets.length),
      seed,
    });
    const again = `npm run fuzz -- --target ${target.name} --seed ${seed} --path ${found?.path}`;
    t.is(found && `${found.error} (input ${found.input.toString('base64')}, again: ${again})`, undefined);
  });

test('what else the machine does is no time that something waits', (t) => {
  const calm = { processor: 100, disk: 0, slowdown: 1 };
  t.is(idleTime({ ...calm, clock: 5000 }), 4900);
  t.is(idleTime({ ...calm, clock: 800, slowdown: 8 }), 0);
  t.is(idleTime({ ...calm, clock: 5800, slowdown: 8 }), 5000);
  t.is(idleTime({ ...calm, clock: 3100, disk: 3000 }), 0);
});

test('an input that keeps the processor busy for too long is found', async (t) => {
  const busy: Target = {
    name: 'busy',
    samples: [''],
    run() {
      const from = process.cpuUsage();
      for (let used = 0; used < 1_050_000; ) {
        const { user, system } = process.cpuUsage(from);
        used = user + system;
      }
    },
  };
  const { finding, tried } = await tryTarget(busy, { inputs: 0, seed });
  t.regex(finding?.error ?? '', /^It took \d+, \d+, \d+ ms$/);
  t.is(tried, 1);
});
