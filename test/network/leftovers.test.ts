/** What a process that was killed has left behind is removed by the next one, unless somebody may still use it. */

import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Attachment, runNetworkVerb } from '../support/chain.ts';
import { firewallNet } from '../support/firewall.ts';
import { makeHost } from '../support/host.ts';
import { suites } from '../support/plugin.ts';
import { portNet } from '../support/portmap.ts';
import { installPatience, run } from '../support/run.ts';

/** A PID above the kernel's limit. */
const noProcess = 2 ** 22 + 1;

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
    const [old, living, dead] = [
      `old.json.${process.pid}.tmp`,
      `new.json.${process.pid}.tmp`,
      `new.json.${noProcess}.tmp`,
    ];
    for (const name of [old, living, dead, 'old.tmp']) writeFileSync(join(directory, name), '{"netw');
    mkdirSync(join(directory, 'directory.14.tmp'));
    for (const name of [old, 'old.tmp', 'directory.14.tmp']) age(join(directory, name), 2);
    const only = { ...network, plugins: network.plugins.filter(({ type }) => type === plugin) };
    const outcome = await runNetworkVerb(host, only, 'GC', { valid: [] });
    t.is(outcome.exit, 0, outcome.stdout);
    t.deepEqual(readdirSync(directory).sort(), ['directory.14.tmp', living, 'old.tmp'], plugin);
  }
});

test('DEL removes what a killed ADD of the attachment was writing', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  const tag = `${pod.containerId}_eth0.json`;
  for (const [plugin, directory, name] of [
    [{ type: 'firewall', backend: 'nftables' }, 'run/cni/firewall', 'claim.json'],
    [{ type: 'tuning', mtu: 1300 }, 'run/cni/tuning', tag],
    [{ type: 'flannel' }, 'var/lib/cni/flannel', pod.containerId],
  ] as const) {
    const path = host.file(`/${directory}`);
    mkdirSync(path, { recursive: true });
    const [living, dead] = [`${name}.${process.pid}.tmp`, `${name}.${noProcess}.tmp`];
    for (const file of [living, dead, `unrelated.${noProcess}`]) writeFileSync(join(path, file), '{"netw');
    const network = { cniVersion: '1.1.0', name: 'net', plugins: [plugin] };
    const outcome = await new Attachment(host, pod, network).tryDel();
    t.is(outcome.exit, 0, outcome.stdout);
    t.deepEqual(readdirSync(path).sort(), [living, `unrelated.${noProcess}`].sort(), plugin.type);
  }
});

test('install removes what an earlier one left that was killed', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'leftovers-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  for (const name of ['.cni-install-old', '.cni-install-new', '.cni-other']) mkdirSync(join(directory, name));
  writeFileSync(join(directory, '.cni-install-old/launcher'), '');
  for (const name of ['.cni-install-old', '.cni-other']) age(join(directory, name), 11);
  await run([join(suites.ours, 'cni'), 'install', '--bin-dir', directory], { timeout: installPatience });
  t.deepEqual(
    readdirSync(directory).filter((name) => /^\.cni-(?:install|other)/.test(name)),
    ['.cni-install-new', '.cni-other'],
  );
});
