/**
 * Upgrade and downgrade with pods running, between the build in dist/bin and a real older one: builds an
 * earlier commit, and has each of the two add pods, which the other checks, deletes and collects. Unlike
 * test/network/upgrade.test.ts, which has recorded states, it runs the old code.
 *
 *     npm run upgrade                          the newest commit that is at least a day old
 *     npm run upgrade -- --from COMMIT         another one
 *     npm run upgrade -- --subject nftables    one network of test/proof/subjects.ts
 *     npm run upgrade -- --record              and writes the outcome to docs/reliability.md
 *
 * It needs root, and the history: a clone that is not shallow. Exits with 1 when anything was lost, left or
 * refused, and with 2 when there is no such commit or subject.
 */

import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { record } from './reliability.ts';

const { values } = parseArgs({
  options: {
    from: { type: 'string' },
    subject: { type: 'string' },
    record: { type: 'boolean', default: false },
  },
});

const root = join(import.meta.dirname, '..');
const from = earlierCommit();
const start = performance.now();
const scratch = mkdtempSync(join(tmpdir(), 'cni-upgrade-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
buildEarlier();
// Where tests look for the other suite. They read this variable when they are loaded.
process.env.CNI_REFERENCE = join(scratch, 'dist/bin');
const { directions, mix } = await import('./upgrade/mix.ts');
const { subjects } = await import('../test/proof/subjects.ts');

const chosen = Object.entries(subjects).filter(([name]) => name === (values.subject ?? name));
if (chosen.length === 0) refuse(`--subject is one of ${Object.keys(subjects).join(', ')}`);
let pods = 0;
let failed = 0;
const unknown: string[] = [];
for (const [name, subject] of chosen)
  for (const direction of directions) {
    const { lives, isUnknown, problems } = await mix(subject, direction);
    pods += lives;
    failed += problems.length;
    if (isUnknown) unknown.push(name);
    console.log(
      `${problems.length > 0 ? 'FAILED' : isUnknown ? 'not there yet' : 'ok'} ${direction}, ${name}`,
    );
    for (const problem of problems) console.log(problem.replace(/^/gm, '    '));
  }
const minutes = (performance.now() - start) / 60_000;
console.log(`${pods} pods with ${from} in ${minutes.toFixed(1)} minutes, ${failed} failed`);
if (values.record && values.subject === undefined)
  record({
    part: 'Upgrade and downgrade with pods running: an older build and this one do a part of each life',
    unit: 'pods',
    tried: pods,
    failed,
    command: `npm run upgrade -- --from ${from}`,
    minutes,
    note: [
      `networks: ${chosen.map(([name]) => name).join(', ')}`,
      ...(unknown.length > 0 ? [`plugins that ${from} lacks: ${[...new Set(unknown)].join(', ')}`] : []),
    ].join('; '),
  });
process.exit(failed > 0 ? 1 : 0);

/** Abbreviated hash of the commit to be built. */
function earlierCommit(): string {
  const git = (...args: string[]) =>
    execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    const found = values.from ?? git('rev-list', '-1', '--before=1.day.ago', 'HEAD');
    return git('rev-parse', '--short', `${found || 'none a day old'}^{commit}`);
  } catch {
    return refuse(
      `There is no commit ${values.from ? `"${values.from}"` : 'that is a day old'} here. Run this in a clone with its history, which an archive of the sources does not have`,
    );
  }
}

function refuse(message: string): never {
  console.error(message);
  process.exit(2);
}

/** Builds the commit beside this one, with the npm packages of this one. */
function buildEarlier(): void {
  console.log(`Building ${from}`);
  const archive = execFileSync('git', ['archive', from], { cwd: root, maxBuffer: 2 ** 30 });
  execFileSync('tar', ['--extract', '--directory', scratch], { input: archive });
  symlinkSync(join(root, 'node_modules'), join(scratch, 'node_modules'));
  // Stripping it again would take a while.
  const node = join('build', process.arch, 'node');
  if (existsSync(join(root, node))) {
    mkdirSync(join(scratch, 'build', process.arch), { recursive: true });
    copyFileSync(join(root, node), join(scratch, node));
  }
  execFileSync(process.execPath, ['--no-warnings', 'scripts/build.ts'], {
    cwd: scratch,
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, CNI_SKIP_TRAINING: '1' },
  });
}
