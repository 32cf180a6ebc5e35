/**
 * The agent as its operator meets it: metrics, status, priority, and one agent on a socket.
 * Runs once: it starts an agent itself.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { getPriority } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { statusOf } from '../support/agent.ts';
import { attach, type Conflist } from '../support/chain.ts';
import { type Host, makeHost, startAgent } from '../support/host.ts';
import { until } from '../support/observe.ts';
import { runPlugin, suites } from '../support/plugin.ts';
import { cleanEnv } from '../support/run.ts';

const command = join(suites.ours, 'cni');
const socketPath = '/run/cni/agent.sock';

const network: Conflist = {
  cniVersion: '1.1.0',
  name: 'agentnet',
  plugins: [{ type: 'bridge', bridge: 'br0', ipam: { type: 'host-local', subnet: '10.33.0.0/24' } }],
};

/** Values in the text format of Prometheus, by name and labels. */
function parseMetrics(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const [, key, value] = /^([a-z_]+(?:\{[^}]*\})?) (\S+)$/.exec(line) ?? [];
      if (key === undefined) throw new Error(`Not a sample: ${line}`);
      return [key, Number(value)];
    }),
  );
}

/** Calls of different outcomes: success, an error of the specification's, and no verb at all. */
async function makeCalls(host: Host): Promise<void> {
  const attachment = await attach(host, network);
  await attachment.del();
  await runPlugin(host, 'bridge', 'ADD', {
    pod: attachment.pod,
    config: { name: 'no/name', type: 'bridge' },
  });
  for (let i = 0; i < 5; i++)
    await host.tryRun([join(suites.ours, 'bridge')], { env: { CNI_COMMAND: `FROB${i}` } });
}

test('metrics tell of calls by plugin, verb and code, of durations, and of the process', async (t) => {
  const host = await makeHost(t);
  const agent = await host.start(t, [command, 'agent', '--metrics', '127.0.0.1:9464']);
  await makeCalls(host);
  const headers = await host.run(['curl', '-sfI', 'http://127.0.0.1:9464/metrics']);
  t.regex(headers, /^content-type: text\/plain; version=0\.0\.4/im);
  const metrics = parseMetrics(await host.run(['curl', '-sf', 'http://127.0.0.1:9464/metrics']));
  const calls = (labels: string) => metrics.get(`cni_agent_calls_total{${labels}}`);
  t.is(calls('plugin="bridge",verb="ADD",code="0"'), 1);
  t.is(calls('plugin="bridge",verb="DEL",code="0"'), 1);
  t.is(calls('plugin="bridge",verb="ADD",code="7"'), 1);
  t.is(calls('plugin="bridge",verb="other",code="6"'), 5);
  t.is(metrics.get('cni_agent_call_duration_seconds_count{plugin="bridge",verb="ADD"}'), 2);
  t.is(metrics.get('cni_agent_call_duration_seconds_bucket{le="30",plugin="bridge",verb="ADD"}'), 2);
  const bounds = [...metrics.keys()].flatMap(
    (key) => /_bucket\{le="(.*?)",plugin="bridge",verb="ADD"\}/.exec(key)?.slice(1) ?? [],
  );
  const expected = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30];
  t.deepEqual(bounds, [...expected.map(String), '+Inf']);
  const sum = metrics.get('cni_agent_call_duration_seconds_sum{plugin="bridge",verb="ADD"}')!;
  t.true(sum > 0.0005 && sum < 20, `${sum} seconds`);
  t.is(metrics.get('cni_agent_calls_running'), 0);
  t.is(metrics.get('cni_agent_calls_queued'), 0);
  t.is(metrics.get('cni_agent_calls_refused_total'), 0);
  t.true(metrics.get('cni_agent_uptime_seconds')! > 0);
  t.true(metrics.get('process_cpu_seconds_total')! > 0);
  const resident = metrics.get('process_resident_memory_bytes')!;
  t.true(resident > 20e6 && resident < 2e9, `${resident} bytes`);
  t.true(metrics.get('process_open_fds')! > 3);

  const { calls: told } = await statusOf(host);
  t.deepEqual(
    told.map(({ verb, calls, failures, codes }) => [verb, calls, failures, codes]),
    [
      ['ADD', 2, 1, { 0: 1, 7: 1 }],
      ['DEL', 1, 0, { 0: 1 }],
      ['other', 5, 5, { 6: 5 }],
    ],
  );
  t.regex(await host.run([command, 'agent', 'status']), /^bridge +ADD +2 +1 .* 7 \(1\)$/m);
  agent.kill('SIGTERM');
  t.deepEqual(await once(agent, 'exit'), [0, null], 'metrics do not keep it from ending');
});

