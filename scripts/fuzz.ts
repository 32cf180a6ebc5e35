/** `npm run fuzz`: tries the suite with hostile input, in every place that input comes from. */

import { parseArgs } from 'node:util';
import { hostTargets } from '../test/fuzz/host-targets.ts';
import { insideVariable } from '../test/fuzz/own-host.ts';
import { type Target, tryTarget } from '../test/fuzz/target.ts';
import { targets } from '../test/fuzz/targets.ts';
import { continueOnOwnHost } from './own-host.ts';
import { newSeed } from './random.ts';
import { record } from './reliability.ts';

const { values } = parseArgs({
  options: {
    inputs: { type: 'string', default: '100000' },
    target: { type: 'string' },
    seed: { type: 'string', default: `${newSeed()}` },
    path: { type: 'string' },
    every: { type: 'string', default: '1' },
    record: { type: 'boolean', default: false },
  },
});
if (!process.env[insideVariable]) continueOnOwnHost({ [insideVariable]: 'yes' });

const wanted = values.target?.split(',');
const unknown = wanted?.find((one) => !targets.some(({ name }) => name === one));
if (unknown !== undefined)
  throw new Error(
    `There is no target "${unknown}". Use one of ${targets.map(({ name }) => name).join(', ')}`,
  );
const chosen = targets.filter(({ name }) => wanted?.includes(name) ?? true);
const seed = Number(values.seed);
const isOfHost = (target: Target) => hostTargets.includes(target);
/** An input of these takes as long as some hundred of the others, of which there are more in their place. */
const isSlow = (target: Target) => isOfHost(target) && !chosen.every(isOfHost);
const slow = chosen.filter(isSlow).length;
const eachSlow = Math.ceil(Number(values.inputs) / chosen.length / 20);
const each = Math.ceil((Number(values.inputs) - slow * eachSlow) / (chosen.length - slow));
const start = performance.now();
let failed = 0;
const tried = { calls: 0, others: 0 };
console.log(
  `Seed ${seed}, ${each} inputs beside the samples for each of ${chosen.length} targets, ${eachSlow} for ${slow} that call verbs with all their effects`,
);
for (const target of chosen) {
  const begin = performance.now();
  const inputs = isSlow(target) ? eachSlow : each;
  const trial = await tryTarget(target, { inputs, every: Number(values.every), seed, path: values.path });
  const { finding: found } = trial;
  tried[isOfHost(target) ? 'calls' : 'others'] += trial.tried;
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  console.log(`${found ? 'FAILED' : 'ok'} ${target.name}: ${trial.tried} inputs in ${seconds} s`);
  if (!found) continue;
  failed++;
  console.log(`  ${found.error}\n  Input in base64: ${found.input.toString('base64')}`);
  if (found.path !== undefined)
    console.log(
      `  Again: npm run fuzz -- --target ${target.name} --seed ${seed} --every ${values.every} --path ${found.path}`,
    );
}
if (values.record && values.target === undefined && values.path === undefined)
  record({
    part: 'Hostile input',
    unit: 'inputs',
    tried: tried.calls + tried.others,
    failed,
    command: `npm run fuzz -- --inputs ${values.inputs} --seed ${seed}`,
    minutes: (performance.now() - start) / 60_000,
    note: `${chosen.length} targets, within one process on a host of its own; ${tried.calls.toLocaleString('en')} of the inputs are for verbs with all their effects, of ${slow} kinds`,
  });
process.exitCode = failed > 0 ? 1 : 0;
