/** Runs once: no agent takes part. */

import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ava from 'ava';
import type { Conflist, PluginConf } from '../support/chain.ts';
import { end } from '../support/host.ts';
import { links, networkSnapshot, serve, until } from '../support/observe.ts';
import { makeOperator, type Operator, publish } from '../support/operator.ts';
import { outsideOf } from '../support/outside.ts';
import { suites } from '../support/plugin.ts';
import { portNet } from '../support/portmap.ts';

/** One after the other: each starts many processes, and limits of time decide what failed. */
const test = ava.serial;

interface Outcome {
  from: string;
  probe: string;
  to: string;
  state: 'ok' | 'failed' | 'untried';
  detail: string;
}

interface Probed {
  exit: number | string;
  probes: Outcome[];
}

/**
 * Probes up to five times, until what must be ok is: an answer that takes seconds, as on a busy machine, counts
 * as none.
 */
async function probe(on: Operator, isRight: (probed: Probed) => boolean, ...args: string[]): Promise<Probed> {
  let probed: Probed;
  let left = 5;
  do {
    const { exit, stdout, stderr } = await on.tryCni(['probe', '-o', 'json', ...args]);
    if (!stdout.startsWith('{')) throw new Error(`exit ${exit}: ${stdout}${stderr}`);
    probed = { exit, ...(JSON.parse(stdout) as { probes: Outcome[] }) };
  } while (!isRight(probed) && --left > 0);
  return probed;
}

const nothingFails = ({ exit }: Probed) => exit === 0;

const hostLocal = (subnet: string) => ({ type: 'host-local', subnet });
const alone = (name: string, plugin: PluginConf): Conflist => ({
  cniVersion: '1.1.0',
  name,
  plugins: [plugin],
});
const pointToPoint = alone('p2p', { type: 'ptp', ipMasq: true, ipam: hostLocal('10.6.0.0/24') });
const parented = alone('lan', { type: 'macvlan', master: 'wire', ipam: hostLocal('10.7.0.0/24') });

const of = (probes: readonly Outcome[], state: Outcome['state']) =>
  probes
    .filter((one) => one.state === state)
    .map(({ from, probe, to }) => `${from === 'host' || from === 'outside' ? from : 'pod'} ${probe} ${to}`);

test('pods of a bridge with published ports reach all that they should, and nothing is left', async (t) => {
  const on = await makeOperator(t, [portNet()]);
  await outsideOf(on.host);
  await on.attach('net', publish(8080));
  await on.attach('net', publish(8081, 'udp'));
  const before = await networkSnapshot(on.host);
  const { exit, probes } = await probe(on, nothingFails, 'net', '--to', '192.0.2.2');
  t.deepEqual(of(probes, 'failed'), []);
  t.is(exit, 0);
  const done = of(probes, 'ok');
  for (const one of [
    'pod gateway 10.5.0.1',
    'pod gateway fd00:5::1',
    'pod path MTU 10.5.0.1',
    'pod host 192.0.2.1',
    'pod host fd00:2::1',
    'outside port 8080/tcp 192.0.2.1:8080',
    'host port 8080/tcp 192.0.2.1:8080',
    'pod port 8080/tcp, hairpin 192.0.2.1:8080',
    'outside port 8080/tcp [fd00:2::1]:8080',
    'outside port 8081/udp 192.0.2.1:8081',
    'pod beyond 192.0.2.2',
  ])
    t.true(done.includes(one), `${one} of\n${done.join('\n')}`);
  for (const name of ['pod other pod', 'host pod'])
    t.is(done.filter((one) => one.startsWith(name)).length, 4, name);
  t.deepEqual([...new Set(of(probes, 'untried'))], ['pod DNS -']);
  t.deepEqual(await networkSnapshot(on.host), before);
  t.notRegex(await on.sh('ps -eo args'), new RegExp(`^${suites.ours}/cni probe-helper`, 'm'));
});

test('pods of ptp and macvlan: what the kernel does not let through is not tried', async (t) => {
  const on = await makeOperator(t, [pointToPoint, parented]);
  await outsideOf(on.host);
  for (const name of ['p2p', 'p2p', 'lan', 'lan']) await on.attach(name);
  const ptp = await probe(on, nothingFails, 'p2p');
  t.deepEqual([ptp.exit, of(ptp.probes, 'failed')], [0, []]);
  t.is(of(ptp.probes, 'ok').filter((one) => one.startsWith('pod other pod')).length, 2);
  const lan = await probe(on, nothingFails, 'lan');
  t.deepEqual([lan.exit, of(lan.probes, 'failed')], [0, []]);
  t.is(of(lan.probes, 'ok').filter((one) => one.startsWith('pod other pod')).length, 2);
  t.true(
    lan.probes.some(
      ({ probe, state, detail }) => probe === 'host' && state === 'untried' && /macvlan/.test(detail),
    ),
  );
});

