/** Option `--output` of `cni`: one spelling for all commands, and those that scripts for earlier versions have. */

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
    t.true(options.includes('-o, --output'), options.join());
    t.false(
      options.some((one) => /json|format/.test(one)),
      options.join(),
    );
    t.regex((await cni(...command.split(' '), '--help')).stdout, /--output[^[]*\[choices: [^\]]*"json"/);
  });

test('"cni agent status" takes its own options alone, and "cni bugreport" no -o for a file', async (t) => {
  t.deepEqual(await optionsOf('agent status'), ['--version', '-o, --output', '--socket', '--help']);
  t.deepEqual(await optionsOf('bugreport'), ['--version', '-f, --file', '--help']);
  const { exit, stderr } = await cni('agent', 'status', '--concurrency', '3');
  t.is(exit, 2);
  t.regex(stderr, /Unknown argument: concurrency/);
});

test('the spellings of earlier versions do the same', async (t) => {
  const plugin = { type: 'bridge', bridgee: 'br0' };
  const dir = directory(t, { '10-x.conflist': { cniVersion: '1.1.0', name: 'x', plugins: [plugin] } });
  const validate = async (...options: string[]) =>
    (await cni('validate', '--no-host', ...options, dir)).stdout;
  const json = await validate('-o', 'json');
  t.is((JSON.parse(json) as { files: object[] }).files.length, 1);
  t.is(await validate('--json'), json);
  t.is(await validate('--format', 'json'), json);
  const github = await validate('--output', 'github');
  t.regex(github, /^::warning file=/);
  t.is(await validate('--format', 'github'), github);
});
