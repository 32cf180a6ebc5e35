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
    record: { type: 'boolean', default: false },
  },
});
if (!process.env[insideVariable]) continueOnOwnHost({ [insideVariable]: 'yes' });

const chosen = targets.filter(({ name }) => values.target === undefined || name === values.target);
if (chosen.length === 0)
  throw new Error(
    `There is no target "${values.target}". Use one of ${targets.map(({ name }) => name).join(', ')}`,
  );
const seed = Number(values.seed);
const each = Math.ceil(Number(values.inputs) / chosen.length);
/** An input of these takes as long as some hundred of the others. */
const inputsFor = (target: Target) =>
  hostTargets.includes(target) && chosen.length > 1 ? Math.ceil(each / 20) : each;
const start = performance.now();
let failed = 0;
console.log(`Seed ${seed}, ${each} inputs beside the samples for each of ${chosen.length} targets`);
for (const target of chosen) {
  const found = await tryTarget(target, { inputs: inputsFor(target), seed, path: values.path });
  console.log(`${found ? 'FAILED' : 'ok'} ${target.name}`);
  if (!found) continue;
  failed++;
  console.log(`  ${found.error}\n  Input in base64: ${found.input.toString('base64')}`);
  if (found.path !== undefined)
    console.log(`  Again: npm run fuzz -- --target ${target.name} --seed ${seed} --path ${found.path}`);
}
if (values.record && values.target === undefined && values.path === undefined)
  record({
    part: 'Hostile input',
    unit: 'inputs',
    tried: chosen.reduce((sum, target) => sum + target.samples.length + inputsFor(target), 0),
    failed,
    command: `npm run fuzz -- --inputs ${values.inputs} --seed ${seed}`,
    minutes: (performance.now() - start) / 60_000,
    note: `${chosen.length} targets, within one process on a host of its own`,
  });
process.exitCode = failed > 0 ? 1 : 0;
