/**
 * The agent: whose calls it does, what becomes of them when it or the runtime dies, and what a broken peer
 * can do to it.
 * Runs once: it starts an agent itself.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { callsOf, statusOf } from '../support/agent.ts';
import { Attachment, attach, type Conflist, type PluginConf } from '../support/chain.ts';
import { end, type Host, makeHost, type Pod, startAgent } from '../support/host.ts';
import { link, ping, snapshot, until } from '../support/observe.ts';
import { addEnvironment, type PrintedError, runPlugin, suites } from '../support/plugin.ts';
import { portNet, ports } from '../support/portmap.ts';
import { cleanEnv, type Output } from '../support/run.ts';
import { makeSlowIpam } from '../support/slow-ipam.ts';

const socketPath = '/run/cni/agent.sock';
const command = join(suites.ours, 'cni');

const bridge: PluginConf = {
  type: 'bridge',
  bridge: 'br0',
  isGateway: true,
  ipMasq: true,
  ipam: { type: 'host-local', subnet: '10.33.0.0/24' },
};

function networkOf(plugin: PluginConf): Conflist {
  return { cniVersion: '1.1.0', name: 'agentnet', plugins: [plugin] };
}

const slow = networkOf({ ...bridge, ipam: { type: 'slow' } });

/** Starts an ADD that waits in its IPAM plugin. */
async function startSlowAdd(host: Host, directory: string) {
  const pod = await host.addPod();
  const [file, ...args] = [...host.enter, join(suites.ours, 'bridge')] as string[] as [string, ...string[]];
  const child = spawn(file, args, {
    env: {
      ...cleanEnv,
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: pod.containerId,
      CNI_NETNS: pod.netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: `${suites.ours}:${directory}`,
    },
  });
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  child.stdin.end(JSON.stringify({ ...slow.plugins[0], name: slow.name, cniVersion: '1.1.0' }));
  const ended = once(child, 'close');
  await until('the IPAM plugin runs', async () => existsSync(host.file(`${directory}/verbs`)));
  return { pod, child, ended, output: () => output };
}

test('a call is done by the agent, with the same outcome as without it', async (t) => {
  const host = await makeHost(t);
  const direct = await attach(host, networkOf(bridge));
  await direct.del();
  const idle = await snapshot(host);
  await startAgent(t, host);
  const one = await attach(host, networkOf(bridge));
  t.true(await ping(one.pod, '10.33.0.1'));
  const shape = ({ result }: Attachment) => ({ ...result, interfaces: result!.interfaces!.length, ips: [] });
  t.deepEqual(shape(one), shape(direct));
  await one.check();
  const refused = await new Attachment(host, one.pod, networkOf(bridge)).tryAdd();
  t.is(refused.error?.code, 999);
  await one.del();
  t.is(await callsOf(host), 4);
  await one.pod.remove();
  await direct.pod.remove();
  const { sandboxes: _, ...after } = await snapshot(host);
  const { sandboxes: __, ...before } = idle;
  t.deepEqual(after, before);
});

test('attachments made with the agent are checked and deleted without it, and the other way around', async (t) => {
  const host = await makeHost(t);
  const before = await attach(host, networkOf(bridge));
  const agent = await startAgent(t, host);
  const after = await attach(host, networkOf(bridge));
  await before.check();
  await before.del();
  agent.kill('SIGTERM');
  await once(agent, 'exit');
  await after.check();
  await after.del();
  t.is(await link(after.pod, 'eth0'), undefined);
});

test('a call of another network namespace is not its own', async (t) => {
  const host = await makeHost(t);
  await startAgent(t, host);
  const pod = await host.addPod();
  const other = await host.addPod();
  const nested = await host.tryRun(['ip', 'netns', 'exec', other.name, join(suites.ours, 'bridge')], {
    env: {
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: 'nested',
      CNI_NETNS: pod.netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: suites.ours,
    },
    stdin: JSON.stringify({ cniVersion: '1.1.0', name: 'nested', type: 'bridge', bridge: 'br7' }),
  });
  t.is(nested.exit, 0, nested.stdout);
  t.is(await link(host, 'br7'), undefined);
  t.truthy(await link(other, 'br7'));
  t.is(await callsOf(host), 0);
});

