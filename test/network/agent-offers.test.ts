/**
 * Which calls the agent accepts, with each reason to refuse one on its own; and how many it does at once.
 * Runs once: it starts an agent itself.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { namespaceOf, statusOf } from '../support/agent.ts';
import { Attachment } from '../support/chain.ts';
import { type Host, makeHost, startAgent } from '../support/host.ts';
import { link, until } from '../support/observe.ts';
import { addEnvironment, suites } from '../support/plugin.ts';
import { cleanEnv } from '../support/run.ts';

const socketPath = '/run/cni/agent.sock';

/** What {@link offerer} offers, unless it is changed. */
interface Offered {
  build: string;
  mount: string;
  network: string;
  plugin: string;
  netns: string;
  path: string;
}

/**
 * Offers calls to a host's agent, and hangs up without sending their input.
 * @returns what the agent answers to an offer. @param prefix of the program that makes the connection.
 * @param options of socat for the connection.
 */
function offerer(host: Host) {
  const launcher = readFileSync(join(suites.ours, 'bridge')).toString('latin1');
  const [, build = ''] = /\.cni-plugins-([0-9a-f]{12})\//.exec(launcher) ?? [];
  const good: Offered = {
    build,
    mount: namespaceOf(host, 'mnt'),
    network: namespaceOf(host, 'net'),
    plugin: 'bridge',
    netns: '/run/netns/none-such',
    path: '/opt/cni/bin:/usr/lib/cni',
  };
  return async (changes: Partial<Offered>, prefix: readonly string[] = [], options = '') => {
    const { build, mount, network, plugin, netns, path } = { ...good, ...changes };
    const variables = ['CNI_COMMAND=DEL', `CNI_NETNS=${netns}`, `CNI_PATH=${path}`];
    const words = [build, mount, network, plugin, ...variables, ''];
    const bytes = words.map((word) => `${word}\\000`).join('');
    const script = `printf '${bytes}' | ${[...prefix, 'socat', '-t', '20', '-', `UNIX-CONNECT:${socketPath}${options}`].join(' ')}`;
    return (await host.run(['sh', '-c', script])).slice(0, 1);
  };
}

test('the agent takes only calls of its own build, namespaces and user, with paths that are the same to it', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  await startAgent(t, host);
  const offer = offerer(host);
  t.is(await offer({}), 'Y');
  const refused: Partial<Offered>[] = [
    { build: '0123456789ab' },
    { mount: namespaceOf(host, 'net') },
    { network: namespaceOf(host, 'mnt') },
    { plugin: 'none-such' },
    { netns: 'netns/relative' },
    { path: '/opt/cni/bin:bin' },
    { netns: '/proc/self/ns/net' },
    { netns: '/proc/thread-self/ns/net' },
    { netns: '/dev/fd/5' },
    { netns: '/run/..//proc/./self/fd/5' },
    { path: '/opt/cni/bin:/proc/self/cwd' },
  ];
  for (const changes of refused) t.is(await offer(changes), '', JSON.stringify(changes));
  await host.run(['chmod', '0777', '/run/cni', socketPath]);
  t.is(await offer({}, ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']), '', 'another user');
  t.is(await offer({ netns: '/proc/1/ns/net' }), 'Y', 'a path that is the same to all');
});

test('the agent goes by the namespaces and root that the kernel tells of, not by what a caller claims', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  await startAgent(t, host);
  const offer = offerer(host);
  for (const option of ['--mount', '--net', '--user --map-root-user'])
    t.is(await offer({}, ['unshare', option]), '', option);
  t.is(await offer({}, ['unshare', '--pid', '--fork']), 'Y', 'of a PID namespace below its own');
  t.is(await offer({}, [], ',chroot=/run'), '', 'whose files are elsewhere');
  t.is(await offer({}), 'Y');
});

test('the agent takes no calls of processes that it does not see', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const below = ['unshare', '--pid', '--fork', '--kill-child'];
  await host.start(t, [...below, join(suites.ours, 'cni'), 'agent']);
  t.is(await offerer(host)({}), '');
});

const slow = {
  cniVersion: '1.1.0',
  name: 'net',
  plugins: [{ type: 'bridge', bridge: 'br0', ipam: { type: 'slow' } }],
};