test('a refused call is counted', async (t) => {
  const host = await makeHost(t);
  await host.start(t, [command, 'agent', '--metrics', '[::1]:9464']);
  const pod = await host.addPod();
  const nested = ['ip', 'netns', 'exec', pod.name, join(suites.ours, 'bridge')];
  await host.run(nested, { env: { CNI_COMMAND: 'VERSION' } });
  const metrics = parseMetrics(await host.run(['curl', '-sf', 'http://[::1]:9464/metrics']));
  t.is(metrics.get('cni_agent_calls_refused_total'), 1);
});

test('metrics are served on a Unix socket for root alone; other paths and methods are refused', async (t) => {
  const host = await makeHost(t);
  const path = '/run/metrics/agent.sock';
  const agent = await host.start(t, [command, 'agent', '--metrics', `unix:${path}`]);
  t.is(statSync(host.file(path)).mode & 0o777, 0o600);
  t.is(statSync(host.file('/run/metrics')).mode & 0o777, 0o700);
  const answerTo = async (url: string, ...options: string[]) => {
    const only = ['--output', '/dev/null', '--write-out', '%{http_code} %header{allow}'];
    return (await host.run(['curl', '-s', ...only, '--unix-socket', path, ...options, url])).trim();
  };
  t.is(await answerTo('http://agent/metrics'), '200');
  t.is(await answerTo('http://agent/metrics?x'), '200');
  t.is(await answerTo('http://agent/'), '404');
  t.is(await answerTo('http://agent/metrics/x'), '404');
  t.is(await answerTo('http://agent/metrics', '--request', 'POST'), '405 GET, HEAD');
  t.is(await answerTo('http://agent/metrics', '--request', 'DELETE'), '405 GET, HEAD');
  agent.kill('SIGTERM');
  await once(agent, 'exit');
  t.false(existsSync(host.file(path)));
});

test('connections for metrics are few', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  await host.start(t, [command, 'agent', '--metrics', 'unix:/run/metrics.sock']);
  let closed = 0;
  const sockets = Array.from({ length: 20 }, () =>
    connect(host.file('/run/metrics.sock')).on('close', () => closed++),
  );
  await until('some are refused', () => closed >= 4);
  await sleep(500);
  t.is(closed, 4);
  for (const socket of sockets) socket.destroy();
  const curl = ['curl', '-sf', '--unix-socket', '/run/metrics.sock', 'http://agent/metrics'];
  await until('others are served', async () => (await host.tryRun(curl)).exit === 0);
});

