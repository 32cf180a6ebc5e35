import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import yargs from 'yargs';
import { complete } from '../../../cli/completion.ts';

const cache = mkdtempSync(join(tmpdir(), 'cni-completion-'));
process.env.CNI_CACHE_DIR = cache;
process.env.NETCONFPATH = cache;
test.after.always(() => rmSync(cache, { recursive: true }));

const makeCommand = () =>
  yargs()
    .scriptName('cni')
    .command('probe <target>', 'Look at a pod')
    .command('repair [names..]', 'Repair pods')
    .command('explain <configuration>', 'Tell what a network does')
    .command('inspect <networks..>', 'Show networks')
    .strict()
    .exitProcess(false);
const offers = async (...words: string[]) =>
  (await complete(words, makeCommand)).map((line) => line.split('\t')[0]);

test('pods are offered by name and by short container ID, others by ID alone', async (t) => {
  mkdirSync(join(cache, 'results'));
  for (const [containerId, cniArgs] of [
    [
      '0123456789abcdef',
      [
        ['K8S_POD_NAMESPACE', 'default'],
        ['K8S_POD_NAME', 'web-1'],
      ],
    ],
    ['fedcba9876543210', []],
  ] as const)
    writeFileSync(
      join(cache, `results/podnet-${containerId}-eth0`),
      JSON.stringify({ kind: 'cniCacheV1', networkName: 'podnet', ifName: 'eth0', containerId, cniArgs }),
    );
  t.deepEqual(await offers('probe', ''), ['podnet', 'default/web-1', '0123456789ab', 'fedcba987654']);
  t.deepEqual(await offers('probe', 'def'), ['default/web-1']);
  t.deepEqual(await offers('probe', 'fedcba987654', ''), [], 'one is all that it takes');
  t.deepEqual(await offers('repair', 'fedcba987654', '01'), ['0123456789ab']);
  t.deepEqual(await offers('explain', ''), ['podnet', ':files']);
  t.deepEqual(await offers('inspect', ''), ['podnet']);
});
