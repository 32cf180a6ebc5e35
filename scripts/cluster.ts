/**
 * A Kubernetes cluster with these plugins. "test" checks what people do with one; the exit code is 0 only if
 * all checks held. "up" opens a shell on it.
 */

import { join } from 'node:path';
import type { Teardown } from '../test/support/host.ts';
import { Claims } from './claims.ts';
import { buildKubernetes, programPath } from './kubernetes/build.ts';
import { type Cluster, startCluster } from './kubernetes/cluster.ts';
import { exercises } from './kubernetes/exercises.ts';
import { openShell } from './shell.ts';

const cleanups: (() => void | Promise<void>)[] = [];
const t: Teardown = { teardown: (step) => void cleanups.push(step) };
const claims = new Claims();
const [mode] = process.argv.slice(2);

/** Ends everything that was started, in reverse order. */
async function tearDown(): Promise<void> {
  for (let step = cleanups.pop(); step; step = cleanups.pop()) await step();
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => {
    if (shellRuns) return; // The signal is for the shell.
    console.error(`\n${signal}: taking the cluster down`);
    void tearDown().finally(() => process.exit(1));
  });
let shellRuns = false;
let broken = false;

try {
  claims.heading('Starting the cluster');
  await buildKubernetes((step) => claims.say(step));
  const cluster = await startCluster(t, (step) => claims.say(step));
  if (mode === 'up') await useInShell(cluster);
  else for (const exercise of exercises) await exercise(cluster, claims, t);
} catch (error) {
  broken = true;
  claims.fail((error as Error).message);
}
await tearDown();
const epilogue = 'The namespaces have been removed; the network of this machine was not touched.';
if (mode === 'up' && !broken) claims.say(epilogue);
else claims.conclude(epilogue);

/** Lets a person use the cluster until they leave the shell, which runs outside the cluster. */
async function useInShell({ outside, plane, nodes }: Cluster): Promise<void> {
  const { pid } = plane.machine.node;
  console.log(`
  kubectl …            speaks with the API server
  node1 …, node2 …     run a program on a node, for example: node1 /opt/cni/bin/cni network ls
  outside …            runs a program on the machine outside, for example: outside curl 192.0.2.11
  exit                 takes the cluster down
`);
  shellRuns = true;
  await openShell({
    name: 'cluster',
    commands: new Map<string, readonly string[]>([
      ['kubectl', ['nsenter', `--net=/proc/${pid}/ns/net`, '--', programPath('kubectl')]],
      ['outside', outside.enter],
      ...nodes.map(({ name, node }) => [name, node.enter] as const),
    ]),
    files: { kubeconfig: plane.kubeconfig() },
    env: (directory) => ({ KUBECONFIG: join(directory, 'kubeconfig') }),
  });
  shellRuns = false;
}
