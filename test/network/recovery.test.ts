/**
 * What a reboot, or a clock that is set, leaves on disk: state of containers that no longer exist is
 * recognized and collected, that of living ones never.
 */

import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { longestRelease } from '../../lib/firewall/claim-marks.ts';
import { Claims } from '../../lib/firewall/claims.ts';
import { Address } from '../../lib/ip.ts';
import { acquireLock } from '../../lib/kernel/lock.ts';
import { Attachment, attach, type Conflist, runNetworkVerb, suitePairs } from '../support/chain.ts';
import { end, type Host, makeHost, startAgent } from '../support/host.ts';
import { files, iptablesSave, link, ping, sysctl, until } from '../support/observe.ts';
import { type Suite, suites } from '../support/plugin.ts';
import { reboot } from '../support/reboot.ts';

const networks = '/var/lib/cni/networks';

function bridgeNet(keys: object = {}, cniVersion = '1.1.0'): Conflist {
  const ipam = { type: 'host-local', subnet: '10.41.0.0/24', ...keys };
  const bridge = { type: 'bridge', bridge: 'br0', isGateway: true, ipMasq: true, ipam };
  return { cniVersion, name: 'net', plugins: [bridge] };
}

/** The addresses that are reserved on network "net". */
function reserved(host: Host): string[] {
  return readdirSync(host.file(`${networks}/net`))
    .filter((name) => /^\d/.test(name))
    .sort();
}

/** Who holds an address, as its reservation says. */
function holder(host: Host, address: string): string {
  return readFileSync(host.file(`${networks}/net/${address}`), 'utf8').split('\r\n')[0]!;
}

async function attachSeveral(host: Host, network: Conflist, suite: Suite = 'ours'): Promise<Attachment[]> {
  const all = [];
  for (let i = 0; i < 3; i++) all.push(await attach(host, network, { suite }));
  return all;
}

test('after a reboot the first ADD releases what was reserved, and a full range has room again', async (t) => {
  const network = bridgeNet({ rangeStart: '10.41.0.10', rangeEnd: '10.41.0.12' });
  const before = await makeHost(t, { mayHaveAgent: false });
  await attachSeveral(before, network);
  const full = await new Attachment(before, await before.addPod(), network).tryAdd();
  t.regex(full.error!.msg, /No address is free in/);
  const after = await reboot(t, before, { mayHaveAgent: false });
  t.is(reserved(after).length, 3);
  const all = await attachSeveral(after, network);
  t.deepEqual(reserved(after), ['10.41.0.10', '10.41.0.11', '10.41.0.12']);
  for (const one of all) {
    t.is(holder(after, one.ip), one.pod.containerId);
    t.true(await ping(one.pod, '10.41.0.1'));
    await one.check();
    await one.del();
  }
  t.deepEqual(reserved(after), []);
});

test('an agent that starts after a reboot releases what was reserved, and nothing when it starts again', async (t) => {
  const before = await makeHost(t, { mayHaveAgent: false });
  await attachSeveral(before, bridgeNet());
  const after = await reboot(t, before, { mayHaveAgent: false });
  t.is(reserved(after).length, 3);
  const agent = await startAgent(t, after);
  await until('the reservations are released', async () => reserved(after).length === 0);
  const [one] = await attachSeveral(after, bridgeNet());
  await end(agent);
  const another = await startAgent(t, after);
  const late = await attach(after, bridgeNet());
  t.is(reserved(after).length, 4);
  await end(another);
  for (const living of [one!, late]) await living.check();
});

test('a container that starts again after a reboot under its old ID gets an address', async (t) => {
  const before = await makeHost(t);
  const { pod } = await attach(before, bridgeNet());
  const after = await reboot(t, before);
  const again = await attach(after, bridgeNet(), { containerId: pod.containerId });
  t.deepEqual(reserved(after), [again.ip]);
  const other = new Attachment(after, await after.addPod(), bridgeNet(), { containerId: pod.containerId });
  t.regex((await other.tryAdd()).error!.msg, /already has address/);
});

