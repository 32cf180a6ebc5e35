/** Names that would control the terminal of whoever looks at them. */

import test from 'ava';
import { load } from 'js-yaml';
import { attach } from '../support/chain.ts';
import { command } from '../support/command.ts';
import { suites } from '../support/plugin.ts';
import { annotated, makeHostWithNetworks, several } from '../support/several.ts';

// Clears the screen, hides what follows, and ends with a space of no width.
const name = 'a\u001b[2J\u001b[8m\u200b';

test('the name of an interface that a pod asks for is shown, and not obeyed', async (t) => {
  const host = await makeHostWithNetworks(t);
  const capabilities = { 'io.kubernetes.cri.pod-annotations': true };
  const multus = several('multus', { clusterNetwork: 'pods', capabilities });
  const networks = JSON.stringify([{ name: 'storage', interface: name }]);
  const { pod } = await attach(host, multus, annotated({ 'k8s.v1.cni.cncf.io/networks': networks }));
  t.true((await pod.run(['ip', '-o', 'link'])).includes(` ${name}@`), 'the kernel takes it');
  const cni = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    host.tryRun([command, ...args], { env: { CNI_PATH: suites.ours, ...env } });

  const { stdout } = await cni(['list', '-o', 'json']);
  const { attachments } = JSON.parse(stdout) as { attachments: { ifname: string }[] };
  t.true(
    attachments.some(({ ifname }) => ifname === name),
    'programs get it as it is',
  );
  t.deepEqual(load((await cni(['list', '-o', 'yaml'])).stdout), JSON.parse(stdout));
  await pod.run(['ip', 'link', 'set', name, 'down']);
  for (const args of [
    ['list'],
    ['list', '-o', 'wide'],
    ['list', '-o', 'yaml'],
    ['doctor'],
    ['draw'],
    ['repair'],
    ['gc', '--all', '--dry-run'],
  ])
    for (const colours of [{ NO_COLOR: '1' }, { FORCE_COLOR: '1' }]) {
      const shown = await cni(args, colours);
      const text = shown.stdout + shown.stderr;
      t.regex(text, /a(?:\\u001b|\\e|�)\[2J(?:\\u001b|\\e|�)\[8m/, args.join(' '));
      const [, ...sequences] = text.split('\u001b');
      t.deepEqual(
        sequences.filter((one) => 'NO_COLOR' in colours || !/^\[(?:1|2|22|3[1-6]|39)m/.test(one)),
        [],
        args.join(' '),
      );
    }
});
