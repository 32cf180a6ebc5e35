/**
 * `cni doctor`: what it says of a host in order, and of configurations, plugins and the agent.
 * Runs once: it starts agents itself.
 */

import { once } from 'node:events';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ava from 'ava';
import { bridged, examine, hostLocal, network, scene } from '../support/doctor.ts';
import { snapshot, sysctl } from '../support/observe.ts';
import { makeOperator } from '../support/operator.ts';
import { outsideOf } from '../support/outside.ts';
import { pluginNames, suites } from '../support/plugin.ts';

/** One after the other: each starts many processes, and plugins that take too long are findings. */
const test = ava.serial;

const pointToPoint = network('p2p', { type: 'ptp', ipMasq: true, ipam: hostLocal('10.6.0.0/24') });
const parented = network('lan', { type: 'macvlan', master: 'wire', ipam: hostLocal('10.7.0.0/24') });

test('a host in order with pods of bridge, ptp and macvlan has no findings', async (t) => {
  const on = await makeOperator(t, [bridged, pointToPoint, parented]);
  await outsideOf(on.host);
  for (const name of ['net', 'net', 'p2p', 'lan']) await on.attach(name);
  const { exit, stdout } = await on.tryCni(['doctor']);
  t.is(exit, 0, stdout);
  const [, checks] = /^(\d+) checks: 0 errors, 0 warnings/m.exec(stdout) ?? [];
  const lines = stdout.split('\n').filter((line) => line.startsWith('ok '));
  const informed = stdout.split('\n').filter((line) => line.startsWith('info '));
  const informing = new Set(informed.map((line) => line.split(':')[0]));
  t.is(lines.length + informing.size, Number(checks), stdout);
  t.regex(stdout, /CHECK of 4 attachments finds them as ADD left them/);
});

test('a host without networks or pods has no findings but for the missing directory', async (t) => {
  const on = await makeOperator(t, []);
  const { exit: without, stdout } = await on.tryCni(['doctor']);
  t.is(without, 0, stdout);
  t.regex(stdout, /^info +Networks: \/etc\/cni\/net\.d\n +The directory has no network/m);
  t.regex(stdout, /^ok +iptables: "iptables" is the one on nf_tables/m, 'although it has no table yet');
  await on.sh('rmdir /etc/cni/net.d');
  const { found, exit } = await examine(on);
  t.is(exit, 1);
  t.deepEqual(
    found.map(({ rule }) => rule),
    ['configuration'],
  );
  await on.sh(found[0]!.fix);
  t.deepEqual((await examine(on)).found, []);
});

test('plugins that are missing, do not run, or are of another build than the runtime has', async (t) => {
  const { on } = await scene(t);
  mkdirSync(on.host.file('/run/bin'));
  for (const name of pluginNames(suites.ours).filter((one) => one !== 'portmap'))
    symlinkSync(join(suites.ours, name), on.host.file(`/run/bin/${name}`));
  const env = { CNI_PATH: '/run/bin' };
  const missing = await examine(on, [], env);
  t.true(
    missing.found.some(({ rule, subject }) => rule === 'plugins' && subject === 'portmap'),
    JSON.stringify(missing.found),
  );
  writeFileSync(on.host.file('/run/bin/portmap'), '#!/bin/sh\necho no\n', { mode: 0o755 });
  const broken = await examine(on, [], env);
  t.true(
    broken.found.some(
      ({ rule, subject, message }) =>
        rule === 'plugins' && subject === '/run/bin/portmap' && /VERSION/.test(message),
    ),
  );
  await on.sh(broken.found.find(({ rule }) => rule === 'plugins')!.fix, 300_000);
  await on.sh('mkdir /run/other; mkdir -p /etc/containerd; mount -t tmpfs tmpfs /etc/containerd');
  writeFileSync(on.host.file('/run/other/bridge'), '#!/bin/sh\necho "CNI bridge plugin v0.0.1" >&2\n', {
    mode: 0o755,
  });
  writeFileSync(on.host.file('/etc/containerd/config.toml'), '    bin_dir = "/run/other"\n');
  const drifted = await examine(on, [], env);
  t.deepEqual(
    drifted.found.map(({ rule, subject }) => [rule, subject]),
    [['plugins', '/run/other']],
  );
  t.is(drifted.found[0]!.fix, 'cni install --bin-dir /run/other');
});

test('an agent that has left its socket', async (t) => {
  const { on, agent } = await scene(t);
  agent.kill('SIGKILL');
  await once(agent, 'exit');
  const { found } = await examine(on);
  t.deepEqual(
    found.map(({ rule, severity }) => [rule, severity]),
    [['agent', 'warning']],
  );
});

test('an agent of a build that is kept, but that no plugin starts any more', async (t) => {
  const { on } = await scene(t);
  const [own] = (await on.sh(`ls -A ${suites.ours}`)).match(/^\.cni-plugins-.*$/m)!;
  const other = own.replace(/[0-9a-f]+$/, (digest) => '0'.repeat(digest.length));
  await on.sh(
    `mkdir -p /run/bin/${own}; sed s/${own}/${other}/g ${suites.ours}/bridge > /run/bin/bridge; ln -s loop /run/bin/loop`,
  );
  const { found } = await examine(on, [], { CNI_PATH: '/run/bin' });
  const [agent] = found.filter(({ rule }) => rule === 'agent');
  t.regex(agent?.message ?? '', /^The agent is of build [0-9a-f]+, and 0+ is installed/);
});

test('a configuration that cannot be used, and a plugin that its kernel or host lacks something for', async (t) => {
  const { on } = await scene(t);
  writeFileSync(on.host.file('/etc/cni/net.d/90-torn.conflist'), '{"name":');
  on.configure({ ...parented, name: 'nowhere', plugins: [{ ...parented.plugins[0]!, master: 'none0' }] });
  const { found } = await examine(on);
  t.deepEqual(
    [...new Set(found.map(({ rule }) => rule))],
    ['configuration', 'kernel'],
    JSON.stringify(found),
  );
  t.true(found.some(({ subject, rule }) => rule === 'configuration' && subject.includes('90-torn')));
  t.true(found.some(({ message, rule }) => rule === 'kernel' && message.includes('none0')));
});

test('doctor changes nothing without --fix', async (t) => {
  const { on } = await scene(t);
  await on.sh('echo 0 > /proc/sys/net/ipv4/ip_forward; iptables -P FORWARD DROP');
  const look = async () => ({
    ...(await snapshot(on.host)),
    legacy: await on.sh('cat /proc/net/ip_tables_names'),
    forwards: await sysctl(on.host, 'net/ipv4/ip_forward'),
  });
  const before = await look();
  t.is((await on.tryCni(['doctor'])).exit, 1);
  t.deepEqual(await look(), before);
});