test('DEL after a reboot releases its own address, and the others go with the first ADD after it', async (t) => {
  const before = await makeHost(t, { mayHaveAgent: false });
  const [first, second, third] = (await attachSeveral(before, bridgeNet())) as [
    Attachment,
    Attachment,
    Attachment,
  ];
  const after = await reboot(t, before, { mayHaveAgent: false });
  const late = new Attachment(after, first.pod, bridgeNet());
  late.result = first.result;
  await late.del();
  t.deepEqual(reserved(after), [second.ip, third.ip].sort());
  const one = await attach(after, bridgeNet());
  t.deepEqual(reserved(after), [one.ip]);
});

test('an old reservation that cannot be removed after a reboot costs no living pod its own', async (t) => {
  const before = await makeHost(t, { mayHaveAgent: false });
  const [, stuck] = await attachSeveral(before, bridgeNet());
  const after = await reboot(t, before, { mayHaveAgent: false });
  // A mount point cannot be unlinked.
  const file = `${networks}/net/${stuck!.ip}`;
  await after.run(['mount', '--bind', file, file]);
  const living = await attachSeveral(after, bridgeNet());
  t.deepEqual(reserved(after), [stuck!.ip, ...living.map(({ ip }) => ip)].sort());
  for (const one of living) await one.check();
  await after.run(['umount', file]);
  const late = await attach(after, bridgeNet());
  for (const one of [...living, late]) t.is(holder(after, one.ip), one.pod.containerId);
});

test('what GC was told is valid after a reboot stays, also if something else cannot be removed', async (t) => {
  const before = await makeHost(t, { mayHaveAgent: false });
  const [valid, stuck] = await attachSeveral(before, bridgeNet());
  const after = await reboot(t, before, { mayHaveAgent: false });
  const file = `${networks}/net/${stuck!.ip}`;
  await after.run(['mount', '--bind', file, file]);
  const attachments = [{ containerID: valid!.pod.containerId, ifname: 'eth0' }];
  t.not((await runNetworkVerb(after, bridgeNet(), 'GC', { valid: attachments })).exit, 0);
  const one = await attach(after, bridgeNet());
  t.deepEqual(reserved(after), [valid!.ip, stuck!.ip, one.ip].sort());
});

test('after a reboot GC releases what was reserved but for what the runtime says is valid', async (t) => {
  const before = await makeHost(t);
  const old = await attachSeveral(before, bridgeNet());
  const after = await reboot(t, before, { mayHaveAgent: false });
  const valid = [{ containerID: old[1]!.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(after, bridgeNet(), 'GC', { valid })).exit, 0);
  t.deepEqual(reserved(after), [old[1]!.ip]);
  await attach(after, bridgeNet());
  t.true(reserved(after).includes(old[1]!.ip), 'what was valid then stays');
});

for (const [what, change] of [
  [
    'that the reference has reserved in since the reboot',
    async (host: Host) => void (await attach(host, bridgeNet({}, '1.0.0'), { suite: 'reference' })),
  ],
  [
    'whose index is of an older release',
    async (host: Host) => {
      const stamp = host.file(`${networks}/.owners/net/stamp`);
      const time = await host.run(['stat', '--format', '%.9Y', stamp]);
      writeFileSync(stamp, '');
      await host.run(['touch', '--date', `@${time.trim()}`, stamp]);
    },
  ],
  [
    'on a host that does not tell its boots apart',
    async (host: Host) => writeFileSync(host.file('/run/boot_id'), ''),
  ],
] as const)
  test(`no reservation is released but by GC in a directory ${what}`, async (t) => {
    const before = await makeHost(t, { mayHaveAgent: false });
    await attachSeveral(before, bridgeNet());
    const after = await reboot(t, before, { mayHaveAgent: false });
    await change(after);
    const kept = reserved(after);
    t.true(kept.length >= 3);
    const one = await attach(after, bridgeNet());
    t.deepEqual(reserved(after), [...kept, one.ip].sort());
    const valid = [{ containerID: one.pod.containerId, ifname: 'eth0' }];
    t.is((await runNetworkVerb(after, bridgeNet(), 'GC', { valid })).exit, 0);
    t.deepEqual(reserved(after), [one.ip]);
  });

for (const [first, second] of suitePairs)
  test(`${second === 'ours' ? 'this suite' : 'the reference'} takes over from the other after a reboot`, async (t) => {
    const network = bridgeNet({}, '1.0.0');
    const before = await makeHost(t);
    const old = await attachSeveral(before, network, first);
    const after = await reboot(t, before);
    const one = await attach(after, network, { suite: second });
    t.true(await ping(one.pod, '10.41.0.1'));
    for (const { pod, result } of old) {
      const gone = new Attachment(after, pod, network, { suite: second });
      gone.result = result;
      await gone.del();
    }
    t.deepEqual(reserved(after), [one.ip]);
    await one.del();
    t.deepEqual(reserved(after), []);
    t.notRegex((await iptablesSave(after)).join('\n'), /CNI-[0-9a-f]/);
  });

