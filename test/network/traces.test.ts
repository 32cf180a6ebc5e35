/**
 * Spans of the agent, as a collector receives them, and metrics of what calls wait for and run.
 * Runs once: it starts an agent itself.
 */

import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { Attachment, attach, type Conflist } from '../support/chain.ts';
import type { ReceivedSpan } from '../support/collector.ts';
import { type Host, makeHost } from '../support/host.ts';
import { logEntries, logFile } from '../support/log.ts';
import { until } from '../support/observe.ts';
import { runPlugin, suites } from '../support/plugin.ts';

const command = join(suites.ours, 'cni');
const collector = join(import.meta.dirname, '../support/collector.ts');
const received = '/run/spans.jsonl';
const [traceId, spanId] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331'];
const TRACEPARENT = `00-${traceId}-${spanId}-01`;

const network: Conflist = {
  cniVersion: '1.1.0',
  name: 'tracenet',
  plugins: [
    {
      type: 'bridge',
      bridge: 'br0',
      ipMasq: true,
      ipMasqBackend: 'iptables',
      ipam: { type: 'host-local', subnet: '10.47.0.0/24' },
    },
  ],
};

/** Starts an agent that sends spans, and a collector that takes them. */
async function startTraced(
  t: ExecutionContext,
  { hasCollector = true, env = {} as Record<string, string>, options = [] as string[] } = {},
) {
  const host = await makeHost(t, { mayHaveAgent: false });
  if (hasCollector) await host.start(t, [process.execPath, '--no-warnings', collector, received]);
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const agent = await host.start(t, [
    'env',
    ...variables,
    'sh',
    '-c',
    `exec "$@" 2>/run/agent.err`,
    'sh',
    command,
    'agent',
    ...options,
  ]);
  const stop = async () => {
    agent.kill('SIGTERM');
    return await once(agent, 'exit');
  };
  return { host, stop };
}

const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:4318' };

function spansIn(host: Host): ReceivedSpan[] {
  if (!existsSync(host.file(received))) return [];
  // The last line may not be whole yet.
  const lines = readFileSync(host.file(received), 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as ReceivedSpan);
}

test("a call is a span of the runtime's trace, above those of its delegate and its programs", async (t) => {
  const env = { ...endpoint, OTEL_SERVICE_NAME: 'node-7', OTEL_EXPORTER_OTLP_HEADERS: 'x-token=abc' };
  const { host, stop } = await startTraced(t, { env });
  const args = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-1';
  const before = Date.now();
  const call = { args, env: { TRACEPARENT, TRACESTATE: 'vendor=x', CNI_LOG: logFile } };
  const { pod } = await attach(host, network, call);
  // On exit, the agent waits only two seconds for a collector.
  await until('the spans are sent', () => {
    const sent = spansIn(host).map(({ name }) => name);
    return ['bridge ADD', 'host-local ADD', 'iptables-restore'].every((name) => sent.includes(name));
  });
  t.deepEqual(await stop(), [0, null]);
  const spans = spansIn(host);
  const find = (name: string) => spans.find((span) => span.name === name)!;
  const [add, delegate, program] = [find('bridge ADD'), find('host-local ADD'), find('iptables-restore')];
  t.is(spans.filter(({ parentSpanId }) => parentSpanId === spanId).length, 1);
  t.is(add.parentSpanId, spanId);
  t.is(add.kind, 2);
  t.is(add.traceState, 'vendor=x');
  t.like(add.attributes, {
    'cni.plugin': 'bridge',
    'cni.command': 'ADD',
    'cni.network': 'tracenet',
    'container.id': pod.containerId,
    'network.interface.name': 'eth0',
    'k8s.namespace.name': 'shop',
    'k8s.pod.name': 'cart-1',
  });
  t.is(delegate.parentSpanId, add.spanId);
  t.is(delegate.kind, 1);
  t.is(program.parentSpanId, add.spanId);
  t.is(program.kind, 3);
  t.is(program.attributes['process.executable.name'], 'iptables-restore');
  for (const span of spans) {
    t.is(span.traceId, traceId);
    t.is(span.service, 'node-7');
    t.is(span.token, 'abc');
    t.true(span.start >= before - 1000 && span.end >= span.start && span.end <= Date.now() + 1000, span.name);
  }
  t.true(delegate.end - delegate.start <= add.end - add.start);
  const entries = await logEntries(host, 2);
  t.deepEqual(
    entries.map((entry) => [entry.plugin, entry.traceId, entry.spanId]),
    [
      ['host-local', traceId, delegate.spanId],
      ['bridge', traceId, add.spanId],
    ],
    'the log names the same spans',
  );
});

