/**
 * Addresses that nodes share, tried on three nodes joined by a switch, with a member of etcd on each, which
 * demands a certificate and a password. "lives" has pods come and go while members are killed, stopped, cut
 * off or out of disk space: no address may ever be held by two pods, and none may be lost. "bench" measures
 * ADD. "pods" starts 1,000 pods, which must take 60 seconds at most. "up" is for looking around.
 *
 *     npm run addresses -- lives                     1,000 lives, and a fault for every 100
 *     npm run addresses -- lives --count 10000 --each 500 --record    and a row of docs/reliability.md
 *     npm run addresses -- up                        opens a shell on the nodes
 *     npm run addresses -- bench                     by nodes and by size of the range
 *     npm run addresses -- bench --record            and writes the table of docs/whereabouts.md
 *     npm run addresses -- pods --record             1,000 pods with macvlan, and the line of that page
 *
 * It runs in namespaces of its own, and changes nothing on the machine. The exit code is 1 when anything was
 * wrong.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { binDir, type Teardown } from '../test/support/host.ts';
import { nodesOf } from '../test/support/whereabouts.ts';
import { benchAddresses } from './addresses/bench.ts';
import { liveWithFaults } from './addresses/lives.ts';
import { startPods } from './addresses/pods.ts';
import { record } from './reliability.ts';
import { openShell } from './shell.ts';

const { values, positionals } = parseArgs({
  options: {
    count: { type: 'string', default: '1000' },
    each: { type: 'string', default: '100' },
    record: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
const page = join(import.meta.dirname, '../docs/whereabouts.md');

const cleanups: (() => void | Promise<void>)[] = [];
const t: Teardown = { teardown: (step) => void cleanups.push(step) };

/** Ends everything that was started, in reverse order. */
async function tearDown(): Promise<void> {
  for (let step = cleanups.pop(); step; step = cleanups.pop()) await step();
}

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
for (const signal of signals)
  process.on(signal, () => {
    if (shellRuns) return; // The signal is for the shell.
    void tearDown().finally(() => process.exit(1));
  });
let shellRuns = false;

const [mode] = positionals;
const say = (line: string) => console.log(line);
try {
  if (mode === 'bench') {
    const text = await benchAddresses(t, say);
    if (values.record) write('bench', text);
  } else if (mode === 'pods') {
    const { text, problems } = await startPods(t, say);
    for (const problem of problems) say(`✘ ${problem}`);
    if (problems.length > 0) process.exitCode = 1;
    else if (values.record) write('pods', text);
  } else if (mode === 'lives') await lives();
  else if (mode === 'up') await useInShell();
  else throw new Error('Say "lives", "bench", "pods" or "up"');
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
} finally {
  await tearDown();
}

/** Writes figures to their place in the page. */
function write(part: 'bench' | 'pods', text: string): void {
  const generated = new RegExp(
    `(<!-- npm run addresses -- ${part} writes from here -->\\n)[^]*?(<!-- to here -->)`,
  );
  const fill = (_: string, from: string, to: string) => `${from}${text}${to}`;
  writeFileSync(page, readFileSync(page, 'utf8').replace(generated, fill));
}

async function lives(): Promise<void> {
  const [count, each] = [Number(values.count), Number(values.each)];
  if (!(count > 0 && each > 0)) throw new Error('"--count" and "--each" are numbers above 0');
  const started = performance.now();
  const { tried, problems, note } = await liveWithFaults(t, { count, each }, say);
  for (const problem of problems) say(`✘ ${problem}`);
  say(`${tried} lives, ${problems.length} problems; ${note}`);
  if (problems.length > 0) process.exitCode = 1;
  if (!values.record) return;
  record({
    part: 'Addresses on three nodes, with faults of etcd',
    ...{ unit: 'lives', tried, failed: problems.length, note },
    command: `npm run addresses -- lives --count ${count} --each ${each}`,
    minutes: (performance.now() - started) / 60_000,
  });
}

/** Lets a person use nodes with a network "vlan7" until they leave the shell, which runs outside of them. */
async function useInShell(): Promise<void> {
  const { nodes, onNodes } = await nodesOf(t, 3, { quarantine: 30 });
  const ipam = { type: 'whereabouts', ...onNodes[0]!.ipam };
  const network = {
    cniVersion: '1.1.0',
    name: 'vlan7',
    plugins: [{ type: 'macvlan', master: 'eth0', ipam }],
  };
  for (const { host, name } of nodes) {
    writeFileSync(host.file('/etc/cni/net.d/vlan7.conflist'), JSON.stringify(network, null, 2));
    await host.run(['ip', 'netns', 'add', `pod-of-${name}`]);
  }
  say(`
  node-1 …, node-2 …, node-3 …     run a program on a node, for example: node-1 cni add vlan7 /run/netns/pod-of-node-1
                                   node-2 cni network ls, node-1 cni gc --node node-3 --dry-run
  exit                             takes it all down
`);
  const variables = (name: string) => [
    'env',
    `NODENAME=${name}`,
    `CNI_PATH=${binDir}`,
    `PATH=${binDir}:$PATH`,
  ];
  shellRuns = true;
  await openShell({
    name: 'addresses',
    commands: new Map<string, readonly string[]>([
      ...nodes.map(({ name, host }) => [name, [...host.enter, ...variables(name)]] as const),
    ]),
  });
  shellRuns = false;
}
