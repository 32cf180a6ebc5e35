/** Option `--format` of `cni`: the same for all commands. Runs once: no agent takes part. */

import test from 'ava';
import { cni, directory } from '../support/command.ts';

/** The options that the help of a command names. */
async function optionsOf(command: string): Promise<string[]> {
  const { stdout } = await cni(...command.split(' '), '--help');
  const [, options = ''] = /^Options:\n([\s\S]*?)\n\n/m.exec(stdout) ?? [];
  return [...options.matchAll(/^ +((?:-\w, )?--[\w-]+)/gm)].map(([, names]) => names!.replace('-h, ', ''));
}

for (const command of [
  'list',
  'doctor',
  'probe',
  'validate',
  'network ls',
  'network inspect',
  'agent status',
])
  test(`"cni ${command}" prints JSON with -o json, and its help names no other way`, async (t) => {
    const options = await optionsOf(command);
    t.true(options.includes('-o, --format'), options.join());
    t.false(
      options.some((one) => /json|output/.test(one)),
      options.join(),
    );
    t.regex((await cni(...command.split(' '), '--help')).stdout, /--format[^[]*\[choices: [^\]]*"json"/);
  });

test('"cni agent status" takes its own options alone, and "cni bugreport" no -o for a file', async (t) => {
  t.deepEqual(await optionsOf('agent status'), ['--version', '-o, --format', '--socket', '--help']);
  t.deepEqual(await optionsOf('bugreport'), ['--version', '-f, --file', '--help']);
  const { exit, stderr } = await cni('agent', 'status', '--concurrency', '3');
  t.is(exit, 2);
  t.regex(stderr, /Unknown argument: concurrency/);
});

test('"-o" and "--format" are one option, and there are no other names for it', async (t) => {
  const plugin = { type: 'bridge', bridgee: 'br0' };
  const dir = directory(t, { '10-x.conflist': { cniVersion: '1.1.0', name: 'x', plugins: [plugin] } });
  const validate = (...options: string[]) => cni('validate', '--no-host', ...options, dir);
  const { stdout } = await validate('-o', 'github');
  t.regex(stdout, /^::warning file=/);
  t.is((await validate('--format', 'github')).stdout, stdout);
  for (const other of [['--json'], ['--output', 'json']]) t.is((await validate(...other)).exit, 2);
  t.is((await cni('bugreport', '-o', 'json')).exit, 2);
});