test('a metrics address that cannot be had is an error at the start', async (t) => {
  const host = await makeHost(t);
  const attempt = async (address: string, ...options: string[]) => {
    const argv = [command, 'agent', '--metrics', address, ...options];
    const { exit, stderr } = await host.tryRun(argv);
    return `${exit} ${stderr}`;
  };
  t.regex(
    await attempt('0.0.0.0:9464'),
    /^2 .*"0\.0\.0\.0" is not a loopback address\. Give 127\.0\.0\.1:PORT/,
  );
  t.regex(await attempt('localhost:9464'), /^2 .*"localhost:9464" is not a metrics address/);
  t.regex(await attempt('unix:/run/a', '--socket', '/run/a'), /^2 .*name the same path/);
  await host.start(t, [command, 'agent', '--socket', '/run/other.sock', '--metrics', '127.0.0.1:9465']);
  t.regex(await attempt('127.0.0.1:9465'), /^1 .*another process listens there already\. Find it with "ss /);
  t.regex(await attempt('unix:/run/other.sock'), /^1 .*Another process listens on/);
  writeFileSync(host.file('/run/precious'), 'text');
  t.regex(await attempt('unix:/run/precious'), /^1 .*"\/run\/precious" is not a socket\. Remove it/);
  t.true(existsSync(host.file('/run/precious')));
  t.false(existsSync(host.file(socketPath)), 'without metrics there is no agent');
});

test('an agent that hangs is reported within seconds, and plugins work without it', async (t) => {
  const host = await makeHost(t);
  const agent = await startAgent(t, host);
  const asNobody = ['setpriv', '--reuid=65534', '--clear-groups', command, 'agent', 'status'];
  const denied = await host.tryRun(asNobody);
  t.is(denied.exit, 1);
  t.regex(denied.stderr, /This user may not ask the agent on ".*"\. Run the command as root/);
  agent.kill('SIGSTOP');
  const start = Date.now();
  const { exit, stderr } = await host.tryRun([command, 'agent', 'status']);
  t.is(exit, 1);
  t.regex(stderr, /does not answer within 5 seconds: it hangs, or is stopped\. End it with/);
  t.true(Date.now() - start < 30_000);
  t.regex(await host.run([join(suites.ours, 'bridge')], { env: { CNI_COMMAND: 'VERSION' } }), /1\.1\.0/);
});

test('an agent gives systemd the signs of life that its unit asks for', async (t) => {
  const unit = readFileSync(join(import.meta.dirname, '../../conf/systemd/cni-agent.service'), 'utf8');
  const [, seconds] = /^WatchdogSec=(\d+)\nNotifyAccess=main$/m.exec(unit) ?? [];
  t.truthy(seconds);
  const host = await makeHost(t);
  const receiver = 'echo ready; exec socat -u UNIX-RECV:/run/notify CREATE:/run/notified';
  await host.start(t, ['sh', '-c', receiver]);
  await until('somebody receives', async () => existsSync(host.file('/run/notify')));
  const environment = ['NOTIFY_SOCKET=/run/notify', `WATCHDOG_USEC=${seconds}000000`];
  await host.start(t, ['env', ...environment, command, 'agent']);
  const file = host.file('/run/notified');
  const received = () => (existsSync(file) ? readFileSync(file, 'utf8') : '');
  await until('the first has come', async () => received().startsWith('WATCHDOG=1'));
});

/** Starts an agent, which is killed when the test ends. @returns the first line that it prints. */
async function firstLine(t: ExecutionContext, host: Host): Promise<string> {
  const [file, ...args] = [...host.enter, command, 'agent'] as string[] as [string, ...string[]];
  const child = spawn(file, args, { env: cleanEnv });
  t.teardown(() => void child.kill('SIGKILL'));
  const [text] = await Promise.race([once(child.stdout, 'data'), once(child.stderr, 'data')]);
  return String(text).split('\n')[0]!;
}

test('of agents that start at once, one gets the socket; a killed one leaves it to the next', async (t) => {
  const host = await makeHost(t);
  const first = await Promise.all(Array.from({ length: 6 }, () => firstLine(t, host)));
  t.deepEqual(first.toSorted(), [
    ...Array.from(
      { length: 5 },
      () => `Error: Another agent listens on "${socketPath}" already. Stop it, or give another --socket`,
    ),
    `Listening on "${socketPath}"`,
  ]);
  const { pid } = await statusOf(host);
  process.kill(pid, 'SIGKILL');
  await until('it is gone', async () => !existsSync(`/proc/${pid}`));
  await startAgent(t, host);
  t.is((await statusOf(host)).running, 0);
});

test('who holds the lock decides on the socket, for as long as it lives', async (t) => {
  const host = await makeHost(t);
  const tryLock = async () => (await host.tryRun(['flock', '--nonblock', `${socketPath}.lock`, 'true'])).exit;
  await host.run(['mkdir', '/run/cni']);
  const other = await host.start(t, ['flock', `${socketPath}.lock`, 'sh', '-c', 'echo locked; exec cat']);
  const refused = await host.tryRun([command, 'agent']);
  t.is(refused.exit, 1);
  t.regex(refused.stderr, /Another agent listens on/);
  t.false(existsSync(host.file(socketPath)));
  other.stdin!.end();
  await once(other, 'exit');
  const agent = await startAgent(t, host);
  t.is(await tryLock(), 1);
  agent.kill('SIGKILL');
  await once(agent, 'exit');
  t.is(await tryLock(), 0);
});

test('an agent has a higher priority than others, where it may', async (t) => {
  const host = await makeHost(t);
  // The tests may have that priority themselves.
  const lowered = ['nice', '-n', '15'];
  const agent = await host.start(t, [...lowered, command, 'agent']);
  t.is((await statusOf(host)).priority, -10);
  t.is(getPriority(agent.pid!), -10);
  agent.kill('SIGTERM');
  await once(agent, 'exit');
  const humble = ['setpriv', '--bounding-set=-sys_nice', '--inh-caps=-sys_nice', '--', command, 'agent'];
  await host.start(t, [...lowered, ...humble]);
  const { priority } = await statusOf(host);
  t.is(priority, Math.min(getPriority() + 15, 19));
  t.regex(await host.run([command, 'agent', 'status']), new RegExp(`, priority ${priority}, `));
});