/** A host whose agent does one call at a time, and an IPAM plugin that waits for a file. */
async function busyHost(t: ExecutionContext) {
  const host = await makeHost(t, { mayHaveAgent: false });
  await host.start(t, [join(suites.ours, 'cni'), 'agent', '--concurrency', '1']);
  mkdirSync(host.file('/run/slow'));
  const script = `#!/bin/sh
echo "begin $CNI_COMMAND" >> /run/slow/log
while [ ! -e /run/slow/go ]; do sleep 0.02; done
echo "end $CNI_COMMAND" >> /run/slow/log
echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.5.0.2/24"}]}'
`;
  writeFileSync(host.file('/run/slow/slow'), script, { mode: 0o755 });
  const env = { CNI_PATH: `${suites.ours}:/run/slow` };
  const log = () =>
    existsSync(host.file('/run/slow/log'))
      ? readFileSync(host.file('/run/slow/log'), 'utf8').trim().split('\n')
      : [];
  const status = () => statusOf(host);
  const add = async () => new Attachment(host, await host.addPod(), slow, { env }).tryAdd();
  return { host, env, log, status, add, go: () => writeFileSync(host.file('/run/slow/go'), '') };
}

test('an agent does no more calls at once than it was told', async (t) => {
  const { log, status, add, go } = await busyHost(t);
  const calls = [add(), add(), add()];
  await until('two calls wait', async () => (await status()).queued === 2);
  await until('the third is under way', () => log()[0] === 'begin ADD');
  t.deepEqual(log(), ['begin ADD']);
  go();
  for (const { exit, stdout } of await Promise.all(calls)) t.is(exit, 0, stdout);
  t.deepEqual(log(), ['begin ADD', 'end ADD', 'begin ADD', 'end ADD', 'begin ADD', 'end ADD']);
});

test('a call whose runtime gives up while it waits is not begun', async (t) => {
  const { host, env, log, status, add, go } = await busyHost(t);
  const first = add();
  await until('the first call is under way', async () => log().length === 1);
  const pod = await host.addPod();
  const [program, ...args] = [...host.enter, join(suites.ours, 'bridge')] as string[] as [
    string,
    ...string[],
  ];
  const child = spawn(program, args, {
    env: { ...cleanEnv, ...addEnvironment(pod), ...env },
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  child.stdin.end(JSON.stringify({ ...slow.plugins[0], name: slow.name, cniVersion: slow.cniVersion }));
  await until('the second call waits', async () => (await status()).queued === 1);
  child.kill('SIGKILL');
  await once(child, 'exit');
  go();
  t.is((await first).exit, 0);
  await until('nothing waits', async () => (await status()).queued === 0);
  // A third call is done after all those that waited before it.
  t.is((await add()).exit, 0);
  t.deepEqual(log(), ['begin ADD', 'end ADD', 'begin ADD', 'end ADD']);
  t.is(await link(pod, 'eth0'), undefined);
});

test('a delegate whose plugin comes back to the agent waits for no call that is under way', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  // Its parent takes the only place.
  await host.start(t, [join(suites.ours, 'cni'), 'agent', '--concurrency', '1']);
  const pod = await host.addPod();
  mkdirSync(host.file('/run/plugins'));
  const script = `#!/bin/sh\nexec ${suites.ours}/host-local\n`;
  writeFileSync(host.file('/run/plugins/wrapped'), script, { mode: 0o755 });
  const ipam = { type: 'wrapped', subnet: '10.33.0.0/24' };
  const { exit, stdout } = await host.tryRun([join(suites.ours, 'bridge')], {
    env: { ...addEnvironment(pod), CNI_PATH: `/run/plugins:${suites.ours}` },
    stdin: JSON.stringify({ cniVersion: '1.1.0', name: 'wrapped', type: 'bridge', bridge: 'br7', ipam }),
  });
  t.is(exit, 0, stdout);
  const { calls } = await statusOf(host);
  const counts = calls.map((one) => `${one.plugin} ${one.calls}`).sort();
  t.deepEqual(counts, ['bridge 1', 'host-local 1'], 'both were done by the agent');
});
