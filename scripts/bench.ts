/**
 * Compares this suite with the reference plugins, in one run on one machine: each call of the one is followed
 * by the same call of the other. Prints a table; when everything was measured, writes it with the spread of
 * every figure to bench/, and what matters most to README.md.
 *
 *     npm run bench                   everything, five minutes
 *     npm run bench -- --quick        fewer calls, a minute
 *     npm run bench -- host-local     only scenarios whose name begins with this
 *
 * It runs in network and mount namespaces of its own, and touches nothing of the machine.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { drawChart } from './bench/chart.ts';
import { footprint, settleExecutables } from './bench/footprint.ts';
import { median, type Row, type Start, summarize } from './bench/measure.ts';
import { describeFootprint, formatRow, forReadme, markdown, type Report } from './bench/report.ts';
import { scenarios } from './bench/scenarios.ts';

const { values, positionals } = parseArgs({
  options: { quick: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const output = join(import.meta.dirname, '../bench');
const readmeFile = join(import.meta.dirname, '../README.md');
/** Where the README has the table. */
const generated = /(<!-- npm run bench writes from here -->\n)[\s\S]*(<!-- to here -->)/;

if (!process.env.BENCH_INSIDE) enterNamespaces();
else await run();

/** Starts this program again on a host of its own. */
function enterNamespaces(): never {
  const script = `set -e
    mkdir -p /var/lib/cni /etc/cni
    for directory in /run /var/lib/cni /etc/cni; do mount -t tmpfs -o mode=755 tmpfs $directory; done
    mount -t sysfs sysfs /sys
    mkdir /run/netns
    ip link set lo up
    exec "$@"`;
  const { status } = spawnSync(
    'unshare',
    [
      '--net',
      '--mount',
      'sh',
      '-c',
      script,
      'sh',
      process.execPath,
      '--no-warnings',
      ...process.argv.slice(1),
    ],
    { stdio: 'inherit', env: { ...process.env, BENCH_INSIDE: '1' } },
  );
  process.exit(status ?? 1);
}

async function run(): Promise<void> {
  settleExecutables();
  const rows: Row[] = [];
  console.log(`${machine()}\n`);
  console.log(
    `${'scenario'.padEnd(64)} ${'ours'.padStart(18)} ${'reference'.padStart(18)}   ratio (95 % between)   beyond start-up`,
  );
  // The first one tells what a start takes, so that it is always measured.
  const [first, ...others] = scenarios(values.quick);
  const wanted = others.filter(({ name }) => chosen(name));
  let start: Start | undefined;
  for (const scenario of [first!, ...wanted])
    for (const { name, unit, ...samples } of await scenario.measure()) {
      start ??= { ours: median(samples.ours), reference: median(samples.reference!) };
      const row = summarize(name, unit, samples, start);
      rows.push(row);
      console.log(formatRow(row));
    }
  const report: Report = {
    machine: machine(),
    date: new Date().toISOString().slice(0, 10),
    footprint: await footprint(),
    rows,
  };
  console.log(`\n${describeFootprint(report.footprint)}`);
  if (positionals.length > 0 || values.quick) return;
  mkdirSync(output, { recursive: true });
  writeFileSync(join(output, 'results.json'), `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(join(output, 'results.md'), markdown(report, rows));
  writeFileSync(join(output, 'results.svg'), drawChart(rows));
  const readme = readFileSync(readmeFile, 'utf8');
  writeFileSync(readmeFile, readme.replace(generated, `$1${markdown(report, rows.filter(forReadme))}$2`));
  console.log('\nWritten to bench/results.json, results.md and results.svg, and to README.md');
}

/** Scenarios that the command line asks for: all, or those whose names begin so. */
function chosen(name: string): boolean {
  return positionals.length === 0 || positionals.some((start) => name.startsWith(start));
}

function machine(): string {
  const model = cpus()[0]?.model.trim() ?? 'unknown processor';
  const iptables = execFileSync('iptables', ['--version'], { encoding: 'utf8' }).trim();
  const os = /PRETTY_NAME="(.*)"/.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  return `${availableParallelism()} cores of ${model}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, ${os}, ${iptables}; reference: Debian's containernetworking-plugins 1.1.1`;
}