test('a failed call has its code, and what was undone', async (t) => {
  const { host, stop } = await startTraced(t, { options: ['--traces', 'http://127.0.0.1:4318/'] });
  const ipam = {
    type: 'static',
    addresses: [{ address: '10.45.0.2/24' }],
    routes: [{ dst: '10.46.0.0/16', gw: '10.99.0.1' }],
  };
  const failing = { ...network, plugins: [{ type: 'bridge', bridge: 'br1', ipam }] };
  const { error } = await new Attachment(host, await host.addPod(), failing, {
    env: { TRACEPARENT },
  }).tryAdd();
  await runPlugin(host, 'bridge', 'FROB', { config: '{"cniVersion":"1.1.0","name":"n","type":"bridge"}' });
  await until('the spans are sent', async () => spansIn(host).some(({ name }) => name === 'bridge other'));
  await stop();
  const spans = spansIn(host);
  const add = spans.find(({ name }) => name === 'bridge ADD')!;
  t.is(add.status, 2);
  t.is(add.message, error!.msg);
  t.is(add.attributes['error.type'], `${error!.code}`);
  t.is(add.service, 'cni-agent');
  t.deepEqual(add.events.map(({ name, attributes }) => [name, attributes['cni.undone.step']])[0], [
    'cni.undone',
    'run DEL of "static"',
  ]);
  t.is(add.events.length, 3);
  t.is(spans.find(({ name }) => name === 'static DEL')!.parentSpanId, add.spanId);
  const unknown = spans.find(({ name }) => name === 'bridge other')!;
  t.is(unknown.attributes['cni.command'], 'FROB');
  t.is(unknown.parentSpanId, '', 'a trace of its own');
  t.not(unknown.traceId, traceId);
});

test('a delegate in another executable continues the trace', async (t) => {
  const { host, stop } = await startTraced(t, { env: endpoint });
  const directory = '/run/foreign';
  mkdirSync(host.file(directory));
  const answer = '{"cniVersion":"1.1.0","ips":[{"address":"10.47.0.9/24"}]}';
  const script = `#!/bin/sh\ncat >/dev/null\necho $TRACEPARENT >>${directory}/seen\necho '${answer}'\n`;
  writeFileSync(host.file(`${directory}/elsewhere`), script);
  chmodSync(host.file(`${directory}/elsewhere`), 0o755);
  const { name, plugins, cniVersion } = network;
  const config = { ...plugins[0], name, cniVersion, ipam: { type: 'elsewhere' } };
  const call = { config, path: [suites.ours, directory] };
  const add = async (traceparent: string) => {
    const env = { TRACEPARENT: traceparent };
    const { exit, stdout } = await runPlugin(host, 'bridge', 'ADD', {
      ...call,
      pod: await host.addPod(),
      env,
    });
    t.is(exit, 0, stdout);
  };
  const unsampled = `00-${traceId}-${spanId}-00`;
  await add(TRACEPARENT);
  await add(unsampled);
  await add('rubbish');
  const isElsewhere = ({ name }: ReceivedSpan) => name === 'elsewhere ADD';
  await until('the spans are sent', async () => spansIn(host).filter(isElsewhere).length > 1);
  await stop();
  const spans = spansIn(host).filter(isElsewhere);
  t.is(spans.length, 2, 'what the runtime does not sample is not sent');
  t.is(spans[0]!.kind, 3);
  t.is(spans[0]!.attributes['process.executable.path'], `${directory}/elsewhere`);
  const [first, second, third] = readFileSync(host.file(`${directory}/seen`), 'utf8').split('\n');
  t.is(first, `00-${traceId}-${spans[0]!.spanId}-01`);
  t.is(second, unsampled);
  t.is(third, `00-${spans[1]!.traceId}-${spans[1]!.spanId}-01`);
  t.not(spans[1]!.traceId, traceId);
});

/** Starts a collector that takes connections, and never answers. */
async function startHangingCollector(t: ExecutionContext, host: Host): Promise<void> {
  const listen = 'socat TCP-LISTEN:4318,bind=127.0.0.1,fork,reuseaddr EXEC:"sleep 600"';
  await host.start(t, ['sh', '-c', `echo ready; exec ${listen}`]);
}

test('an agent that waits for its collector in the end keeps no launcher waiting', async (t) => {
  const { host, stop } = await startTraced(t, { hasCollector: false, env: endpoint });
  await startHangingCollector(t, host);
  await runPlugin(host, 'bridge', 'VERSION', { env: { TRACEPARENT } });
  const ended = stop();
  await sleep(300);
  const socket = connect(host.file('/run/cni/agent.sock'));
  socket.end('-\0-\0-\0@status\0\0');
  const [answer] = await once(socket, 'data');
  t.is(`${answer}`[0], 'R');
  t.deepEqual(await ended, [0, null]);
});