test('a call that waits does not keep another from running', async (t) => {
  const host = await makeHost(t);
  await startAgent(t, host);
  const directory = makeSlowIpam(host);
  const waiting = await startSlowAdd(host, directory);
  const one = await attach(host, networkOf(bridge));
  t.true(await ping(one.pod, '10.33.0.1'));
  t.is(waiting.child.exitCode, null);
  writeFileSync(host.file(`${directory}/go`), '');
  const [code] = (await waiting.ended) as [number];
  t.is(code, 0, waiting.output());
});

test('an agent that is told to end does so once its calls are done, whatever its idle timeout', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const agent = await host.start(t, [command, 'agent', '--idle-timeout', '600']);
  const directory = makeSlowIpam(host);
  const call = await startSlowAdd(host, directory);
  const ended = once(agent, 'exit');
  agent.kill('SIGTERM');
  await sleep(200);
  t.is(agent.exitCode, null);
  writeFileSync(host.file(`${directory}/go`), '');
  const [code] = (await call.ended) as [number];
  t.is(code, 0, call.output());
  const patience = sleep(60_000, 'still there');
  t.not(await Promise.race([ended, patience]), 'still there');
});

test('an agent that dies in the middle of a call is reported with code 11, and DEL cleans up', async (t) => {
  const host = await makeHost(t);
  const agent = await startAgent(t, host);
  const directory = makeSlowIpam(host);
  const call = await startSlowAdd(host, directory);
  await end(agent);
  const [code] = (await call.ended) as [number];
  t.is(code, 1);
  const error = JSON.parse(call.output()) as PrintedError;
  t.is(error.code, 11);
  t.regex(error.msg, /agent did not finish this call/);
  t.regex(
    error.details!,
    /: The agent ended, or dropped the call, before it answered\. Look for the reason with journalctl /,
  );
  t.deepEqual(readFileSync(host.file(`${directory}/verbs`), 'utf8'), 'ADD\n', 'nothing is done twice');
  writeFileSync(host.file(`${directory}/go`), '');
  const attachment = new Attachment(host, call.pod, slow, {
    env: { CNI_PATH: `${suites.ours}:${directory}` },
  });
  await attachment.del();
  t.is(await link(call.pod, 'eth0'), undefined);
});

test('the ADD of a runtime that has given up is undone, however long its IPAM plugin would take', async (t) => {
  const host = await makeHost(t);
  await startAgent(t, host);
  const directory = makeSlowIpam(host);
  const call = await startSlowAdd(host, directory);
  t.truthy(await link(call.pod, 'eth0'));
  call.child.kill('SIGKILL');
  await call.ended;
  await until('ADD is undone', async () => (await link(call.pod, 'eth0')) === undefined);
  await until('the address is released', async () =>
    readFileSync(host.file(`${directory}/verbs`), 'utf8').endsWith('ADD\nDEL\n'),
  );
  await until('the call has ended', async () => (await callsOf(host)) === 1);
  const [counted] = (await statusOf(host)).calls;
  t.deepEqual(counted?.codes, { unanswered: 1 });
  const waiting = host.file(`${directory}/waiting`);
  // It may have been killed before it got to wait.
  t.false(existsSync(waiting) && existsSync(`/proc/${readFileSync(waiting, 'utf8').trim()}`));
});

test('DEL waits until the ADD that the runtime has given up is undone', async (t) => {
  const host = await makeHost(t);
  await startAgent(t, host);
  const directory = makeSlowIpam(host);
  // It ignores SIGTERM, and ends only when it is killed two seconds later.
  const stubborn = readFileSync(host.file(`${directory}/slow`), 'utf8').replace(
    '#!/bin/sh',
    "$&\ntrap '' TERM",
  );
  writeFileSync(host.file(`${directory}/slow`), stubborn);
  const call = await startSlowAdd(host, directory);
  call.child.kill('SIGKILL');
  await call.ended;
  const del = await runPlugin(host, 'bridge', 'DEL', {
    pod: call.pod,
    path: [suites.ours, directory],
    config: { ...slow.plugins[0], name: slow.name, cniVersion: '1.1.0' },
  });
  t.is(del.exit, 0, del.stdout);
  // The ADD, its undoing, and then the DEL.
  t.is(readFileSync(host.file(`${directory}/verbs`), 'utf8'), 'ADD\nDEL\nDEL\n');
  t.is(await link(call.pod, 'eth0'), undefined);
  t.is(await callsOf(host), 2);
});

