/** What a process that was killed has left behind is removed by the next one, unless somebody may still use it. */

import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { runNetworkVerb } from '../support/chain.ts';
import { firewallNet } from '../support/firewall.ts';
import { makeHost } from '../support/host.ts';
import { suites } from '../support/plugin.ts';
import { portNet } from '../support/portmap.ts';
import { run } from '../support/run.ts';

/** Makes a file or directory look as if nothing had changed it for some minutes. */
const age = (path: string, minutes: number) => {
  const then = Date.now() / 1000 - minutes * 60;
  utimesSync(path, then, then);
};

test('GC of firewall and portmap removes half-written files', async (t) => {
  const host = await makeHost(t);
  for (const [plugin, network] of [
    ['firewall', firewallNet('1.1.0', { backend: 'nftables' })],
    ['portmap', portNet({ backend: 'nftables' })],
  ] as const) {
    const directory = host.file(`/run/cni/${plugin}`);
    mkdirSync(directory, { recursive: true });
    for (const name of ['old.json.12.tmp', 'new.json.13.tmp', 'old.tmp'])
      writeFileSync(join(directory, name), '{"netw');
    mkdirSync(join(directory, 'directory.14.tmp'));
    for (const name of ['old.json.12.tmp', 'old.tmp', 'directory.14.tmp']) age(join(directory, name), 2);
    const only = { ...network, plugins: network.plugins.filter(({ type }) => type === plugin) };
    const outcome = await runNetworkVerb(host, only, 'GC', { valid: [] });
    t.is(outcome.exit, 0, outcome.stdout);
    t.deepEqual(readdirSync(directory).sort(), ['directory.14.tmp', 'new.json.13.tmp', 'old.tmp'], plugin);
  }
});

test('install removes what an earlier one left that was killed', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'leftovers-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  for (const name of ['.cni-install-old', '.cni-install-new', '.cni-other']) mkdirSync(join(directory, name));
  writeFileSync(join(directory, '.cni-install-old/launcher'), '');
  for (const name of ['.cni-install-old', '.cni-other']) age(join(directory, name), 11);
  await run([join(suites.ours, 'cni'), 'install', '--bin-dir', directory]);
  t.deepEqual(
    readdirSync(directory).filter((name) => /^\.cni-(?:install|other)/.test(name)),
    ['.cni-install-new', '.cni-other'],
  );
});