test('a collector that is down, or hangs, fails nothing, and is reported once', async (t) => {
  const down = await startTraced(t, { hasCollector: false, env: endpoint });
  const hanging = await startTraced(t, { hasCollector: false, env: endpoint });
  await startHangingCollector(t, hanging.host);
  for (const { host, stop } of [down, hanging]) {
    for (let i = 0; i < 5; i++) {
      const attachment = await attach(host, network, { env: { TRACEPARENT } });
      await attachment.del();
    }
    t.deepEqual(await stop(), [0, null]);
  }
});

test('trouble with the collector is told once a minute at most', async (t) => {
  const { host, stop } = await startTraced(t, {
    hasCollector: false,
    env: { ...endpoint, OTEL_EXPORTER_OTLP_TIMEOUT: '2000' },
  });
  const errors = () => readFileSync(host.file('/run/agent.err'), 'utf8');
  const version = () => runPlugin(host, 'bridge', 'VERSION', { env: { TRACEPARENT } });
  await version();
  await until('it is told', async () => errors() !== '');
  t.regex(errors(), /^Warning: Spans cannot be sent, and calls go on without: .*ECONNREFUSED.*\n$/);
  const told = errors();
  const refuse = `echo asked >>/run/asked; printf "HTTP/1.1 400 Bad Request\\r\\nContent-Length: 0\\r\\n\\r\\n"`;
  writeFileSync(host.file('/run/refuse'), `#!/bin/sh\n${refuse}\n`, { mode: 0o755 });
  const listen = 'TCP-LISTEN:4318,bind=127.0.0.1,fork,reuseaddr';
  await host.start(t, ['sh', '-c', `exec socat -d -d ${listen} EXEC:/run/refuse 2>&1`]);
  await version();
  await until('it is tried again', () => existsSync(host.file('/run/asked')));
  await stop();
  t.is(errors(), told);
});

test('what OpenTelemetry warns of is passed on as it is', async (t) => {
  const { host, stop } = await startTraced(t, { env: { ...endpoint, OTEL_EXPORTER_OTLP_TIMEOUT: 'soon' } });
  await stop();
  const said = readFileSync(host.file('/run/agent.err'), 'utf8');
  t.regex(said, /OTEL_EXPORTER_OTLP_TIMEOUT/);
  t.notRegex(said, /Spans cannot be sent/);
});

test('without a collector named, OpenTelemetry is not loaded; a URL that is none is refused', async (t) => {
  const { host, stop } = await startTraced(t, { env: { ...endpoint, OTEL_SDK_DISABLED: 'true' } });
  await runPlugin(host, 'bridge', 'VERSION', { env: { TRACEPARENT } });
  await stop();
  t.false(existsSync(host.file(received)));
  for (const url of ['127.0.0.1:4318', 'ftp://127.0.0.1', 'http://127.0.0.1/?x=y', '']) {
    const { exit, stderr } = await host.tryRun([command, 'agent', '--traces', url]);
    t.is(exit, 2, url);
    t.regex(stderr, /is not the URL of a collector\. Give one such as http:\/\/127\.0\.0\.1:4318/);
  }
});

test('metrics tell how long calls waited, and how long the programs ran that they started', async (t) => {
  const options = ['--metrics', '127.0.0.1:9464', '--concurrency', '1'];
  const { host, stop } = await startTraced(t, { hasCollector: false, options });
  const pods = await Promise.all([host.addPod(), host.addPod(), host.addPod()]);
  await Promise.all(pods.map((pod) => attach(host, network, { pod })));
  const text = await host.run(['curl', '-sf', 'http://127.0.0.1:9464/metrics']);
  const value = (name: string) =>
    Number(
      text
        .split('\n')
        .find((line) => line.startsWith(`${name} `))
        ?.split(' ')[1],
    );
  t.is(value('cni_agent_call_wait_seconds_count'), 3);
  t.true(value('cni_agent_call_wait_seconds_sum') > 0.001, 'two have waited for the first');
  t.true(value('cni_agent_program_duration_seconds_count{program="iptables-restore"}') >= 1);
  t.true(value('cni_agent_program_duration_seconds_sum{program="iptables-restore"}') > 0.0005);
  t.is(value('cni_agent_call_duration_seconds_count{plugin="bridge",verb="ADD"}'), 3);
  await stop();
});
