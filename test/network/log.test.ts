/**
 * The log of calls: what it says, where it goes, and that no trouble with it fails a call.
 * Runs once: it starts an agent itself.
 */

import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { LogEntry } from '../../lib/cni/log/entry.ts';
import { Attachment, attach, type Conflist } from '../support/chain.ts';
import { type Host, makeHost, startAgent } from '../support/host.ts';
import { logEntries, logFile } from '../support/log.ts';
import { until } from '../support/observe.ts';
import { type Outcome, runPlugin, suites } from '../support/plugin.ts';

const env = { CNI_LOG: logFile };
const secret = 'hunter2';

const network: Conflist = {
  cniVersion: '1.1.0',
  name: 'lognet',
  plugins: [
    {
      type: 'bridge',
      bridge: 'br0',
      ipMasq: true,
      ipam: { type: 'host-local', subnet: '10.44.0.0/24' },
      args: { cni: { password: secret } },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
};

/** A network whose ADD fails after much was done: the gateway of its route is in no subnet. */
const failing: Conflist = {
  cniVersion: '1.1.0',
  name: 'failnet',
  plugins: [
    {
      type: 'bridge',
      bridge: 'br1',
      ipam: {
        type: 'static',
        addresses: [{ address: '10.45.0.2/24' }],
        routes: [{ dst: '10.46.0.0/16', gw: '10.99.0.1' }],
      },
    },
  ],
};

/** A host without an agent, and one with. */
async function hosts(t: ExecutionContext): Promise<Host[]> {
  const [direct, served] = [await makeHost(t, { mayHaveAgent: false }), await makeHost(t)];
  if (!process.env.CNI_TEST_AGENT) await startAgent(t, served);
  return [direct, served];
}

const names = (entries: readonly LogEntry[]) =>
  entries.map(({ parent, plugin, verb, ok }) => [parent, plugin, verb, ok]);

test('each verb of each plugin is a line, with and without the agent', async (t) => {
  for (const host of await hosts(t)) {
    const args = `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-1;K8S_POD_UID=u-1;TOKEN=${secret}`;
    const capabilities = { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] };
    const attachment = await attach(host, network, { env, args, capabilities });
    const { pod } = attachment;
    await attachment.check();
    await attachment.del();
    const entries = await logEntries(host, 9);
    t.deepEqual(names(entries), [
      ['bridge', 'host-local', 'ADD', true],
      [undefined, 'bridge', 'ADD', true],
      [undefined, 'portmap', 'ADD', true],
      ['bridge', 'host-local', 'CHECK', true],
      [undefined, 'bridge', 'CHECK', true],
      [undefined, 'portmap', 'CHECK', true],
      [undefined, 'portmap', 'DEL', true],
      ['bridge', 'host-local', 'DEL', true],
      [undefined, 'bridge', 'DEL', true],
    ]);
    for (const entry of entries) {
      t.is(entry.network, 'lognet');
      t.is(entry.containerId, pod.containerId);
      t.is(entry.ifname, 'eth0');
      t.is(entry.netns, pod.netns);
      t.deepEqual(entry.pod, { namespace: 'shop', name: 'cart-1', uid: 'u-1' });
      t.true(entry.durationMs > 0 && entry.durationMs < 60_000);
      t.true(Math.abs(Date.parse(entry.time) - Date.now()) < 600_000);
      t.is(entry.traceId, undefined);
    }
    const [hostLocal, bridge] = entries;
    const { interfaces, ips } = attachment.result!;
    t.deepEqual(bridge!.result, {
      interfaces: interfaces!.map(({ name }) => name),
      ips: ips!.map(({ address }) => address),
    });
    t.deepEqual(
      hostLocal!.result?.ips,
      ips!.map(({ address }) => address),
    );
    t.true(bridge!.durationMs >= hostLocal!.durationMs);
    t.false(readFileSync(host.file(logFile), 'utf8').includes(secret), 'names alone are logged');
    t.is(statSync(host.file(logFile)).mode & 0o777, 0o600);
  }
});

test('a failed ADD tells its error, and what was undone', async (t) => {
  for (const host of await hosts(t)) {
    const outcome = await new Attachment(host, await host.addPod(), failing, { env }).tryAdd();
    const { code, msg, details } = outcome.error!;
    const entries = await logEntries(host, 3);
    t.deepEqual(names(entries), [
      ['bridge', 'static', 'ADD', true],
      ['bridge', 'static', 'DEL', true],
      [undefined, 'bridge', 'ADD', false],
    ]);
    const { error, undone, result } = entries.at(-1)!;
    t.deepEqual(error, { code, msg, ...(details !== undefined && { details }) });
    t.is(result, undefined);
    const steps = undone!.map(({ step }) => step);
    t.is(steps.length, 3);
    t.is(steps[0], 'run DEL of "static"');
    t.regex(steps[1]!, /^delete interface "veth[0-9a-f]+"$/);
    t.is(steps[2], 'delete bridge "br1", if nobody uses it');
    t.true(undone!.every(({ error }) => error === undefined));
    t.deepEqual(await host.run(['ip', '-o', 'link', 'show', 'type', 'veth']), '');
  }
});

test('what is refused before anything is done is logged, whatever it is', async (t) => {
  for (const host of await hosts(t)) {
    const pod = await host.addPod();
    const attempt = (verb: string, config: string, more: NodeJS.ProcessEnv = {}) =>
      runPlugin(host, 'bridge', verb, { pod, config, env: { ...env, ...more } });
    await attempt('ADD', 'no JSON');
    await attempt('ADD', '{}', { CNI_CONTAINERID: '../x\n{"forged":1}' });
    await attempt('FROB', '{"cniVersion":"1.1.0","name":"n","type":"bridge"}');
    await attempt('VERSION', '');
    await attempt('ADD', '{"cniVersion":"1.1.0","name":["a"],"type":"bridge"}');
    await attempt('ADD', '{}', { CNI_CONTAINERID: `a${'\u0001'.repeat(20_000)}` });
    await host.tryRun([join(suites.ours, 'bridge')], { env });
    const entries = await logEntries(host, 6);
    t.deepEqual(
      entries.map(({ verb, error, network }) => [verb, error?.code, network]),
      [
        ['ADD', 6, undefined],
        ['ADD', 4, undefined],
        ['FROB', 4, 'n'],
        ['VERSION', undefined, undefined],
        ['ADD', 6, undefined],
        ['ADD', 4, undefined],
      ],
    );
    t.is(entries[1]!.containerId, '../x\n{"forged":1}');
    t.is(entries[5]!.containerId!.length, 4097);
  }
});

test('a delegate in another executable is logged by the one that runs it', async (t) => {
  for (const host of await hosts(t)) {
    const directory = '/run/foreign';
    mkdirSync(host.file(directory));
    const file = `${directory}/elsewhere`;
    const answer = '{"cniVersion":"1.1.0","ips":[{"address":"10.44.0.9/24"}]}';
    writeFileSync(host.file(file), `#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = DEL ] || echo '${answer}'\n`);
    chmodSync(host.file(file), 0o755);
    const { name, plugins, cniVersion } = network;
    const config = { ...plugins[0], name, cniVersion, ipam: { type: 'elsewhere' } };
    const call = { pod: await host.addPod(), config, path: [suites.ours, directory], env };
    const added = await runPlugin(host, 'bridge', 'ADD', call);
    t.is(added.exit, 0, added.stdout);
    writeFileSync(host.file(file), '#!/bin/sh\ncat >/dev/null\necho \'{"code":123,"msg":"no"}\'\nexit 1\n');
    t.is((await runPlugin(host, 'bridge', 'DEL', call)).error?.code, 123);
    const entries = await logEntries(host, 4);
    t.deepEqual(
      entries.map(({ plugin, verb, parent, executable, error }) => [
        plugin,
        verb,
        parent,
        executable,
        error?.code,
      ]),
      [
        ['elsewhere', 'ADD', 'bridge', file, undefined],
        ['bridge', 'ADD', undefined, undefined, undefined],
        ['elsewhere', 'DEL', 'bridge', file, 123],
        ['bridge', 'DEL', undefined, undefined, 123],
      ],
    );
    t.deepEqual(entries[0]!.result?.ips, ['10.44.0.9/24']);
  }
});

test("the runtime's trace is told, unless it is malformed", async (t) => {
  const [traceId, spanId] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331'];
  for (const host of await hosts(t)) {
    const version = (TRACEPARENT: string) =>
      runPlugin(host, 'bridge', 'VERSION', { env: { ...env, TRACEPARENT } });
    await version(`00-${traceId}-${spanId}-01`);
    await version(`00-${traceId}-${spanId}-01-more`);
    await version('rubbish\n');
    t.deepEqual(
      (await logEntries(host, 3)).map((entry) => [entry.traceId, entry.spanId]),
      [
        [traceId, spanId],
        [undefined, undefined],
        [undefined, undefined],
      ],
    );
  }
});

test('a file sets it for the host, and CNI_LOG goes before it', async (t) => {
  for (const host of await hosts(t)) {
    const settings = host.file('/etc/cni/log.json');
    const version = (CNI_LOG?: string) => runPlugin(host, 'bridge', 'VERSION', { env: { CNI_LOG } });
    const other = '/run/cni-log/other.jsonl';
    writeFileSync(settings, JSON.stringify({ destination: other, maxSizeMiB: 1, keep: 1 }));
    t.is((await version()).stderr, '');
    await version('off');
    await version(logFile);
    await version('');
    await logEntries(host, 2, other);
    await logEntries(host, 1);
    writeFileSync(host.file(other), `${'x'.repeat(1024 * 1024)}\n`);
    await version();
    await until('it is put aside', async () => existsSync(host.file(`${other}.1`)));
    await logEntries(host, 1, other);
    t.is(statSync(host.file(`${other}.1`)).size, 1024 * 1024 + 1);
    for (const [text, complaint] of [
      ['{"destination": ', /^Nothing is logged: "\/etc\/cni\/log\.json" cannot be used: .*JSON.*Correct it/],
      ['{"destination": 7}', /"destination" .*must be a string/],
      [
        '{"destination": "calls.jsonl"}',
        /^Nothing is logged: "destination" in .* is "calls\.jsonl"\. Set it/,
      ],
      [
        '{"destination": "/run/x", "maxSize": 3}',
        /It has "maxSize", but knows only "destination", "maxSizeMiB"/,
      ],
      ['{"destination": "/run/x", "maxSizeMiB": 0}', /"maxSizeMiB" is 0, but it must be between 1 and 1024/],
      ['[]', /must be an object/],
      ['{"destination": "off"}', /^$/],
      ['{}', /^$/],
    ] as const) {
      writeFileSync(settings, text);
      const { exit, stderr } = await version();
      t.is(exit, 0, text);
      t.regex(stderr, complaint, text);
    }
    t.regex((await version('sometimes')).stderr, /^Nothing is logged: .*\n$/);
    t.false(existsSync(host.file('/run/x')));
  }
});

/** What may be in the way of a log file, with the message about it. */
const obstacles: Record<string, readonly [RegExp, (host: Host, file: string) => unknown]> = {
  link: [/is a symbolic link/, (host, file) => symlinkSync('/run/victim', host.file(file))],
  'hard link': [/other hard links/, (host, file) => linkSync(host.file('/run/victim'), host.file(file))],
  FIFO: [/not a regular file/, (host, file) => host.run(['mkfifo', file])],
  device: [/not a regular file/, (host, file) => host.run(['mknod', file, 'c', '1', '3'])],
  directory: [/is a directory/, (host, file) => mkdirSync(host.file(file))],
  'read-only file system': [
    /file system is read-only/,
    (host) => host.run(['mount', '-t', 'tmpfs', '-o', 'ro', 'tmpfs', '/run/cni-log']),
  ],
  'full disk': [
    /file system is full/,
    (host) =>
      host.run([
        'sh',
        '-c',
        'mount -t tmpfs -o size=16k tmpfs /run/cni-log; cat /dev/zero > /run/cni-log/filler 2> /dev/null; true',
      ]),
  ],
  'file above it': [
    /not a directory/,
    (host, file) => host.run(['sh', '-c', `rmdir ${join(file, '..')}; touch ${join(file, '..')}`]),
  ],
};

for (const [name, [complaint, put]] of Object.entries(obstacles))
  test(`a ${name} in the way of the log fails no call`, async (t) => {
    for (const host of await hosts(t)) {
      writeFileSync(host.file('/run/victim'), 'precious');
      mkdirSync(host.file('/run/cni-log'));
      await put(host, logFile);
      const pod = await host.addPod();
      const call = (verb: string, config: object): Promise<Outcome> =>
        runPlugin(host, 'bridge', verb, { pod, env, config });
      const config = { ...network.plugins[0], name: 'lognet', cniVersion: '1.1.0' };
      const added = await call('ADD', config);
      t.is(added.exit, 0, added.stdout);
      t.regex(added.stderr, complaint);
      t.regex(added.stderr, /^Cannot write the log "\/run\/cni-log\/calls\.jsonl"/);
      t.is((await call('DEL', { ...config, prevResult: added.result })).exit, 0);
      t.is(readFileSync(host.file('/run/victim'), 'utf8'), 'precious');
    }
  });

/** Starts systemd's journal in a host. */
async function startJournal(t: ExecutionContext, host: Host) {
  // It exits if it finds no control groups.
  await host.run(['mount', '-t', 'cgroup2', 'cgroup2', '/sys/fs/cgroup']);
  await host.run(['mkdir', '-p', '/run/systemd/journal']);
  const journal = await host.start(t, ['sh', '-c', 'echo started; exec /lib/systemd/systemd-journald']);
  await until('the journal listens', async () => existsSync(host.file('/run/systemd/journal/socket')));
  return journal;
}

/** Fields of the journal's entries, oldest first. A field that occurs several times is a list. */
async function journalEntries(host: Host): Promise<Record<string, string | string[]>[]> {
  const argv = ['journalctl', '--directory=/run/log/journal', '--output=json', 'SYSLOG_IDENTIFIER=cni'];
  const { stdout } = await host.tryRun(argv);
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line) as Record<string, string | string[]>);
}