/** Connects to an agent from outside, and waits until it has closed the connection. */
async function send(host: Host, bytes: Buffer | string, end = true): Promise<Buffer> {
  const socket: Socket = connect(host.file(socketPath));
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', () => {});
  socket.write(bytes);
  if (end) socket.end();
  await Promise.race([new Promise((resolve) => socket.once('close', resolve)), sleep(15_000)]);
  socket.destroy();
  return Buffer.concat(chunks);
}

test('whatever a peer sends, it gets nothing, and others are served', async (t) => {
  const host = await makeHost(t);
  await startAgent(t, host);
  const offers: Record<string, Buffer | string> = {
    nothing: '',
    garbage: Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 7919) % 256)),
    'half an offer': 'build\0mount',
    'an empty offer': '\0\0',
    'a plugin that does not exist': 'b\x001:1\x001:1\0../../bin/sh\0CNI_COMMAND=ADD\0\0',
    'a megabyte of environment': `b\x001:1\x001:1\0bridge\0${'X=y\0'.repeat(300_000)}`,
    'a hundred megabytes': Buffer.alloc(100 * 1024 * 1024, 'x'),
  };
  for (const [what, bytes] of Object.entries(offers)) t.is((await send(host, bytes)).length, 0, what);
  const one = await attach(host, networkOf(bridge));
  await one.del();
  t.is(await callsOf(host), 2);
});

