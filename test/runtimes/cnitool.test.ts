/**
 * cnitool, which is libcni with a command line, runs the sample networks; `cni` finishes what it began and
 * the other way round.
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { sample } from '../support/chain.ts';
import { type Host, makeHost } from '../support/host.ts';
import { ask, ping, reach, serve, snapshot } from '../support/observe.ts';
import { type PrintedResult, suites } from '../support/plugin.ts';
import { buildCnitool, NetworkTool } from './support/cnitool.ts';

let cnitool: string;
test.before(async () => {
  cnitool = await buildCnitool();
});

/**
 * Puts a sample network where the tools look. Debian's cnitool knows versions up to 1.0.0.
 * @returns its name.
 */
function install(host: Host, file: string): string {
  const network = { ...sample(file), cniVersion: '1.0.0' };
  mkdirSync(host.file('/etc/cni/net.d'), { recursive: true });
  writeFileSync(host.file(join('/etc/cni/net.d', file)), JSON.stringify(network));
  return network.name;
}

const firstIp = (result: string) => (JSON.parse(result) as PrintedResult).ips![0]!.address.split('/')[0]!;

for (const file of [
  '10-bridge.conflist',
  '20-ptp.conflist',
  '30-dual-stack.conflist',
  '50-tuning.conflist',
  '70-static.conflist',
  '80-firewall.conflist',
])
  test(`${file}: add, check, del`, async (t) => {
    const host = await makeHost(t);
    const network = install(host, file);
    const tool = new NetworkTool(host, cnitool);
    const warmUp = await host.addPod();
    await tool.run('add', network, warmUp.netns);
    await tool.run('del', network, warmUp.netns);
    const pod = await host.addPod();
    const before = await snapshot(host);

    const ip = firstIp(await tool.run('add', network, pod.netns));
    t.true(await ping(host, ip));
    await tool.run('check', network, pod.netns);
    await pod.run(['ip', 'addr', 'flush', 'dev', 'eth0']);
    t.not((await tool.try('check', network, pod.netns)).exit, 0, 'check sees that the address is gone');
    await tool.run('del', network, pod.netns);
    await tool.run('del', network, pod.netns);
    t.deepEqual(await snapshot(host), before);
  });

for (const [first, second] of [
  ['cnitool', 'cni'],
  ['cni', 'cnitool'],
] as const)
  test(`what ${first} adds, ${second} checks and deletes`, async (t) => {
    const host = await makeHost(t);
    const network = install(host, '10-bridge.conflist');
    const tools = {
      cnitool: new NetworkTool(host, cnitool),
      cni: new NetworkTool(host, join(suites.ours, 'cni')),
    };
    const ports = { portMappings: [{ hostPort: 18085, containerPort: 80, protocol: 'tcp' }] };
    const warmUp = await host.addPod();
    await tools[first].run('add', network, warmUp.netns, ports);
    await tools[first].run('del', network, warmUp.netns, ports);
    const pod = await host.addPod();
    const before = await snapshot(host);

    await tools[first].run('add', network, pod.netns, ports);
    await serve(t, pod, 'tcp', 80, 'pod');
    t.is((await reach(host, 'tcp', '10.88.0.1', 18085)).label, 'pod');
    await tools[second].run('check', network, pod.netns, ports);
    // DEL need not be told the ports: they are in the cached result.
    await tools[second].run('del', network, pod.netns);
    t.is(await ask(host, 'tcp', '10.88.0.1', 18085), undefined);
    t.deepEqual(await snapshot(host), before);
  });

test('the error of a plugin that fails is shown', async (t) => {
  const host = await makeHost(t);
  const network = install(host, '10-bridge.conflist');
  const tool = new NetworkTool(host, cnitool);
  const { exit, stderr } = await tool.try('add', network, '/run/netns/nowhere');
  t.is(exit, 1);
  t.regex(stderr, /"\/run\/netns\/nowhere"/);
});
