/**
 * Port mappings where something is amiss: holders that no longer exist, programs that are killed or wait,
 * kernels that refuse.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, rmdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { fail } from '../proof/injection.ts';
import { Attachment, attach, type Conflist, pluginConfig, runNetworkVerb } from '../support/chain.ts';
import { logIptables } from '../support/firewall.ts';
import { type Host, makeHost } from '../support/host.ts';
import { files, iptablesSave, reach, serve, until } from '../support/observe.ts';
import { outsideOf } from '../support/outside.ts';
import { addEnvironment, type PrintedResult, suites } from '../support/plugin.ts';
import { portNet, ports } from '../support/portmap.ts';
import { cleanEnv } from '../support/run.ts';

const natRules = async (host: Host) => [
  ...(await iptablesSave(host, 'nat', 4)),
  ...(await iptablesSave(host, 'nat', 6)),
];
const mappingsOf = async (host: Host, port: number) =>
  (await host.run(['nft', '--stateless', 'list', 'ruleset']))
    .split('\n')
    .filter((line) =>
      new RegExp(`dport ${port} .*dnat|dport ${port} counter.*DNAT|dports ${port}\\b`).test(line),
    );

/** portmap alone, and the result of a plugin before it that gave the pod an address. */
const portmapOnly = (keys: object = {}, name = 'net'): Conflist => {
  const network = portNet(keys, name);
  return { ...network, plugins: network.plugins.slice(1) };
};
const resultFor = (netns: string, address: string): PrintedResult => ({
  cniVersion: '1.1.0',
  interfaces: [{ name: 'eth0', sandbox: netns }],
  ips: [{ address, interface: 0 }],
});

/**
 * @returns the environment that makes plugins use the older variant of iptables, with a lock of this host
 *   alone.
 */
async function legacy(host: Host): Promise<{ PATH: string }> {
  await host.run(['mkdir', '/run/legacy']);
  for (const name of ['iptables', 'ip6tables'])
    for (const suffix of ['', '-restore', '-save'])
      await host.run(['ln', '-s', '/usr/sbin/xtables-legacy-multi', `/run/legacy/${name}${suffix}`]);
  return { PATH: `/run/legacy:${cleanEnv.PATH}` };
}

/**
 * Has the kernel refuse ip6tables, as one started with "ipv6.disable=1" does.
 * @param error what it says to socket(2).
 */
async function refuseIpv6(host: Host, error: string): Promise<void> {
  for (const suffix of ['', '-restore', '-save']) {
    const file = `/run/legacy/ip6tables${suffix}`;
    const script = `#!/bin/sh
      exec strace -qq -o /dev/null -e inject=socket:error=${error} xtables-legacy-multi ip6tables${suffix} "$@"\n`;
    await host.run(['rm', '-f', file]);
    writeFileSync(host.file(file), script, { mode: 0o755 });
  }
}

/** Holds the lock of iptables. @returns a function that releases it. */
async function holdLock(t: ExecutionContext, host: Host): Promise<() => Promise<void>> {
  const holder = await host.start(t, ['flock', '/run/xtables.lock', 'sh', '-c', 'echo held; exec cat']);
  return async () => {
    const ended = once(holder, 'exit');
    holder.stdin!.end();
    await ended;
  };
}