test('a result that was passed on counts, even if the agent hears of it when a sign of life is due', async (t) => {
  const host = await makeHost(t);
  const agent = await startAgent(t, host);
  // The first write accepts the call, the second is the result, unless one in between wakes a thread.
  const slowly = 'strace -o /run/trace -e trace=write -e inject=write:delay_exit=4000000:when=2+'.split(' ');
  const tracer = await host.start(t, ['sh', '-c', `${slowly.join(' ')} -p ${agent.pid} 2>&1`]);
  const { exit, stdout } = await host.tryRun([join(suites.ours, 'bridge')], {
    env: { CNI_COMMAND: 'VERSION' },
  });
  t.is(exit, 0);
  t.regex(stdout, /supportedVersions/);
  // While it is held up, it may not answer in time.
  await until('the agent goes on', async () => (await callsOf(host).catch(() => 0)) > 0);
  tracer.kill('SIGTERM');
  t.regex(readFileSync(host.file('/run/trace'), 'utf8'), /"R.*\(DELAYED\)/);
  const { calls } = await statusOf(host);
  t.deepEqual(
    calls.map(({ failures }) => failures),
    [0],
  );
});

test('a launcher that passes its result on too late fails, as ADD has been undone', async (t) => {
  const host = await makeHost(t);
  await startAgent(t, host);
  const pod = await host.addPod();
  // Into a file: it would not write(2) to a socket, its usual standard output. No other write is delayed.
  const late = `strace -qq -o /dev/null -P /run/result -e inject=write:delay_enter=20000000 ${join(suites.ours, 'bridge')}`;
  const { exit } = await host.tryRun(['sh', '-c', `${late} >/run/result`], {
    env: addEnvironment(pod),
    stdin: JSON.stringify({ ...bridge, name: 'agentnet', cniVersion: '1.1.0' }),
  });
  t.is(exit, 1);
  t.is(await link(pod, 'eth0'), undefined);
});

test('the socket is for root alone, and a second agent is refused', async (t) => {
  const host = await makeHost(t);
  await startAgent(t, host);
  t.is(statSync(host.file(socketPath)).mode & 0o777, 0o600);
  const second = await host.tryRun([command, 'agent']);
  t.is(second.exit, 1);
  t.regex(second.stderr, /Another agent listens on/);
});

test('a stale socket, one that is not a socket and one of another user are passed over', async (t) => {
  const host = await makeHost(t);
  const agent = await startAgent(t, host);
  await end(agent);
  t.true(existsSync(host.file(socketPath)));
  await (await attach(host, networkOf(bridge))).del();
  await host.run(['sh', '-c', `rm ${socketPath} && mkfifo ${socketPath}`]);
  await (await attach(host, networkOf(bridge))).del();
  await host.run(['rm', socketPath]);
  await host.run(['chmod', '0777', '/run/cni']);
  const impostor = `UNIX-LISTEN:${socketPath},fork 'SYSTEM:printf YYYY; sleep 60'`;
  const asNobody = 'setpriv --reuid=65534 --regid=65534 --clear-groups';
  await host.start(t, ['sh', '-c', `echo ready; exec ${asNobody} socat ${impostor}`]);
  await until('somebody else listens', async () => existsSync(host.file(socketPath)));
  const one = await attach(host, networkOf(bridge));
  t.true(await ping(one.pod, '10.33.0.1'));
});

/** Puts a tree of the suite, made of hard links rather than copies, at a host's /run/bin. */
async function installTree(t: ExecutionContext, host: Host): Promise<void> {
  const tree = mkdtempSync(join(suites.ours, '../tree-'));
  t.teardown(() => rmSync(tree, { recursive: true }));
  await host.run(['cp', '-al', `${suites.ours}/.`, tree]);
  await host.run(['mkdir', '/run/bin']);
  await host.run(['mount', '--bind', tree, '/run/bin']);
}

/** Replaces that tree, name by name like an upgrade, by what launcher and agent take for another build. */
async function upgradeTree(host: Host): Promise<void> {
  const launcher = readFileSync(host.file('/run/bin/bridge')).toString('latin1');
  const [, build = ''] = /\.cni-plugins-([0-9a-f]{12})\//.exec(launcher) ?? [];
  await host.run(['cp', '-al', `/run/bin/.cni-plugins-${build}`, '/run/bin/.cni-plugins-0123456789ab']);
  writeFileSync(
    host.file('/run/bin/launcher'),
    Buffer.from(launcher.replaceAll(build, '0123456789ab'), 'latin1'),
    { mode: 0o755 },
  );
  for (const name of ['cni', 'bridge', 'host-local'])
    await host.run([
      'sh',
      '-c',
      `ln /run/bin/launcher /run/bin/.new && mv -f /run/bin/.new /run/bin/${name}`,
    ]);
}

/** Runs bridge of the tree in /run/bin. */
function runInstalled(host: Host, pod: Pod, command: 'ADD' | 'DEL'): Promise<Output> {
  return host.tryRun(['/run/bin/bridge'], {
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: pod.containerId,
      CNI_NETNS: pod.netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: '/run/bin',
    },
    stdin: JSON.stringify({ ...bridge, name: 'agentnet', cniVersion: '1.1.0' }),
  });
}

test('an agent whose tree was replaced ends after its calls, and plugins work meanwhile', async (t) => {
  const host = await makeHost(t);
  await installTree(t, host);
  const agent = await host.start(t, ['/run/bin/cni', 'agent']);
  const ended = once(agent, 'exit');
  await upgradeTree(host);
  const outcome = await runInstalled(host, await host.addPod(), 'ADD');
  t.is(outcome.exit, 0, outcome.stdout);
  await ended;
  t.pass();
});

test('an upgrade while pods come and go fails no call', async (t) => {
  const host = await makeHost(t);
  await installTree(t, host);
  const agent = await host.start(t, ['/run/bin/cni', 'agent']);
  const ended = once(agent, 'exit');
  let isOver = false;
  let lives = 0;
  const worker = async () => {
    while (!isOver) {
      const pod = await host.addPod();
      for (const command of ['ADD', 'DEL'] as const) {
        const { exit, stdout } = await runInstalled(host, pod, command);
        t.is(exit, 0, `${command}: ${stdout}`);
      }
      await pod.remove();
      lives++;
    }
  };
  const workers = Promise.all(Array.from({ length: 4 }, worker));
  workers.catch(() => {}); // It is awaited below.
  try {
    await until('the old build is at work', async () => lives >= 4);
    await upgradeTree(host);
    await ended;
    // Another agent takes over, of the new build.
    await host.start(t, ['/run/bin/cni', 'agent']);
    const before = lives;
    await until('the new build is at work', async () => lives >= before + 4);
  } finally {
    isOver = true;
    await workers;
  }
  t.true((await callsOf(host)) >= 4);
  const left = readdirSync(host.file('/var/lib/cni/networks/agentnet'));
  t.deepEqual(
    left.filter((name) => name.startsWith('10.')),
    [],
  );
});