test("systemd's journal gets an entry with a field for each thing that is known", async (t) => {
  for (const host of await hosts(t)) {
    await startJournal(t, host);
    const journald = { env: { CNI_LOG: 'journald' } };
    const args = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-1';
    const good = await attach(host, { ...network, plugins: [network.plugins[0]!] }, { ...journald, args });
    const bad = new Attachment(host, await host.addPod(), failing, journald);
    const { error } = await bad.tryAdd();
    await runPlugin(host, 'bridge', 'ADD', { containerId: 'a\nPRIORITY=0\nFORGED=1', ...journald });
    await until('all is there', async () => (await journalEntries(host)).length === 6);
    const entries = await journalEntries(host);
    const [hostLocal, bridge] = entries;
    t.is(hostLocal!.CNI_PARENT, 'bridge');
    t.like(bridge, {
      CNI_PLUGIN: 'bridge',
      CNI_COMMAND: 'ADD',
      CNI_NETWORK: 'lognet',
      CNI_CONTAINERID: good.pod.containerId,
      CNI_IFNAME: 'eth0',
      K8S_POD_NAMESPACE: 'shop',
      K8S_POD_NAME: 'cart-1',
      CNI_RESULT_INTERFACE: good.result!.interfaces!.map(({ name }) => name),
      CNI_RESULT_IP: good.result!.ips![0]!.address,
      PRIORITY: '6',
    });
    t.regex(
      `${bridge!.MESSAGE}`,
      /^bridge ADD of container-pod-\w+ eth0 on network lognet done in [\d.]+ ms$/,
    );
    const failed = entries[4]!;
    t.is(failed.PRIORITY, '3');
    t.is(failed.CNI_ERROR_CODE, `${error!.code}`);
    t.is(failed.CNI_ERROR_MSG, error!.msg);
    t.is(failed.CNI_UNDONE!.length, 3);
    t.is(failed.CNI_UNDONE![0], 'run DEL of "static"');
    const forged = entries[5]!;
    t.is(forged.CNI_CONTAINERID, 'a\nPRIORITY=0\nFORGED=1');
    t.is(forged.PRIORITY, '3');
    t.is(forged.FORGED, undefined);
  }
});

test('a journal that is absent, or hangs, fails no call and delays none', async (t) => {
  for (const host of await hosts(t)) {
    // The agent logs the plugin's own entry once it has answered; the delegate's comes before.
    const status = () =>
      runPlugin(host, 'bridge', 'STATUS', {
        config: { ...network.plugins[0], name: 'lognet', cniVersion: '1.1.0' },
        env: { CNI_LOG: 'journald' },
      });
    const absent = await status();
    t.is(absent.exit, 0);
    t.regex(absent.stderr, /^Cannot write the log to the journal at .*ENOENT.*Start systemd-journald/);
    await host.run(['sh', '-c', 'echo 1 > /proc/sys/net/unix/max_dgram_qlen']);
    const journal = await startJournal(t, host);
    await status();
    await until('it takes entries', async () => (await journalEntries(host)).length === 2);
    journal.kill('SIGSTOP');
    const outcomes: Outcome[] = [];
    for (let i = 0; i < 4; i++) outcomes.push(await status());
    t.true(outcomes.every(({ exit }) => exit === 0));
    t.regex(outcomes.at(-1)!.stderr, /^Cannot write the log to the journal at .*EAGAIN/);
    journal.kill('SIGCONT');
  }
});
