/**
 * Measures this suite beside the reference plugins, in one run on one machine: each call of the one is followed by the same call
 * of the other. Prints a table, and writes it with the spread of every figure to bench/.
 *
 *     npm run bench                   everything, some minutes
 *     npm run bench -- --quick        fewer calls, about a minute
 *     npm run bench -- host-local     only scenarios whose name begins so
 *
 * It runs in network and mount namespaces of its own, and touches nothing of the machine.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { drawChart } from './bench/chart.ts';
import { footprint } from './bench/footprint.ts';
import { type Row, summarize } from './bench/measure.ts';
import { scenarios } from './bench/scenarios.ts';

const { values, positionals } = parseArgs({
  options: { quick: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const output = join(import.meta.dirname, '../bench');

if (!process.env.BENCH_INSIDE) enterNamespaces();
else await run();

/** Starts this program again as the node of its own small world. */
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
    ['--net', '--mount', 'sh', '-c', script, 'sh', process.execPath, ...process.argv.slice(1)],
    { stdio: 'inherit', env: { ...process.env, BENCH_INSIDE: '1' } },
  );
  process.exit(status ?? 1);
}

async function run(): Promise<void> {
  const rows: Row[] = [];
  console.log(`${machine()}\n`);
  console.log(
    `${'scenario'.padEnd(46)} ${'ours'.padStart(16)} ${'reference'.padStart(16)}   ratio (95 % between)`,
  );
  for (const scenario of scenarios(values.quick)) {
    if (positionals.length > 0 && !positionals.some((name) => scenario.name.startsWith(name))) continue;
    for (const { name, ...samples } of await scenario.measure()) {
      const row = summarize(name, scenario.unit, samples);
      rows.push(row);
      console.log(format(row));
    }
  }
  const report = {
    machine: machine(),
    date: new Date().toISOString().slice(0, 10),
    footprint: footprint(),
    rows,
  };
  console.log(`\nPeak memory: ${report.footprint.memory}\nOn disk: ${report.footprint.disk}`);
  if (positionals.length > 0) return;
  mkdirSync(output, { recursive: true });
  writeFileSync(join(output, 'results.json'), `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(join(output, 'results.md'), markdown(report));
  writeFileSync(join(output, 'results.svg'), drawChart(rows));
  console.log('\nWritten to bench/results.json, results.md and results.svg');
}

function format({ name, unit, ours, reference, ratio }: Row): string {
  const figure = (one: Row['ours'] | undefined) =>
    one
      ? `${one.median.toFixed(1).padStart(7)} ${unit} ±${one.spread.toFixed(1).padStart(4)}`.padStart(16)
      : '–'.padStart(16);
  const compared = ratio
    ? `${ratio.value.toFixed(2)} (${ratio.low.toFixed(2)}–${ratio.high.toFixed(2)})`
    : '';
  return `${name.padEnd(46)} ${figure(ours)} ${figure(reference)}   ${compared}`;
}

function markdown({
  machine: where,
  date,
  footprint: size,
  rows,
}: {
  machine: string;
  date: string;
  footprint: ReturnType<typeof footprint>;
  rows: Row[];
}): string {
  const figure = (one: Row['ours'] | undefined, unit: string) =>
    one ? `${one.median.toFixed(1)} ${unit}` : '–';
  const lines = rows.map(
    ({ name, unit, ours, reference, ratio }) =>
      `| ${name} | ${figure(ours, unit)} | ${figure(reference, unit)} | ${ratio ? `**${ratio.value.toFixed(2)}** (${ratio.low.toFixed(2)}–${ratio.high.toFixed(2)})` : '–'} |`,
  );
  return [
    `Measured ${date} on ${where}. Medians; the ratio of medians with its 95 % interval, below 1 where this suite is faster.`,
    '',
    '| | this suite | reference | ratio |',
    '|---|---:|---:|---:|',
    ...lines,
    '',
    `Peak memory: ${size.memory}. On disk: ${size.disk}.`,
    '',
  ].join('\n');
}

function machine(): string {
  const model = cpus()[0]?.model.trim() ?? 'unknown processor';
  const iptables = execFileSync('iptables', ['--version'], { encoding: 'utf8' }).trim();
  const os = /PRETTY_NAME="(.*)"/.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  return `${availableParallelism()} cores of ${model}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, ${os}, ${iptables}; reference: Debian's containernetworking-plugins 1.1.1`;
}