test('pods that come and go at once share the work, and each gets its own answer', async (t) => {
  const host = await makeHost(t);
  await (await attach(host, portNet(), ports([7999, 80]))).del();
  const { sandboxes: _, ...idle } = await snapshot(host);
  await startAgent(t, host);
  // Interface groups of an operator are not ours.
  await host.run(['ip', 'link', 'add', 'theirs', 'group', '70000', 'type', 'veth', 'peer', 'name', 'other']);
  await host.run(['mkdir', '/run/counted']);
  writeFileSync(
    host.file('/run/counted/iptables-restore'),
    '#!/bin/sh\necho run >>/run/counted/runs\nexec /usr/sbin/iptables-restore "$@"\n',
    { mode: 0o755 },
  );
  const env = { PATH: `/run/counted:${cleanEnv.PATH}` };
  const runs = () => readFileSync(host.file('/run/counted/runs'), 'utf8').split('\n').length - 1;
  const pods = await Promise.all(Array.from({ length: 16 }, () => host.addPod()));
  const impossible = 7;
  const all = pods.map((pod, i) => {
    const network = i === impossible ? portNet({ conditionsV4: ['--no-such-option'] }) : portNet();
    return new Attachment(host, pod, network, { ...ports([8000 + i, 80]), env });
  });
  const outcomes = await Promise.all(all.map((one) => one.tryAdd()));
  for (const [i, { exit, error }] of outcomes.entries())
    if (i === impossible) t.regex(`${error?.msg} ${error?.details}`, /no-such-option/);
    else t.is(exit, 0, `${error?.msg}`);
  t.true(runs() < 2 * pods.length, `${runs()} runs`);
  const living = all.filter((_, i) => i !== impossible);
  t.is(new Set(living.map(({ ip }) => ip)).size, living.length);
  await Promise.all(living.map((one) => one.check()));
  const rules = await host.run(['iptables-save', '-t', 'nat']);
  for (const i of pods.keys())
    t.is(rules.includes(`--dports ${8000 + i} `), i !== impossible, `port ${8000 + i}`);
  t.true(await ping(living[0]!.pod, '10.5.0.1'));
  await Promise.all(all.map((one) => one.del()));
  for (const pod of pods) t.is(await link(pod, 'eth0'), undefined);
  t.is((await link(host, 'theirs'))?.ifname, 'theirs');
  await host.run(['ip', 'link', 'delete', 'theirs']);
  const { sandboxes: __, ...after } = await snapshot(host);
  t.deepEqual(after, idle);
});

test('80 lives with an agent that is killed again and again: nothing is left, no address is given twice', async (t) => {
  const host = await makeHost(t);
  await (await attach(host, networkOf(bridge))).del();
  const idle = await snapshot(host);
  let isOver = false;
  const killer = (async () => {
    while (!isOver) {
      const agent = await startAgent(t, host);
      await sleep(100 + 400 * Math.random());
      agent.kill('SIGKILL');
      await once(agent, 'exit');
    }
  })();
  const living = new Set<string>();
  const life = async () => {
    const pod = await host.addPod();
    const { result } = await runPlugin(host, 'bridge', 'ADD', {
      pod,
      config: { ...bridge, name: 'agentnet', cniVersion: '1.1.0' },
    });
    const address = result?.ips?.[0]?.address;
    if (address) {
      t.false(living.has(address), address);
      living.add(address);
    }
    const attachment = new Attachment(host, pod, networkOf(bridge));
    if (address) living.delete(address);
    while ((await attachment.tryDel()).exit !== 0) await sleep(10);
    await pod.remove();
  };
  for (let batch = 0; batch < 10; batch++) await Promise.all(Array.from({ length: 8 }, life));
  isOver = true;
  await killer;
  const { sandboxes: _, ...after } = await snapshot(host);
  const { sandboxes: __, ...before } = idle;
  t.deepEqual(after, before);
});
