/**
 * Compares this suite, with its agent and without, with the reference plugins, in one run on one machine:
 * each call is made by all three in turn. Prints a table; when everything was measured, writes it with the
 * spread of every figure to bench/, and what matters most to README.md.
 *
 *     npm run bench                   everything, in about ten minutes
 *     npm run bench -- --quick        fewer calls, in two minutes
 *     npm run bench -- host-local     only scenarios whose name begins with this
 *     npm run bench -- memory         only the agent's memory, over 10,000 verbs, with 15 minutes for them
 *     npm run bench -- --chart        nothing: only redraws bench/results.svg from bench/results.json
 *
 * The reference plugins are the newest that Debian has, or those in the directory $CNI_REFERENCE. It runs in
 * network and mount namespaces of its own, and changes nothing on the machine.
 */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { agentCalls, startAgent, stopAgent } from './bench/agent.ts';
import { drawChart } from './bench/chart.ts';
import { footprint, settleExecutables } from './bench/footprint.ts';
import { type Row, summarize } from './bench/measure.ts';
import { findReference } from './bench/reference.ts';
import {
  describeFootprint,
  formatHeader,
  formatRow,
  forReadme,
  markdown,
  type Report,
} from './bench/report.ts';
import { scenarios } from './bench/scenarios.ts';
import { continueOnOwnHost } from './own-host.ts';

const { values, positionals } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    chart: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
const output = join(import.meta.dirname, '../bench');
const readmeFile = join(import.meta.dirname, '../README.md');
/** Where the README has the table. */
const generated = /(<!-- npm run bench writes from here -->\n)[\s\S]*(<!-- to here -->)/;

if (values.chart) writeChart((JSON.parse(readFileSync(join(output, 'results.json'), 'utf8')) as Report).rows);
else if (process.env.BENCH_INSIDE) await run();
else {
  // Inside its own namespaces, nothing can be downloaded.
  const { description, directory } = findReference();
  continueOnOwnHost({ BENCH_INSIDE: description, CNI_REFERENCE: directory });
}

async function run(): Promise<void> {
  settleExecutables();
  await startAgent();
  const rows: Row[] = [];
  console.log(`${machine()}\n\n${formatHeader()}`);
  for (const scenario of scenarios(values.quick, positionals.includes('memory')).filter(chosen))
    for (const { name, unit, samples } of await scenario.measure()) {
      const row = summarize(name, unit, samples);
      rows.push(row);
      console.log(formatRow(row));
    }
  console.log(`\nThe agent did ${agentCalls().toLocaleString('en')} calls`);
  const report: Report = {
    machine: machine(),
    date: new Date().toISOString().slice(0, 10),
    footprint: await footprint(),
    rows,
  };
  console.log(`${describeFootprint(report.footprint)}`);
  await stopAgent();
  if (positionals.length > 0 || values.quick) return;
  mkdirSync(output, { recursive: true });
  writeFileSync(join(output, 'results.json'), `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(join(output, 'results.md'), markdown(report, rows));
  writeChart(rows);
  const readme = readFileSync(readmeFile, 'utf8');
  writeFileSync(readmeFile, readme.replace(generated, `$1${markdown(report, rows.filter(forReadme))}$2`));
  console.log('\nWritten to bench/results.json, results.md and results.svg, and to README.md');
}

function writeChart(rows: readonly Row[]): void {
  writeFileSync(join(output, 'results.svg'), drawChart(rows));
}

/** Whether the command line asks for a scenario: for all, or by the beginning of its name. */
function chosen({ name }: { name: string }): boolean {
  return positionals.length === 0 || positionals.some((start) => name.startsWith(start));
}

function machine(): string {
  const model = cpus()[0]?.model.trim() ?? 'unknown processor';
  const iptables = execFileSync('iptables', ['--version'], { encoding: 'utf8' }).trim();
  const os = /PRETTY_NAME="(.*)"/.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  return `${availableParallelism()} cores of ${model}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, ${os}, ${iptables}; reference: ${process.env.BENCH_INSIDE}`;
}