/** A network with all that keeps state, of which tuning's is on disk. */
const chain = {
  cniVersion: '1.1.0',
  name: 'net',
  plugins: [
    ...bridgeNet().plugins,
    { type: 'portmap', capabilities: { portMappings: true } },
    { type: 'firewall' },
    {
      type: 'tuning',
      dataDir: '/var/lib/cni/tuning',
      mac: '02:00:00:00:00:77',
      sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' },
    },
  ],
};

/** Runs `cni`, which keeps the same cache as libcni. */
function operate(host: Host, ...args: string[]): Promise<string> {
  const CAP_ARGS = JSON.stringify({ portMappings: [{ hostPort: 8080, containerPort: 80 }] });
  return host.run([join(suites.ours, 'cni'), ...args], { env: { CNI_PATH: suites.ours, CAP_ARGS } });
}

test('after a reboot "cni gc" removes results, backups, reservations and rules that were restored', async (t) => {
  const before = await makeHost(t);
  writeFileSync(before.file('/etc/cni/net.d/10-net.conflist'), JSON.stringify(chain));
  const pod = await before.addPod();
  await operate(before, 'add', 'net', pod.netns);
  const rules = await before.run(['iptables-save']);
  t.regex(rules, /CNI-DN-/);

  const names = Object.keys(files(before, '/var/lib/cni')).join('\n');
  for (const state of [/results\/net-cnitool-/, /tuning\/cnitool-.*json/, /networks\/net\/10\.41/])
    t.regex(names, state);

  const after = await reboot(t, before);
  // As netfilter-persistent does.
  await after.run(['iptables-restore'], { stdin: rules });
  const living = await after.addPod();
  await operate(after, 'add', 'net', living.netns);
  t.regex(await operate(after, 'gc', 'net'), /1 attachment removed, 1 kept/);
  await operate(after, 'check', 'net', living.netns);
  t.is(reserved(after).length, 1);
  t.is(readdirSync(after.file('/var/lib/cni/results')).length, 1);
  t.is(readdirSync(after.file('/var/lib/cni/tuning')).length, 1);

  await operate(after, 'del', 'net', living.netns);
  await operate(after, 'gc', 'net');
  for (const directory of ['results', 'tuning'])
    t.deepEqual(readdirSync(after.file(`/var/lib/cni/${directory}`)), []);
  t.deepEqual(reserved(after), []);
  t.notRegex(await after.run(['iptables-save']), /CNI-(?:DN-)?[0-9a-f]{8}|10\.41\.0\./);
});

test('tuning does not restore what an interface was like before a reboot', async (t) => {
  const network = { ...chain, plugins: [chain.plugins[0]!, chain.plugins[3]!] };
  const before = await makeHost(t);
  const { pod } = await attach(before, network);
  const after = await reboot(t, before);
  const again = await attach(after, network, { containerId: pod.containerId });
  const backup = () => readFileSync(after.file(`/var/lib/cni/tuning/${pod.containerId}_eth0.json`), 'utf8');
  const [own, tuned] = [(await link(again.pod, 'eth0'))!.address, '02:00:00:00:00:77'];
  t.is(own, tuned);
  const bare = new Attachment(
    after,
    again.pod,
    { ...network, plugins: [network.plugins[1]!] },
    again.options,
  );
  bare.result = again.result;
  const saved = (JSON.parse(backup()) as { mac: string }).mac;
  await bare.del();
  t.is((await link(again.pod, 'eth0'))!.address, saved, 'what it was like in this boot');
  t.is(await sysctl(again.pod, 'net/ipv4/conf/eth0/arp_filter'), '0');
  const old = readFileSync(before.file(`/var/lib/cni/tuning/${pod.containerId}_eth0.json`), 'utf8');
  t.not(saved, (JSON.parse(old) as { mac: string }).mac, 'not in the one before');
});

