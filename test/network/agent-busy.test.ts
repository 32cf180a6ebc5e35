/**
 * An agent with more calls than it may do at once, one that is told to end while a call arrives, and one that
 * nobody reads from.
 * Runs once: it starts an agent itself.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { namespaceOf, statusOf } from '../support/agent.ts';
import { Attachment, attach, type Conflist } from '../support/chain.ts';
import { makeHost, startAgent } from '../support/host.ts';
import { until } from '../support/observe.ts';
import { runPlugin, suites } from '../support/plugin.ts';
import { cleanEnv } from '../support/run.ts';
import { makeSlowIpam } from '../support/slow-ipam.ts';

const command = join(suites.ours, 'cni');

function networkOf(ipam: object): Conflist {
  return { cniVersion: '1.1.0', name: 'busy', plugins: [{ type: 'bridge', bridge: 'br0', ipam }] };
}

test('STATUS and VERSION wait for no ADD, and DEL only for those under way', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  await host.start(t, [command, 'agent', '--concurrency', '1']);
  const directory = makeSlowIpam(host);
  const network = networkOf({ type: 'slow' });
  const env = { CNI_PATH: `${suites.ours}:${directory}` };
  const one = async () => new Attachment(host, await host.addPod(), network, { env });
  const [running, waiting, deleted] = [await one(), await one(), await one()];
  const queued = (count: number) =>
    until(`${count} wait`, async () => (await statusOf(host)).queued === count);
  const calls = [running.tryAdd()];
  await until('the IPAM plugin runs', async () => existsSync(host.file(`${directory}/verbs`)));
  calls.push(waiting.tryAdd());
  await queued(1);
  calls.push(deleted.tryDel());
  await queued(2);
  const config = { ...network.plugins[0], name: network.name, cniVersion: '1.1.0' };
  for (const verb of ['STATUS', 'VERSION'])
    t.is((await runPlugin(host, 'bridge', verb, { config, env })).exit, 0, verb);
  const { calls: done } = await statusOf(host);
  t.deepEqual(done.map(({ verb }) => verb).sort(), ['STATUS', 'VERSION'], 'by the agent, all others wait');
  writeFileSync(host.file(`${directory}/go`), '');
  for (const { exit, stdout } of await Promise.all(calls)) t.is(exit, 0, stdout);
  const verbs = readFileSync(host.file(`${directory}/verbs`), 'utf8')
    .split('\n')
    .slice(0, 4);
  t.deepEqual(
    verbs.filter((verb) => verb !== 'STATUS'),
    ['ADD', 'DEL', 'ADD'],
  );
});

test('an agent that is told to end does so only when a call that it has accepted is done', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const agent = await startAgent(t, host);
  const { build } = await statusOf(host);
  const namespaces = ['mnt', 'net'].map((kind) => namespaceOf(host, kind));
  // From within the host, as the agent asks the kernel in which namespaces a caller is.
  const [file, ...args] = [...host.enter, 'socat', '-', 'UNIX-CONNECT:/run/cni/agent.sock'] as const;
  const caller = spawn(file!, args, { env: cleanEnv, stdio: ['pipe', 'pipe', 'inherit'] });
  t.teardown(() => void caller.kill());
  let said = '';
  caller.stdout.on('data', (chunk) => {
    said += chunk;
  });
  caller.stdin.write([build, ...namespaces, 'bridge', 'CNI_COMMAND=VERSION', '', ''].join('\0'));
  await until('the call is accepted', async () => said.startsWith('Y'));
  const ended = once(agent, 'exit');
  agent.kill('SIGTERM');
  await sleep(300);
  // It still listens. To ask for its status may take longer than the agent waits for the input.
  const other = connect(host.file('/run/cni/agent.sock'));
  await once(other, 'connect');
  other.destroy();
  caller.stdin.write(Buffer.alloc(4));
  await until('the call has its answer', async () => said.includes('supportedVersions'));
  caller.stdin.end('A');
  const patience = sleep(60_000, 'still there');
  t.not(await Promise.race([ended, patience]), 'still there');
});

test('an agent that nobody reads from goes on', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const [file, ...args] = [...host.enter, command, 'agent'] as unknown as [string, ...string[]];
  const agent = spawn(file, args, { env: cleanEnv, stdio: ['ignore', 'pipe', 'pipe'] });
  t.teardown(() => void agent.kill());
  agent.stdout.destroy();
  agent.stderr.destroy();
  // The socket is there before it accepts connections.
  await until('it listens', async () => (await host.tryRun([command, 'agent', 'status'])).exit === 0);
  // It warns of what makes no sense.
  const socket = connect(host.file('/run/cni/agent.sock'));
  socket.end('\0\0');
  await once(socket.resume(), 'close');
  // The launcher gives an agent only some seconds, and a busy machine may be slower.
  await until('it does a call', async () => {
    await attach(host, networkOf({ type: 'host-local', subnet: '10.35.0.0/24' }));
    return (await statusOf(host)).calls.length === 1;
  });
  t.is(agent.exitCode, null);
});

test('what a delegate of another origin says on standard error reaches the runtime', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const directory = '/run/foreign';
  mkdirSync(host.file(directory));
  const script = '#!/bin/sh\ncat >/dev/null\necho "panic: boom" >&2\nexit 2\n';
  writeFileSync(host.file(`${directory}/foreign`), script, { mode: 0o755 });
  const env = { CNI_PATH: `${suites.ours}:${directory}` };
  const add = async () =>
    new Attachment(host, await host.addPod(), networkOf({ type: 'foreign' }), { env }).tryAdd();
  const direct = await add();
  t.is(direct.stderr, 'panic: boom\n');
  await startAgent(t, host);
  const { stderr, error } = await add();
  t.is(stderr, 'panic: boom\n');
  t.regex(error!.msg, /failed with exit code 2 and printed no CNI error/);
  t.is(error!.details, 'panic: boom');
});