for (const [title, fault, failing, working] of [
  [
    'rules of published ports that are flushed',
    'iptables -t nat -F',
    ['outside port 8080/tcp 192.0.2.1:8080'],
    ['pod gateway 10.5.0.1'],
  ],
  [
    'a firewall that drops what is forwarded',
    'iptables -P FORWARD DROP',
    ['outside port 8080/tcp 192.0.2.1:8080', 'pod beyond 192.0.2.2'],
    ['pod gateway 10.5.0.1', 'host port 8080/tcp 192.0.2.1:8080'],
  ],
  [
    'a bridge without its address',
    'ip addr del 10.5.0.1/24 dev br0',
    ['pod gateway 10.5.0.1'],
    ['pod gateway fd00:5::1'],
  ],
  [
    'a bridge that reflects nothing',
    'for p in /sys/class/net/br0/brif/*; do echo 0 > $p/hairpin_mode; done; iptables -t nat -D POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ',
    ['pod port 8080/tcp, hairpin 192.0.2.1:8080'],
    ['outside port 8080/tcp 192.0.2.1:8080'],
  ],
  [
    'a wire that is narrower than the pod',
    'ip link set dev wire mtu 1400',
    ['pod path MTU 192.0.2.2'],
    ['pod beyond 192.0.2.2', 'pod path MTU 10.5.0.1'],
  ],
] as const)
  test(`probe finds ${title}`, async (t) => {
    const on = await makeOperator(t, [portNet()]);
    await outsideOf(on.host);
    await on.attach('net', publish(8080));
    await on.sh(fault);
    const works = ({ probes }: Probed) => working.every((one) => of(probes, 'ok').includes(one));
    const { exit, probes } = await probe(on, works, 'net', '--to', '192.0.2.2');
    t.is(exit, 1);
    for (const one of failing)
      t.true(of(probes, 'failed').includes(one), `${one}: ${JSON.stringify(probes, null, 1)}`);
    for (const one of working)
      t.true(of(probes, 'ok').includes(one), `${one}: ${JSON.stringify(probes, null, 1)}`);
    if (fault.includes('mtu'))
      t.regex(
        probes.find(({ probe, to }) => probe === 'path MTU' && to === '192.0.2.2')!.detail,
        /packets of 1400 bytes arrive, those of 1450 do not/,
      );
    t.false((await links(on.host)).some(({ ifname }) => ifname.startsWith('probe')));
  });

test('a program that has the port is reached itself, and a port of one address by that alone', async (t) => {
  const on = await makeOperator(t, [portNet()]);
  await outsideOf(on.host);
  const pod = await on.attach('net', publish(8080));
  await serve(t, pod, 'tcp', 80, 'app');
  const busy = await on.attach('net', publish(8081, 'udp'));
  await serve(t, busy, 'udp', 80, 'app');
  await on.attach('net', publish(8082, 'tcp', '127.0.0.1'));
  const { exit, probes } = await probe(on, nothingFails, 'net');
  t.deepEqual([exit, of(probes, 'failed')], [0, []]);
  t.true(of(probes, 'ok').includes('outside port 8080/tcp 192.0.2.1:8080'));
  t.true(of(probes, 'untried').includes('pod port 8081/udp -'));
  t.deepEqual(
    of(probes, 'ok').filter((one) => one.includes(':8082')),
    ['host port 8082/tcp 127.0.0.1:8082'],
  );
});

test('a port that nothing outside can be put up to reach it from is not tried from there', async (t) => {
  const on = await makeOperator(t, [portNet()]);
  await outsideOf(on.host);
  for (const taken of ['203.0.113.0/24', '198.51.100.0/24', '198.18.0.0/15'])
    await on.host.run(['ip', 'route', 'add', 'blackhole', taken]);
  await on.attach('net', publish(8080));
  const { exit, probes } = await probe(on, nothingFails, 'net');
  t.deepEqual([exit, of(probes, 'failed')], [0, []]);
  t.true(of(probes, 'untried').includes('outside port 8080/tcp 192.0.2.1:8080'));
  t.true(of(probes, 'ok').includes('outside port 8080/tcp [fd00:2::1]:8080'));
});

test('a connection to a pod in which the probe cannot listen is not tried', async (t) => {
  const on = await makeOperator(t, [pointToPoint]);
  const pod = await on.attach('p2p');
  await pod.run(['sh', '-c', 'echo 40000 40000 > /proc/sys/net/ipv4/ip_local_port_range']);
  await serve(t, pod, 'tcp', 40000, 'app');
  const { stdout } = await on.tryCni(['probe', '-o', 'json', 'p2p']);
  const { probes } = JSON.parse(stdout) as { probes: Outcome[] };
  const toPod = probes.find(({ from, probe }) => from === 'host' && probe === 'pod');
  t.is(toPod?.state, 'untried');
  t.regex(toPod?.detail ?? '', /^the probe cannot listen there: /);
});