for (const backend of ['iptables', 'nftables']) {
  test(`${backend}: the port of a container that no longer exists is free, that of a living one is not`, async (t) => {
    const host = await makeHost(t);
    const outside = await outsideOf(host);
    // A network renamed under a running pod: DEL comes under the new name, and the mapping stays.
    const stale = await attach(host, portNet({ backend }, 'old'), ports([8080, 80], [8081, 81, 'udp']));
    const living = await attach(host, portNet({ backend }), ports([8090, 80]));
    const tryPort = async (port: number) =>
      new Attachment(host, await host.addPod(), portNet({ backend }), ports([port, 80])).tryAdd();
    t.regex(
      (await tryPort(8080)).error?.msg ?? '',
      /8080\/tcp of the host is taken by container/,
      'it still exists',
    );
    await stale.pod.remove();
    const next = await attach(host, portNet({ backend }), ports([8080, 80]));
    await serve(t, next.pod, 'tcp', 80, 'next');
    t.like(await reach(outside, 'tcp', '192.0.2.1', 8080), { label: 'next' });
    t.deepEqual(await mappingsOf(host, 8081), [], 'its other mappings went with it');
    const refused = (await tryPort(8090)).error?.msg ?? '';
    t.regex(refused, new RegExp(`taken by container "${living.pod.containerId}"`));
    await living.check();
  });

  test(`${backend}: containers share a port by conditions, unless one no longer exists`, async (t) => {
    const host = await makeHost(t);
    const outside = await outsideOf(host);
    const [v4, v6] = [
      backend === 'iptables' ? '! -s' : 'ip saddr !=',
      backend === 'iptables' ? '! -s' : 'ip6 saddr !=',
    ];
    const conditions = {
      conditionsV4: `${v4} 203.0.113.0/24`.split(' '),
      conditionsV6: `${v6} 2001:db8::/32`.split(' '),
    };
    const network = portNet({ backend, ...conditions });
    const first = await attach(host, network, ports([8080, 80]));
    const second = await attach(host, network, ports([8080, 80]));
    for (const one of [first, second]) await one.check();
    await first.pod.remove();
    const next = await attach(host, network, ports([8080, 80]));
    await serve(t, second.pod, 'tcp', 80, 'second');
    t.like(await reach(outside, 'tcp', '192.0.2.1', 8080), { label: 'second' });
    for (const one of [second, next]) await one.check();
    for (const one of [second, next]) await one.del();
    t.deepEqual(await mappingsOf(host, 8080), []);
  });

  test(`${backend}: where nothing tells that a holder no longer exists, it holds; the runtime's cache tells`, async (t) => {
    const host = await makeHost(t);
    const holder = await attach(host, portNet({ backend }), ports([8080, 80]));
    await host.run([
      'sh',
      '-c',
      'rm -r /run/cni/portmap; mkdir /run/cni/portmap; echo "{" > /run/cni/portmap/torn.json',
    ]);
    await holder.pod.remove();
    const tryPort = async () =>
      new Attachment(host, await host.addPod(), portNet({ backend }), ports([8080, 81])).tryAdd();
    t.regex((await tryPort()).error?.msg ?? '', /8080\/tcp of the host is taken/);
    await host.run(['mkdir', '-p', '/var/lib/cni/results']);
    const { containerId, netns } = holder.pod;
    const cached = {
      kind: 'cniCacheV1',
      containerId,
      ifName: 'eth0',
      networkName: 'net',
      result: { interfaces: [{ name: 'eth0', sandbox: netns }] },
    };
    writeFileSync(host.file(`/var/lib/cni/results/net-${containerId}-eth0`), JSON.stringify(cached));
    t.is((await tryPort()).exit, 0);
  });

  test(`${backend}: a port that many want at once goes to one of them, and the others leave nothing`, async (t) => {
    const host = await makeHost(t);
    const pods = await Promise.all(Array.from({ length: 8 }, () => host.addPod()));
    const outcomes = await Promise.all(
      pods.map((pod, i) =>
        new Attachment(host, pod, portmapOnly({ backend }), ports([8080, 80], [8100 + i, 81])).tryAdd(
          {},
          resultFor(pod.netns, `10.5.0.${10 + i}/24`),
        ),
      ),
    );
    const taken = outcomes.filter(({ exit }) => exit === 0);
    t.is(taken.length, 1);
    for (const { error } of outcomes) if (error) t.regex(error.msg, /8080\/tcp of the host is taken/);
    for (const [i, { exit }] of outcomes.entries())
      t.is((await mappingsOf(host, 8100 + i)).length > 0, exit === 0, `mappings of number ${i}`);
  });

  test(`${backend}: an ADD that is undone leaves the mappings that it replaced`, async (t) => {
    const host = await makeHost(t);
    const pod = await host.addPod();
    const network = portmapOnly({ backend });
    const prevResult = resultFor(pod.netns, '10.5.0.2/24');
    t.is((await new Attachment(host, pod, network, ports([8080, 80])).tryAdd({}, prevResult)).exit, 0);
    const before = await mappingsOf(host, 8080);
    t.not(before.length, 0);
    const notes = files(host, '/run/cni/portmap');
    const again = { ...network.plugins[0]!, name: 'net', cniVersion: '1.1.0', prevResult };
    const runtimeConfig = ports([8080, 80], [8081, 81]).capabilities;
    const { exit } = await host.tryRun(['sh', '-c', '"$0" >/dev/full', join(suites.ours, 'portmap')], {
      env: addEnvironment(pod),
      stdin: JSON.stringify({ ...again, runtimeConfig }),
    });
    t.is(exit, 1);
    t.deepEqual([await mappingsOf(host, 8080), await mappingsOf(host, 8081)], [before, []]);
    t.deepEqual(files(host, '/run/cni/portmap'), notes);
  });

  test(`${backend}: an ADD that is undone leaves what it did not replace in the other family`, async (t) => {
    const host = await makeHost(t);
    const pod = await host.addPod();
    const network = portmapOnly({ backend });
    const [result, { ips }] = ['10.5.0.2/24', 'fd00:5::2/64'].map((one) => resultFor(pod.netns, one)) as [
      PrintedResult,
      PrintedResult,
    ];
    const prevResult = { ...result, ips: [...result.ips!, ...ips!] };
    t.is((await new Attachment(host, pod, network, ports([8080, 80])).tryAdd({}, prevResult)).exit, 0);
    const before = await mappingsOf(host, 8080);
    const on4 = ports([8080, 80, 'tcp', '192.0.2.1'], [8081, 81, 'tcp', '192.0.2.1']);
    const again = new Attachment(host, pod, network, { ...on4, isUnheard: true });
    t.not((await again.tryAdd({}, prevResult)).exit, 0);
    t.deepEqual([await mappingsOf(host, 8080), await mappingsOf(host, 8081)], [before, []]);
  });

  test(`${backend}: unfinished hints of a plugin that was killed go with DEL`, async (t) => {
    const host = await makeHost(t);
    const one = await attach(host, portNet({ backend }), ports([8080, 80]));
    // Processes have smaller numbers.
    const unfinished = `/run/cni/iptables/${'0'.repeat(64)}.json.${2 ** 22 + 1}.tmp`;
    await host.run(['sh', '-c', 'mkdir -p /run/cni/iptables; touch "$0"', unfinished]);
    await one.del();
    t.false(existsSync(host.file(unfinished)));
  });

  test(`${backend}: without a route to the container its port is mapped all the same`, async (t) => {
    const host = await makeHost(t);
    const pod = await host.addPod();
    const one = new Attachment(host, pod, portmapOnly({ backend }), ports([8080, 80]));
    const outcome = await one.tryAdd({}, resultFor(pod.netns, '10.99.0.2/24'));
    t.is(outcome.exit, 0, outcome.stdout);
    t.not((await mappingsOf(host, 8080)).length, 0);
  });

  test(`${backend}: with a read-only /proc/sys ports are mapped, and a warning says what does not work`, async (t) => {
    const host = await makeHost(t);
    await outsideOf(host);
    await host.run(['sh', '-c', 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys']);
    const pod = await host.addPod();
    const one = new Attachment(host, pod, portmapOnly({ backend }), ports([8080, 80]));
    const outcome = await one.tryAdd({}, resultFor(pod.netns, '192.0.2.9/24'));
    t.is(outcome.exit, 0, outcome.stdout);
    t.regex(outcome.stderr, /wire\/route_localnet/);
    t.not((await mappingsOf(host, 8080)).length, 0);
  });
}

test('GC looks at both backends', async (t) => {
  const host = await makeHost(t);
  await attach(host, portNet({ backend: 'nftables' }), ports([8080, 80]));
  await attach(host, portNet({ backend: 'iptables' }), ports([8081, 80]));
  t.is((await runNetworkVerb(host, portmapOnly(), 'GC', { valid: [] })).exit, 0);
  t.deepEqual([await mappingsOf(host, 8080), await mappingsOf(host, 8081)], [[], []]);
});

test('GC keeps the mappings of valid attachments, however long their names are', async (t) => {
  const host = await makeHost(t);
  const network = portNet({}, 'n'.repeat(172));
  const one = await attach(host, network, { ...ports([8080, 80]), containerId: 'a'.repeat(64) });
  const stale = await attach(host, network, { ...ports([8081, 80]), containerId: `${'a'.repeat(63)}b` });
  const before = await natRules(host);
  const valid = [one, stale].map(({ options }) => ({ containerID: options.containerId!, ifname: 'eth0' }));
  const gc = (keep: typeof valid) =>
    runNetworkVerb(host, { ...network, plugins: network.plugins.slice(1) }, 'GC', { valid: keep });
  t.is((await gc(valid)).exit, 0);
  t.deepEqual(await natRules(host), before);
  t.is((await gc(valid.slice(0, 1))).exit, 0);
  await one.check();
  t.notRegex((await natRules(host)).join('\n'), /8081/);
});

test('first attachments at once: shared rules are there once, and every pod has its own', async (t) => {
  const host = await makeHost(t);
  const pods = await Promise.all(Array.from({ length: 8 }, () => host.addPod()));
  const outcomes = await Promise.all(
    pods.map((pod, i) =>
      new Attachment(host, pod, portmapOnly(), ports([8100 + i, 80])).tryAdd(
        {},
        resultFor(pod.netns, `10.5.0.${10 + i}/24`),
      ),
    ),
  );
  t.deepEqual(outcomes.map(({ stdout, exit }) => (exit === 0 ? '' : stdout)).filter(Boolean), []);
  const rules = (await iptablesSave(host)).filter((rule) => rule.startsWith('-A'));
  t.deepEqual(rules.length, new Set(rules).size, 'none twice');
  t.is(rules.filter((rule) => /^-A CNI-HOSTPORT-DNAT/.test(rule)).length, 8);
});

test('ADD has iptables list no chain, and STATUS has it test a rule', async (t) => {
  const host = await makeHost(t);
  const env = await logIptables(host);
  const calls = async () =>
    (await host.run(['sh', '-c', 'cat /run/calls; : > /run/calls'])).trim().split('\n').filter(Boolean);
  await attach(host, portNet(), { ...ports([8080, 80]), env });
  t.not(Object.keys(files(host, '/run/cni/iptables')).length, 0, 'which rules are shared is kept in mind');
  await host.run(['sh', '-c', ': > /run/calls']);
  await attach(host, portNet(), { ...ports([8081, 80]), env });
  const added = await calls();
  t.deepEqual(
    added.map((call) => call.split(' ')[0]).sort(),
    ['ip6tables-restore', 'ip6tables-restore', 'iptables-restore', 'iptables-restore'],
    'one transaction a family for masquerading and one for ports',
  );
  // The host may have been tampered with: rules that were seen once are looked up again.
  await host.run(['iptables', '-t', 'nat', '-F', 'PREROUTING']);
  const third = await attach(host, portNet(), { ...ports([8082, 80]), env });
  t.is((await iptablesSave(host)).filter((rule) => /^-A PREROUTING/.test(rule)).length, 1);
  await third.check();
  await calls();
  for (const plugin of portNet().plugins) {
    const network = { ...portNet(), plugins: [plugin] };
    const { name, cniVersion } = network;
    const outcome = await host.tryRun([join(suites.ours, plugin.type)], {
      stdin: JSON.stringify(pluginConfig({ ...network, name, cniVersion }, plugin)),
      env: { CNI_COMMAND: 'STATUS', CNI_PATH: suites.ours, ...env },
    });
    t.is(outcome.exit, 0, outcome.stdout);
  }
  t.deepEqual(await calls(), Array(2).fill('iptables-restore --noflush --test --wait 30'));
});

test('a plugin that is killed while it waits for the lock of iptables adds no rules later', async (t) => {
  const host = await makeHost(t, { mayHaveAgent: false });
  const env = await legacy(host);
  const release = await holdLock(t, host);
  const pod = await host.addPod();
  const [plugin] = portmapOnly().plugins;
  const config = {
    ...pluginConfig(portmapOnly(), plugin!, ports([8080, 80]).capabilities),
    prevResult: resultFor(pod.netns, '10.5.0.9/24'),
  };
  const [file, ...args] = [...host.enter, join(suites.ours, 'portmap')] as unknown as [string, ...string[]];
  const child = spawn(file, args, {
    env: {
      ...cleanEnv,
      ...env,
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: pod.containerId,
      CNI_NETNS: pod.netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: suites.ours,
    },
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  child.stdin.end(JSON.stringify(config));
  // It is known to wait once it has noted whose port it maps.
  await until(
    'the plugin is at work',
    async () => (await host.tryRun(['ls', '/run/cni/portmap'])).stdout !== '',
  );
  await sleep(500);
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
  await release();
  await sleep(500);
  const rules = await host.run(['/usr/sbin/iptables-legacy-save', '-t', 'nat']);
  t.notRegex(rules, /CNI-/);
});

test('a held lock of iptables keeps nobody from looking, and ADD from nothing but its rules', async (t) => {
  const host = await makeHost(t);
  const env = await legacy(host);
  const one = await attach(host, portNet(), { ...ports([8080, 80]), env });
  const pod = await host.addPod();
  const release = await holdLock(t, host);
  const refused = await new Attachment(host, pod, portmapOnly(), { ...ports([8080, 81]), env }).tryAdd(
    {},
    resultFor(pod.netns, '10.5.0.9/24'),
  );
  t.regex(refused.error?.msg ?? '', /8080\/tcp of the host is taken/, 'which is found without the lock');
  const waiting = await new Attachment(host, pod, portmapOnly(), { ...ports([8081, 81]), env }).tryAdd(
    {},
    resultFor(pod.netns, '10.5.0.9/24'),
  );
  t.is(waiting.error?.code, 11);
  t.regex(waiting.error?.msg ?? '', /xtables\.lock/);
  await release();
  t.notRegex(await host.run(['/usr/sbin/iptables-legacy-save', '-t', 'nat']), /8081/);
  await one.check();
  await one.del();
});

test('a lock of iptables that cannot be opened fails ADD; one that is a link is for iptables to follow', async (t) => {
  const host = await makeHost(t);
  const env = await legacy(host);
  const pod = await host.addPod();
  const attachment = new Attachment(host, pod, portmapOnly(), { ...ports([8080, 80]), env });
  const lock = host.file('/run/xtables.lock');
  mkdirSync(lock);
  const refused = await attachment.tryAdd({}, resultFor(pod.netns, '10.5.0.9/24'));
  t.is(refused.error?.code, 5);
  t.is(
    refused.error?.msg,
    'Cannot lock "/run/xtables.lock". It is a directory where a file is expected. Remove it',
  );
  t.notRegex(await host.run(['/usr/sbin/iptables-legacy-save', '-t', 'nat']), /8080/);
  rmdirSync(lock);
  symlinkSync('elsewhere.lock', lock);
  t.is((await attachment.tryAdd({}, resultFor(pod.netns, '10.5.0.9/24'))).exit, 0);
  t.regex(await host.run(['/usr/sbin/iptables-legacy-save', '-t', 'nat']), /8080/);
});

test('calls of one process do not wait for each other when one of them cannot open the lock of iptables', async (t) => {
  const host = await makeHost(t);
  const env = await legacy(host);
  const pod = await host.addPod();
  const network = portmapOnly();
  const result = resultFor(pod.netns, '10.5.0.2/24');
  const both = { ...result, ips: [...result.ips!, { address: 'fd00:5::2/64', interface: 0 }] };
  const stdin = JSON.stringify({
    ...pluginConfig(network, network.plugins[0]!, ports([8080, 80]).capabilities),
    prevResult: both,
  });
  const start = { type: 'portmap', env: { ...addEnvironment(pod), ...env }, stdin };
  const lock = { call: 'openat', nth: 1, path: '/run/xtables.lock' };
  const { stdout } = await fail(host, start, lock, 'EMFILE');
  t.regex(
    (JSON.parse(stdout) as { msg: string }).msg,
    /xtables\.lock"\. The process has too many open files/,
  );
});

test('nftables: when the answer of the kernel gets lost, a failed ADD leaves no mapping', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  const network = portmapOnly({ backend: 'nftables' });
  const stdin = JSON.stringify({
    ...pluginConfig(network, network.plugins[0]!, ports([8080, 80]).capabilities),
    prevResult: resultFor(pod.netns, '10.5.0.2/24'),
  });
  let failures = 0;
  for (let nth = 1; ; nth++) {
    const start = { type: 'portmap', env: addEnvironment(pod), stdin };
    const { exit, stdout } = await fail(host, start, { call: 'recvfrom', nth }, 'EAGAIN');
    if (exit === 0) break;
    failures++;
    t.regex((JSON.parse(stdout) as { msg: string }).msg, /Cannot read the answer of the kernel/);
    t.deepEqual(await mappingsOf(host, 8080), [], `after failure ${nth}`);
  }
  t.true(failures > 5, `${failures} failures`);
  t.not((await mappingsOf(host, 8080)).length, 0);
});

test('iptables-legacy without IPv6 in the kernel: DEL without prevResult and GC clean up IPv4', async (t) => {
  const host = await makeHost(t);
  const env = await legacy(host);
  await refuseIpv6(host, 'EAFNOSUPPORT');
  const network = portNet({ backend: 'iptables' });
  network.plugins[0]!.ipam = { type: 'host-local', subnet: '10.5.0.0/24' };
  const attached = () => attach(host, network, { env, ...ports([8080, 80]) });
  const save = async () =>
    (await host.run(['iptables-legacy-save', '-t', 'nat'])).split('\n').filter((line) => /id: /.test(line));

  const one = await attached();
  t.not((await save()).length, 0);
  one.result = undefined;
  await one.del();
  t.deepEqual(await save(), []);

  await attached();
  t.is((await runNetworkVerb(host, network, 'GC', { valid: [], env })).exit, 0);
  t.deepEqual(await save(), []);

  // Anything else that keeps the rules out of sight is no reason to say that they are gone.
  await refuseIpv6(host, 'EIO');
  t.regex((await one.tryDel()).error?.msg ?? '', /ip6tables cannot list table "nat"/);
  t.regex((await runNetworkVerb(host, network, 'GC', { valid: [], env })).error?.msg ?? '', /ip6tables/);
});
