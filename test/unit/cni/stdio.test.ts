/** Standard input and output of the executables, as runtimes and shells connect it. */

import { join } from 'node:path';
import test from 'ava';
import { suites } from '../../support/plugin.ts';
import { tryRun } from '../../support/run.ts';

/** A result that no pipe holds at once: portmap without mappings passes it on as it is. */
const routes = Array.from({ length: 10_000 }, (_, i) => ({ dst: `10.${i >> 8}.${i & 255}.0/24` }));
const stdin = JSON.stringify({
  cniVersion: '1.0.0',
  name: 'n',
  type: 'portmap',
  prevResult: {
    cniVersion: '1.0.0',
    interfaces: [{ name: 'eth0' }],
    ips: [{ address: '10.1.0.2/16' }],
    routes,
  },
});
const env = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c',
  CNI_NETNS: '/run/netns/none-such',
  CNI_IFNAME: 'eth0',
  CNI_PATH: suites.ours,
};
const portmap = join(suites.ours, 'portmap');
/** Makes standard output non-blocking for the program that it runs. */
const nonBlocking =
  'use Fcntl; fcntl(STDOUT, F_SETFL, fcntl(STDOUT, F_GETFL, 0) | O_NONBLOCK) or die; exec @ARGV or die';

test('a result longer than a pipe arrives whole at a slow reader, also through a non-blocking pipe', async (t) => {
  for (const starter of ['"$0"', `perl -e '${nonBlocking}' "$0"`]) {
    const script = `set -o pipefail; ${starter} | (sleep 0.3; cat)`;
    const { exit, stdout, stderr } = await tryRun(['bash', '--norc', '-c', script, portmap], { env, stdin });
    t.deepEqual([exit, stderr], [0, '']);
    t.is((JSON.parse(stdout) as { routes: unknown[] }).routes.length, routes.length);
  }
});

test('a configuration that arrives in parts is read whole, also through a non-blocking pipe', async (t) => {
  const half = stdin.length >> 1;
  const script = `(head -c ${half}; sleep 0.3; cat) | "$@"`;
  for (const starter of [[], ['perl', '-e', nonBlocking.replaceAll('STDOUT', 'STDIN')]]) {
    const argv = ['bash', '--norc', '-c', script, 'bash', ...starter, portmap];
    const { exit, stdout } = await tryRun(argv, { env, stdin });
    t.is(exit, 0, stdout);
    t.is((JSON.parse(stdout) as { routes: unknown[] }).routes.length, routes.length);
  }
});

test('a reader that is gone, and a full disk, fail the call without a stack trace', async (t) => {
  const lost = await tryRun(['bash', '--norc', '-c', 'set -o pipefail; "$0" | true', portmap], {
    env,
    stdin,
  });
  t.not(lost.exit, 0);
  t.notRegex(lost.stderr, /\n\s+at /);
  const full = await tryRun(['bash', '--norc', '-c', '"$0" >/dev/full', portmap], { env, stdin });
  t.is(full.exit, 1);
  t.regex(full.stderr, /The result could not be written: .*(ENOSPC|no space)/i);
  const failed = await tryRun(['bash', '--norc', '-c', '"$0" >/dev/full', portmap], { env, stdin: '{' });
  t.is(failed.exit, 1);
  t.regex(failed.stderr, /The error could not be written: .*(ENOSPC|no space).* It was: /i);
});
