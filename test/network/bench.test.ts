/** Runs once: no agent takes part. */

import { join } from 'node:path';
import test from 'ava';
import { suites } from '../support/plugin.ts';
import { run } from '../support/run.ts';

/** A median and its spread. */
const figure = ' +\\d+\\.\\d \\S+ ± *\\d+\\.\\d';
/** A ratio and its interval. */
const ratio = ' +\\d+\\.\\d\\d \\(\\d+\\.\\d\\d–\\d+\\.\\d\\d\\)';

test('the bench runs, and prints this suite with its agent, without, and the reference side by side', async (t) => {
  const bench = join(import.meta.dirname, '../../scripts/bench.ts');
  const output = await run(
    [
      process.execPath,
      '--no-warnings',
      bench,
      '--quick',
      'VERSION',
      'start',
      'processor',
      'GC',
      'cni list',
      'ovs',
      'memory',
    ],
    // Not the newest reference plugins, which would be downloaded.
    { env: { CNI_REFERENCE: suites.reference }, timeout: 1_200_000 },
  );
  for (const line of [
    new RegExp(`^VERSION${figure.repeat(3)}${ratio.repeat(2)}$`, 'm'),
    new RegExp(`^start: until it reads its configuration${figure.repeat(3)}${ratio.repeat(2)}$`, 'm'),
    new RegExp(`^processor time: whole life${figure.repeat(3)} +\\d`, 'm'),
    new RegExp(`^GC of 100, half stale${figure.repeat(3)} +\\d`, 'm'),
    new RegExp(`^cni list, 10 pods(?: +–)?${figure}`, 'm'),
    new RegExp(`^cni network ls, 10 pods(?: +–)?${figure}`, 'm'),
    new RegExp(`^ovs, 5 ports: ADD${figure.repeat(2)} +–`, 'm'),
    new RegExp(`^memory of the agent, its own: after [\\d,]+ verbs, 8 pods at once${figure}`, 'm'),
    /^The agent did [\d,]+ calls$/m,
    /^Peak memory of a verb without the agent: \d+ MiB/m,
  ])
    t.regex(output, line);
  const [, agent, alone] = /^processor time: whole life +(\d+\.\d) ms.*? +(\d+\.\d) ms/m
    .exec(output)!
    .map(Number);
  t.true(agent! > 0, 'what the agent uses is counted');
  t.true(agent! < alone!, 'it saves the starts of Node.js');
});
