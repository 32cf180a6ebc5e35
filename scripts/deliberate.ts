/**
 * Shows that the proofs can fail: puts one known fault after another into a copy of the code, runs the part
 * of the proof that has to detect it, and then the same part without the fault, which must pass.
 *
 *     npm run deliberate                      every fault
 *     npm run deliberate -- --proof kill      those for one proof, or for several if given more than once
 *     npm run deliberate -- --only STATUS     those whose description has that text
 *     npm run deliberate -- --record          and writes the outcome to docs/reliability.md
 *
 * The faults are in scripts/deliberate/faults.ts. It needs root, as the proofs do, and exits with 1 when a
 * proof does not detect a fault, reports something else, or fails without a fault.
 */

import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Fault, faults, located, proofs } from './deliberate/faults.ts';
import { Workspace } from './mutate/workspace.ts';
import { record } from './reliability.ts';

const { values } = parseArgs({
  options: {
    proof: { type: 'string', multiple: true },
    only: { type: 'string', default: '' },
    record: { type: 'boolean', default: false },
  },
});

/** How long a part of a proof may take, in seconds. */
const longestRun = 300;

const chosen = faults.filter(
  ({ proof, what }) => (values.proof?.includes(proof) ?? true) && what.includes(values.only),
);
if (chosen.length === 0) {
  console.error(
    `There is no such fault. Give --proof as one of ${Object.keys(proofs).join(', ')}, and --only as a part of the description`,
  );
  process.exit(2);
}
const start = performance.now();
const scratch = mkdtempSync(join(tmpdir(), 'cni-deliberate-'));
// Some tests run executables as another user.
chmodSync(scratch, 0o755);
process.on('exit', () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

const root = join(import.meta.dirname, '..');
const workspace = new Workspace(join(scratch, 'copy'));
console.log(`Building a copy with ${chosen.length} faults, of which one at a time is awake`);
await workspace.prepare(root, located(root, chosen));
const sound = new Map<string, boolean>();
let unseen = 0;
for (const [i, fault] of chosen.entries()) {
  const problem = await problemOf(i, fault);
  console.log(`${problem ? 'NOT SEEN' : 'seen'} by ${fault.proof}: ${fault.what}`);
  if (!problem) continue;
  console.log(problem.replace(/^/gm, '    '));
  unseen++;
}
const minutes = (performance.now() - start) / 60_000;
console.log(`${chosen.length} faults in ${minutes.toFixed(1)} minutes, ${unseen} not seen`);
if (values.record && chosen.length === faults.length)
  record({
    part: 'Deliberate faults in the code, each of which a proof must see',
    unit: 'faults',
    tried: chosen.length,
    failed: unseen,
    command: 'npm run deliberate',
    minutes,
    note: `Survived means here that the proof saw it, said so, and passed without it: ${proofCounts()}`,
  });
process.exit(unseen > 0 ? 1 : 0);

/** What is wrong with a proof's reaction to a fault; "" when the proof detects it. */
async function problemOf(i: number, { proof, run, says }: Fault): Promise<string> {
  const args = [...proofs[proof], ...run];
  const { passed, output } = await workspace.run(i, args, longestRun);
  if (passed) return `It passes with the fault: node ${args.join(' ')}\n${output.slice(-1000)}`;
  if (!says.test(output)) return `It does not say ${says}:\n${output.slice(-4000)}`;
  const key = args.join(' ');
  if (!sound.has(key)) {
    const control = await workspace.run(undefined, args, longestRun);
    sound.set(key, control.passed);
    if (!control.passed) return `It fails without the fault as well:\n${control.output.slice(-4000)}`;
  }
  return sound.get(key) ? '' : 'It fails without the fault as well';
}

/** How many faults each proof was tried with. */
function proofCounts(): string {
  return [...Map.groupBy(chosen, ({ proof }) => proof)]
    .map(([proof, own]) => `${proof} ${own.length}`)
    .join(', ');
}
