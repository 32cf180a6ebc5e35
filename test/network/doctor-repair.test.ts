/**
 * `cni doctor` tells attachments that `cni repair` repairs from those that must be made anew.
 * Runs once: it starts agents itself.
 */

import ava, { type ExecutionContext } from 'ava';
import type { PluginConf } from '../support/chain.ts';
import { answers, serveLines } from '../support/connection.ts';
import { bridged, examine, hostLocal, scene as hostWith, network, testFix } from '../support/doctor.ts';
import { ping } from '../support/observe.ts';
import { publish } from '../support/operator.ts';

/** One after the other: each starts many processes, and plugins that take too long are findings. */
const test = ava.serial;

const portmap = { type: 'portmap', capabilities: { portMappings: true } };
const nftPortmap = { ...portmap, backend: 'nftables' };
const pointToPoint = {
  type: 'ptp',
  ipMasq: true,
  ipam: { ...hostLocal('10.5.0.0/24'), routes: [{ dst: '0.0.0.0/0' }] },
};

/** A host with a neighbour, and a way to attach pods that answer on a port of the host. */
async function scene(t: ExecutionContext, ...plugins: PluginConf[]) {
  const { on, outside } = await hostWith(t, plugins.length > 0 ? network('net', ...plugins) : bridged);
  const serve = async (hostPort: number, args = '') => {
    const pod = await on.attach('net', { ...publish(hostPort), CNI_ARGS: args });
    await serveLines(t, pod, 80);
    return pod;
  };
  const isPublished = (hostPort: number) => answers(outside, '192.0.2.1', hostPort);
  return { on, serve, isPublished };
}

const asPod = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1';

for (const [title, checks, plugins, fault] of [
  ['rules of iptables', 'attachments', [], 'iptables -t nat -F'],
  ['a ruleset of nftables', 'attachments', [], 'nft flush ruleset'],
  ['rules of nftables', 'attachments', [pointToPoint, nftPortmap], 'nft flush ruleset'],
  ['the bridge', ['attachments', 'routes'], [], 'ip link del br0'],
  ['the route to a pod', 'routes', [pointToPoint, portmap], 'ip route del 10.5.0.2'],
] as const)
  test(`what the host has lost is for repair: ${title}`, async (t) => {
    const { on, serve, isPublished } = await scene(t, ...plugins);
    await serve(8080, asPod);
    await testFix(t, on, fault, checks, {
      subject: /^default\/web-1 /,
      command: /^cni repair default\/web-1$/,
      fixable: true,
      isWell: () => isPublished(8080),
    });
  });

test('--fix repairs all pods at once', async (t) => {
  const { on, serve, isPublished } = await scene(t);
  for (const port of [8080, 8081]) await serve(port);
  const rules = () => on.sh('iptables-save -t nat | grep "^-A"');
  const before = await rules();
  await on.sh('iptables -t nat -F');
  const { exit, found, fixes } = await examine(on, ['--fix']);
  t.deepEqual([exit, found, fixes.map(({ fixed }) => fixed)], [0, [], [true, true]]);
  t.is(await rules(), before);
  for (const port of [8080, 8081]) t.true(await isPublished(port));
});

test('what a pod has lost is for its runtime, whatever the host has lost', async (t) => {
  const { on } = await scene(t);
  const pod = await on.attach('net');
  const inPod = `nsenter --net=${pod.netns} ip`;
  for (const fault of [
    `${inPod} addr flush dev eth0`,
    `${inPod} addr flush dev eth0; iptables -t nat -F`,
    `${inPod} link del eth0; iptables -t nat -F`,
    `${inPod} route del default; iptables -t nat -F`,
  ])
    await testFix(t, on, fault, 'attachments', {
      subject: /on network "net"$/,
      command: /^cni del net \S+ && cni add net \S+$/,
      isWell: () => ping(pod, '192.0.2.2'),
    });
});

test('what could not be repaired is said', async (t) => {
  const { on } = await scene(t);
  await on.attach('net');
  await on.sh('ip addr del 10.5.0.1/24 dev br0; ip addr add 10.5.0.9/24 dev br0; iptables -t nat -F');
  const { exit, found, fixes } = await examine(on, ['--fix']);
  t.is(exit, 1);
  t.deepEqual(
    found.map(({ rule, fix }) => [rule, fix.split(' ').slice(0, 2).join(' ')]),
    [['attachments', 'cni repair']],
  );
  t.deepEqual(
    fixes.map(({ fixed }) => fixed),
    [false],
  );
  t.regex(fixes[0]!.failure!, /has address 10\.5\.0\.9\/24, but should have 10\.5\.0\.1\/24/);
});

test('another interface with the name of the bridge is nothing to repair', async (t) => {
  const { on } = await scene(t);
  await on.attach('net');
  await on.sh('ip link del br0; ip link add br0 up type ifb');
  const { found } = await examine(on);
  const { message, fix } = found.find(({ rule }) => rule === 'attachments')!;
  t.regex(message, /Interface "br0" is of kind "ifb", not a bridge/);
  t.notRegex(fix, /repair/);
});
