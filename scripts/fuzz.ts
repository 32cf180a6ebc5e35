/**
 * `npm run fuzz`: tries the suite with hostile input, in every place that input comes from.
 *
 *     --inputs N       tries at least this many, besides the inputs that each target has of its own
 *     --target A,B     only these targets
 *     --every N        only one in N of the inputs that targets have of their own
 *     --seed N         determines which inputs are made
 *     --path P         only the input with this path, as printed when it failed
 *     --record         writes the row of docs/reliability.md
 */

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
/** An input of these takes as long as about a hundred of the others, so that the others get more inputs. */
const isSlow = (target: Target) => isOfHost(target) && !chosen.every(isOfHost);
const slow = chosen.filter(isSlow).length;
const eachSlow = Math.ceil(Number(values.inputs) / chosen.length / 40);
const each = Math.ceil((Number(values.inputs) - slow * eachSlow) / (chosen.length - slow));
/** The option that limits the targets' own inputs, if there is a limit. */
const own = values.every === '1' ? '' : ` --every ${values.every}`;
const start = performance.now();
let failed = 0;
const tried = { calls: 0, others: 0 };
console.log(
  `Seed ${seed}, ${each} inputs beside the samples for each of ${chosen.length} targets, ${eachSlow} for ${slow} that change the host`,
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
    console.log(`  Again: npm run fuzz -- --target ${target.name} --seed ${seed}${own} --path ${found.path}`);
}
if (values.record && values.target === undefined && values.path === undefined)
  record({
    part: 'Hostile input',
    unit: 'inputs',
    tried: tried.calls + tried.others,
    failed,
    command: `npm run fuzz -- --inputs ${values.inputs}${own} --seed ${seed}`,
    minutes: (performance.now() - start) / 60_000,
    note: `${chosen.length} targets, within one process on a host of its own; ${tried.calls.toLocaleString('en')} of the inputs are for the ${slow} that change the host, such as verbs with all their effects`,
  });
process.exitCode = failed > 0 ? 1 : 0;
