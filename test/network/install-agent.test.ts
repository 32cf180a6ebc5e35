/**
 * `cni install --agent`, on hosts with a systemctl that only writes down what it is told.
 * Runs once: it starts an agent itself.
 */

import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { type Host, makeHost, startAgent, type Teardown } from '../support/host.ts';
import { pluginNames, suites } from '../support/plugin.ts';
import { cleanEnv, installPatience } from '../support/run.ts';

const command = join(suites.ours, 'cni');
const unitDirectory = '/etc/systemd/system';
const units = ['cni-agent.socket', 'cni-agent.service'];

/** A host whose init seems to be systemd. */
async function makeSystemdHost(t: Teardown): Promise<Host> {
  const host = await makeHost(t);
  await host.run(['mkdir', '-p', '/run/systemd/system', '/run/fake', '/run/bin', '/run/other']);
  await host.run(['mount', '-t', 'tmpfs', 'tmpfs', unitDirectory]);
  const script = '#!/bin/sh\necho "$*" >>/run/fake/log\n';
  writeFileSync(host.file('/run/fake/systemctl'), script);
  chmodSync(host.file('/run/fake/systemctl'), 0o755);
  return host;
}

const install = (host: Host, ...options: string[]) =>
  host.tryRun([command, 'install', ...options], {
    env: { PATH: `/run/fake:${cleanEnv.PATH}` },
    timeout: installPatience,
  });
const unit = (host: Host, name: string) => readFileSync(host.file(`${unitDirectory}/${name}`), 'utf8');
const existing = (host: Host) => units.filter((name) => existsSync(host.file(`${unitDirectory}/${name}`)));

/** What systemctl was told since the last time. */
function told(host: Host): string[] {
  const log = host.file('/run/fake/log');
  const lines = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
  writeFileSync(log, '');
  return lines.filter((line) => line !== '' && line !== '--version');
}

test('install --agent sets up units that systemd accepts; uninstall removes them', async (t) => {
  const host = await makeSystemdHost(t);
  const { exit, stdout, stderr } = await install(host, '--agent', '--bin-dir', '/run/bin');
  t.is(exit, 0, stderr);
  t.regex(stdout, /The agent is set up: cni-agent\.socket is enabled and started/);
  const setUp = [
    'daemon-reload',
    'enable --now cni-agent.socket',
    '--no-block try-restart cni-agent.service',
  ];
  t.deepEqual(told(host), setUp);
  t.regex(unit(host, 'cni-agent.service'), /^ExecStart=\/run\/bin\/cni agent --idle-timeout 600$/m);
  t.notRegex(unit(host, 'cni-agent.service'), /\/opt\/cni\/bin/);
  t.regex(unit(host, 'cni-agent.socket'), /^ListenStream=\/run\/cni\/agent\.sock$/m);
  for (const name of units) t.is(statSync(host.file(`${unitDirectory}/${name}`)).mode & 0o777, 0o644);
  const verified = await host.tryRun([
    'systemd-analyze',
    'verify',
    '--man=no',
    ...units.map((name) => `${unitDirectory}/${name}`),
  ]);
  t.is(`${verified.stdout}${verified.stderr}`, '');
  t.is(verified.exit, 0);

  t.is((await install(host, '--agent', '--bin-dir', '/run/bin')).exit, 0, 'again');
  t.deepEqual(told(host), setUp);

  t.is((await install(host, '--uninstall', '--bin-dir', '/run/other')).exit, 0);
  t.deepEqual([existing(host), told(host)], [units, []], 'units of another directory are kept');
  const removed = await install(host, '--uninstall', '--bin-dir', '/run/bin/');
  t.is(removed.exit, 0, removed.stderr);
  t.regex(removed.stdout, /Units removed: cni-agent\.socket, cni-agent\.service/);
  t.deepEqual(told(host), ['disable --now cni-agent.socket cni-agent.service', 'daemon-reload']);
  t.deepEqual(existing(host), []);
  t.deepEqual(pluginNames(host.file('/run/bin')), []);
});

test('the agent is started only when asked for', async (t) => {
  const host = await makeSystemdHost(t);
  t.is((await install(host, '--bin-dir', '/run/bin')).exit, 0);
  t.deepEqual([existing(host), told(host)], [[], []]);
});

test('install --agent that cannot succeed is refused before anything is changed', async (t) => {
  const host = await makeSystemdHost(t);
  const refused = async (reason: RegExp, binDir = '/run/bin') => {
    const { exit, stderr } = await install(host, '--agent', '--bin-dir', binDir);
    t.is(exit, 1);
    t.regex(stderr, reason);
    t.regex(stderr, /Nothing was changed/);
    t.deepEqual(pluginNames(host.file('/run/bin')), []);
    t.deepEqual(told(host), []);
  };
  await refused(/A unit cannot name "\/run\/a b"/, '/run/a b');
  t.false(existsSync(host.file('/run/a b')));
  const foreign = '[Socket]\nListenStream=/run/x\n';
  writeFileSync(host.file(`${unitDirectory}/cni-agent.socket`), foreign);
  await refused(/cni-agent\.socket" is not of this suite\. Remove or rename it/);
  t.is(unit(host, 'cni-agent.socket'), foreign);
  t.is((await install(host, '--uninstall', '--bin-dir', '/run/bin')).exit, 0);
  t.is(unit(host, 'cni-agent.socket'), foreign, 'nor is it removed');
  await host.run(['rm', `${unitDirectory}/cni-agent.socket`]);
  const agent = await startAgent(t, host);
  await refused(/An agent that systemd did not start listens on "\/run\/cni\/agent\.sock"\. Stop it/);
  agent.kill('SIGKILL');
  await host.run(['rmdir', '/run/systemd/system']);
  await refused(/systemd is not the init of this host.* run "\/run\/bin\/cni agent"/);
});

test('a systemctl that fails leaves the plugins, and no units', async (t) => {
  const host = await makeSystemdHost(t);
  const argv = ['env', 'PATH=/run/nowhere', command, 'install', '--agent', '--bin-dir', '/run/bin'];
  const missing = await host.tryRun(argv, { timeout: installPatience });
  t.regex(missing.stderr, /"systemctl" is not in PATH/);
  t.deepEqual(pluginNames(host.file('/run/bin')), []);
  const script = '#!/bin/sh\n[ "$1" != enable ] || { echo "Unit is masked." >&2; exit 1; }\n';
  writeFileSync(host.file('/run/fake/systemctl'), script);
  const { exit, stderr } = await install(host, '--agent', '--bin-dir', '/run/bin');
  t.is(exit, 1);
  t.regex(stderr, /plugins are installed and work, but the agent could not be set up/);
  t.regex(stderr, /"systemctl enable --now cni-agent\.socket" failed: Unit is masked\./);
  t.deepEqual(existing(host), []);
  t.true(pluginNames(host.file('/run/bin')).includes('bridge'));
});