test('pods that the network keeps apart are not tried against one another', async (t) => {
  const [bridge] = portNet().plugins;
  const on = await makeOperator(t, [alone('net', { ...bridge!, portIsolation: true })]);
  await on.attach('net');
  await on.attach('net');
  const { exit, probes } = await probe(on, nothingFails, 'net');
  t.deepEqual([exit, of(probes, 'failed')], [0, []]);
  t.true(
    probes.some(
      ({ probe, state, detail }) =>
        probe === 'other pod' && state === 'untried' && /portIsolation/.test(detail),
    ),
  );
});

/** Answers every question with a response code, such as "no such name". Source: RFC 1035, section 4.1.1. */
const dnsServer = `
  const socket = require('dgram').createSocket('udp4');
  socket.on('message', (message, { port, address }) => {
    message[2] |= 0x80;
    message[3] = Number(process.argv[1]);
    socket.send(message, port, address);
  });
  socket.bind(53, () => console.log('ready'));
  process.stdin.resume().on('end', () => process.exit());`;

test('DNS servers are those of the process in the pod, of the result or of the command line', async (t) => {
  const ipam = { ...hostLocal('10.6.0.0/24'), routes: [{ dst: '0.0.0.0/0' }] };
  const given = { ...pointToPoint.plugins[0]!, ipam, dns: { nameservers: ['192.0.2.2'] } };
  const on = await makeOperator(t, [alone('p2p', given)]);
  const outside = await outsideOf(on.host);
  const pod = await on.attach('p2p');
  const dns = async (expected: RegExp, ...args: string[]) => {
    const find = ({ probes }: Probed) => probes.find((one) => one.probe === 'DNS')!;
    const isRight = (probed: Probed) => expected.test(`${find(probed).state} ${find(probed).detail}`);
    const probed = await probe(on, isRight, 'p2p', ...args);
    const { to, state, detail } = find(probed);
    return { exit: probed.exit, to, state, detail };
  };
  t.like(await dns(/^failed/), { exit: 1, to: '192.0.2.2', state: 'failed' });
  const server = await outside.start(t, [process.execPath, '-e', dnsServer, '3']);
  t.like(await dns(/^ok/), { exit: 0, to: '192.0.2.2', state: 'ok' });
  await end(server);
  await outside.start(t, [process.execPath, '-e', dnsServer, '2']);
  t.regex((await dns(/SERVFAIL/)).detail, /SERVFAIL/);
  t.like(await dns(/^failed/, '--dns', '192.0.2.99'), { exit: 1, to: '192.0.2.99', state: 'failed' });
  mkdirSync(on.host.file('/run/etc'));
  writeFileSync(on.host.file('/run/etc/resolv.conf'), 'search x\nnameserver 192.0.2.77\n');
  const container = 'mount --bind /run/etc /etc && echo ready && exec cat > /dev/null';
  await pod.start(t, ['unshare', '--mount', 'sh', '-c', container]);
  t.like(await dns(/^failed/), { to: '192.0.2.77', state: 'failed' });
});

test('probe that is killed leaves nothing behind', async (t) => {
  const on = await makeOperator(t, [portNet()]);
  await outsideOf(on.host);
  await on.attach('net', publish(8080));
  await on.sh('iptables -P FORWARD DROP; ip6tables -P FORWARD DROP');
  const before = await networkSnapshot(on.host);
  const hasOutside = async () => (await links(on.host)).some(({ ifname }) => ifname.startsWith('probe'));
  const [file, ...args] = [...on.host.enter, join(suites.ours, 'cni'), 'probe', 'net'];
  const child = spawn(file!, args, { env: on.env, stdio: 'ignore' });
  await until('the probe has made its place outside', hasOutside);
  child.kill('SIGKILL');
  await until('nothing is left', async () => !(await hasOutside()));
  t.deepEqual(await networkSnapshot(on.host), before);
});

test('what is not there, or not an address, is refused', async (t) => {
  const on = await makeOperator(t, [portNet()]);
  const unknown = await on.tryCni(['probe', 'nothing']);
  t.is(unknown.exit, 1);
  t.regex(unknown.stderr, /Nothing on this host is called "nothing"\. Give a network, a pod/);
  const empty = await on.tryCni(['probe', 'net']);
  t.is(empty.exit, 1);
  t.regex(empty.stderr, /Network "net" has no running pods/);
  for (const option of ['--to', '--dns']) {
    const usage = await on.tryCni(['probe', 'net', option, 'nowhere']);
    t.is(usage.exit, 2);
    t.regex(usage.stderr, new RegExp(`${option} is "nowhere"`));
  }
});
