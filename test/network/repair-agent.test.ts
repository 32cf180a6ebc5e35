/** Runs once: it starts an agent itself. */

import { join } from 'node:path';
import test from 'ava';
import { statusOf } from '../support/agent.ts';
import { answers, serveLines } from '../support/connection.ts';
import { firewalld } from '../support/firewalld.ts';
import type { Host } from '../support/host.ts';
import { until } from '../support/observe.ts';
import { operatorOf } from '../support/operator.ts';
import { outsideOf } from '../support/outside.ts';
import { suites } from '../support/plugin.ts';

const command = join(suites.ours, 'cni');
const env = ['env', `CNI_PATH=${suites.ours}`];
const plugins = [
  {
    type: 'bridge',
    bridge: 'br0',
    isDefaultGateway: true,
    ipMasq: true,
    ipam: { type: 'host-local', subnet: '10.5.0.0/24' },
  },
  { type: 'portmap', capabilities: { portMappings: true } },
  { type: 'firewall' },
];

async function metric(host: Host, name: string): Promise<number> {
  const text = await host.run(['curl', '-sf', 'http://127.0.0.1:9464/metrics']);
  return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1]);
}

test('an agent repairs when it starts, and when firewalld has been reloaded or restarted', async (t) => {
  const operator = await operatorOf(t, plugins);
  const { host } = operator;
  const stop = await firewalld(t, host);
  const outside = await outsideOf(host);
  const [pod, other] = [await operator.add(8080), await operator.add(8081)];
  for (const one of [pod, other]) await serveLines(t, one, 80);
  const sources = () => host.run(['firewall-cmd', '--zone=trusted', '--list-sources']);
  const isLost = async () => !/CNI-DN-/.test(await host.run(['iptables-save', '-t', 'nat']));
  const isWhole = async () =>
    /10\.5\.0\.2\/32.*10\.5\.0\.3\/32|10\.5\.0\.3\/32.*10\.5\.0\.2\/32/.test(await sources()) &&
    !(await isLost());
  t.true(await isWhole());

  await host.run(['iptables', '-t', 'nat', '-F']);
  await host.run(['iptables', '-t', 'nat', '-X']);
  await host.start(t, [...env, command, 'agent', '--repair', '--metrics', '127.0.0.1:9464']);
  await until('what was lost before is repaired', isWhole);
  await until(
    'both are counted',
    async () => (await metric(host, 'cni_agent_attachments_repaired_total')) === 2,
  );

  await host.run(['iptables', '-t', 'nat', '-F']);
  await host.run(['firewall-cmd', '--reload']);
  await until('a reload is repaired', isWhole);
  await until(
    'both are counted',
    async () => (await metric(host, 'cni_agent_attachments_repaired_total')) === 4,
  );

  // Before firewalld ends, as its end is what the agent notices.
  await host.run(['iptables', '-t', 'nat', '-F']);
  await stop();
  await until(
    'its end is noticed',
    async () => (await metric(host, 'cni_agent_attachments_repaired_total')) === 6,
  );
  t.is(await metric(host, 'cni_agent_repair_failures_total'), 0);
  t.true(await answers(outside, '192.0.2.1', 8080));
  await operator.del(pod, 8080);
  await operator.del(other, 8081);
  await until('nothing is left', isLost);
});

test('an agent that repairs says so when nothing tells of reloads, and stays', async (t) => {
  const { host, attach } = await operatorOf(t, plugins);
  await attach('net', { CNI_CACHE_DIR: '/var/lib/cni/cache' });
  const refused = await host.tryRun([command, 'agent', '--repair', '--idle-timeout', '5']);
  t.is(refused.exit, 2);
  t.regex(refused.stderr, /--repair needs an agent that keeps running\. Leave out --idle-timeout/);
  for (const [option, value, said] of [
    ['idle-timeout', '2592000', 'is 2592000'],
    ['idle-timeout', '10m', 'is no number'],
    ['idle-timeout', '-5', 'is -5'],
    ['concurrency', '1.5', 'is 1.5'],
  ] as const) {
    const { exit, stderr } = await host.tryRun([command, 'agent', `--${option}`, value]);
    t.is(exit, 2, stderr);
    t.true(stderr.includes(`--${option} ${said}, but it must be one whole number from`), stderr);
  }
  const script = 'exec "$@" > /run/said 2>&1';
  const agent = host.tryRun(['sh', '-c', script, 'sh', ...env, command, 'agent', '--repair']);
  const said = async () => (await host.tryRun(['cat', '/run/said'])).stdout;
  for (const what of [
    'Warning: Bridge "br0" has ',
    '0 attachments repaired, 0 intact, 1 not recorded and not looked at.',
    'The system bus is out of reach, so that reloads of firewalld are not noticed',
  ])
    await until(`it says "${what}"`, async () => (await said()).includes(what));
  await host.run(['kill', `${(await statusOf(host)).pid}`]);
  t.is((await agent).exit, 0, await said());
});