test("GC removes tuning's backups of earlier boots, whatever network they were for", async (t) => {
  const network = { ...chain, plugins: [chain.plugins[0]!, chain.plugins[3]!] };
  const before = await makeHost(t);
  await attach(before, { ...network, name: 'other' });
  const after = await reboot(t, before);
  const one = await attach(after, network);
  const valid = [{ containerID: one.pod.containerId, ifname: 'eth0' }];
  t.is(readdirSync(after.file('/var/lib/cni/tuning')).length, 2);
  t.is((await runNetworkVerb(after, network, 'GC', { valid })).exit, 0);
  t.deepEqual(readdirSync(after.file('/var/lib/cni/tuning')), [`${one.pod.containerId}_eth0.json`]);
});

for (const [what, offset] of [
  ['ten years back', -10],
  ['ten years ahead', 10],
] as const)
  test(`a clock that is set ${what} changes nothing for the living`, async (t) => {
    const host = await makeHost(t);
    const all = await attachSeveral(host, bridgeNet());
    // What was written before the clock was set has times of the old clock.
    const then = Math.round(Date.now() / 1000) - offset * 365 * 24 * 3600;
    await host.run(['find', '/var/lib/cni', '-exec', 'touch', '--date', `@${then}`, '{}', '+']);
    const late = await attach(host, bridgeNet());
    t.is(new Set([...all, late].map(({ ip }) => ip)).size, 4);
    t.is(reserved(host).length, 4);
    for (const one of [...all, late]) await one.check();
    const valid = [all[0]!, late].map(({ pod }) => ({ containerID: pod.containerId, ifname: 'eth0' }));
    t.is((await runNetworkVerb(host, bridgeNet(), 'GC', { valid })).exit, 0);
    t.deepEqual(reserved(host), [all[0]!.ip, late.ip].sort());
    for (const one of [...all, late]) await one.del();
    t.deepEqual(reserved(host), []);
  });

/** Makes this process see another time of day. Only one test may do so at a time. */
async function atAnotherTime<T>(offsetMs: number, work: () => Promise<T>): Promise<T> {
  const { now } = Date;
  Date.now = () => now() + offsetMs;
  try {
    return await work();
  } finally {
    Date.now = now;
  }
}

/** Whether a promise is kept within some time. */
const isKept = (promise: Promise<unknown>, ms: number) =>
  Promise.race([promise.then(() => true), sleep(ms).then(() => false)]);

const hour = 3_600_000;

test.serial('who waits for a lock goes on waiting when the clock is set', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'lock-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'lock');
  const held = await acquireLock(file);
  const waiting = acquireLock(file);
  await atAnotherTime(hour, () => sleep(100));
  held.close();
  (await waiting).close();
  const again = await acquireLock(file);
  const impatient = t.throwsAsync(acquireLock(file, 50), { message: /has held the lock/ });
  t.true(await atAnotherTime(-hour, () => isKept(impatient, 10_000)));
  again.close();
});

test.serial('who claims an address waits for its release, whatever the clock says', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'claims-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  t.teardown(() => rmSync(`${directory}.lock`, { force: true }));
  const claims = new Claims((message) => t.fail(message), directory);
  const address = Address.parse('10.41.0.9');
  const details = { backends: ['iptables'] } as const;
  const ids = ['one', 'two', 'three'].map((containerId) => ({ network: 'net', containerId, ifname: 'eth0' }));
  const [one, two, three] = ids as [(typeof ids)[0], (typeof ids)[0], (typeof ids)[0]];
  await claims.take(one, [address], details);
  let finish = () => {};
  const removing = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const release = claims.release(
    claims.of(one),
    { known: [], inUse: true, isHeld: () => false },
    () => removing,
  );
  await until('it is being released', async () =>
    readdirSync(directory).some((name) => name.endsWith('leaving')),
  );
  const second = claims.take(two, [address], details);
  await atAnotherTime(hour, async () => t.false(await isKept(second, 300)));
  finish();
  await release;
  t.true((await second).isNew);

  // Of a process that was killed nearly two minutes ago.
  const [file] = readdirSync(directory) as [string];
  const leaving = join(directory, file.replace(/json$/, 'leaving'));
  renameSync(join(directory, file), leaving);
  const then = Number(process.hrtime.bigint()) / 1e9 - (longestRelease - 10);
  utimesSync(leaving, then, then);
  const third = claims.take(three, [address], details);
  t.true(await atAnotherTime(-hour, () => isKept(third, 30_000)));
});
