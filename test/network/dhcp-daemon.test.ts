/** The dhcp daemon in trouble, and the main plugins that ask it. */

import type { ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { Attachment, attach, type Conflist, pluginConfig, runNetworkVerb, sample } from '../support/chain.ts';
import {
  daemon,
  daemonInContainer,
  dhcpNetwork,
  dhcpSample,
  dnsmasq,
  startDnsmasq,
} from '../support/dhcp.ts';
import type { Host, Pod } from '../support/host.ts';
import { addresses, link, ping, routes, until } from '../support/observe.ts';
import { runPlugin, succeeded, suites } from '../support/plugin.ts';

const leaseFiles = (host: Host) => readdirSync(host.file('/run/cni/dhcp-leases'));

test('bridge: a pod gets its address by the bridge, and DEL releases it while the interface still exists', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  // The host's uplink becomes a port of the bridge.
  await host.run(['ip', 'link', 'add', 'br0', 'type', 'bridge']);
  await host.run(['ip', 'link', 'set', 'eth0', 'master', 'br0']);
  await host.run(['ip', 'link', 'set', 'br0', 'up']);
  const server = await dnsmasq(t, outside, '--dhcp-option=option:router,10.99.255.254');
  await daemon(t, host);
  const network: Conflist = {
    cniVersion: '1.1.0',
    name: 'dhcpbridge',
    plugins: [{ type: 'bridge', bridge: 'br0', ipam: { type: 'dhcp' } }],
  };
  const [one, two] = [await attach(host, network), await attach(host, network)];
  t.deepEqual(await addresses(one.pod, 'eth0'), [`${one.ip}/16`]);
  t.not(one.ip, two.ip);
  t.is((await routes(one.pod)).find(({ dst }) => dst === 'default')?.gateway, '10.99.255.254');
  t.true(await ping(one.pod, '10.99.255.254'));
  t.true(await ping(one.pod, two.ip));
  await one.check();

  // A second ADD of a living attachment is refused, and its lease stays.
  t.is((await new Attachment(host, one.pod, network).tryAdd()).exit, 1);
  t.regex(await server.leases(), new RegExp(` ${one.ip.replaceAll('.', '\\.')} `));
  t.true(await ping(one.pod, '10.99.255.254'));
  await one.check();

  await one.del();
  await server.untilReleased(one.ip);
  const release = new RegExp(`DHCPRELEASE\\(eth0\\) ${one.ip.replaceAll('.', '\\.')} `);
  await until('the server was told', async () => release.test(server.said()));
  // The server truncates the file before it rewrites it.
  await until('the other lease is kept', async () => (await server.leases()).includes(` ${two.ip} `));
  t.is(await link(one.pod, 'eth0'), undefined);
  t.is(leaseFiles(host).length, 1);
  await two.del();
  await server.untilReleased(two.ip);
  t.deepEqual(leaseFiles(host), []);
});

test('a daemon in a container listens on the host, and takes up the leases that it has there', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside);
  // A sandbox that was mounted before the container started.
  const pod = await host.addPod();
  const first = await daemonInContainer(t, host, '-hostprefix', '/mnt', '-broadcast=true', '-timeout=0');
  const one = await attach(host, sample(dhcpSample), { pod });
  t.is(leaseFiles(host).length, 1);
  await first.stop();
  await daemonInContainer(t, host, '-hostprefix', '/mnt');
  await one.check();
  await one.del();
  await server.untilReleased(one.ip);
  t.deepEqual(leaseFiles(host), []);
});

test('ptp: a server on the host end of the pair is asked, and told of DEL', async (t) => {
  const { host } = await dhcpNetwork(t);
  await daemon(t, host);
  const network: Conflist = {
    cniVersion: '1.1.0',
    name: 'dhcpptp',
    plugins: [{ type: 'ptp', ipam: { type: 'dhcp' } }],
  };
  const pod = await host.addPod();
  const one = new Attachment(host, pod, network);
  const adding = one.tryAdd();
  // The host end gets a random name, which a server there has to wait for.
  const isHostEnd = ({ ifname, linkinfo }: { ifname: string; linkinfo?: { info_kind?: string } }) =>
    linkinfo?.info_kind === 'veth' && ifname !== 'eth0';
  let hostEnd: string | undefined;
  await until('the pair is there', async () => {
    const links = JSON.parse(await host.run(['ip', '-j', '-d', 'link'])) as Parameters<typeof isHostEnd>[0][];
    hostEnd = links.find(isHostEnd)?.ifname;
    return hostEnd !== undefined;
  });
  await host.run(['ip', 'addr', 'add', '10.99.255.254/16', 'dev', hostEnd!]);
  const server = await startDnsmasq(
    t,
    host,
    '/run/leases-ptp',
    `--interface=${hostEnd}`,
    '--bind-interfaces',
    '--dhcp-option=option:router,10.99.255.254',
  );
  const outcome = await adding;
  t.is(outcome.exit, 0, outcome.stdout);
  t.regex(one.ip, /^10\.99\.1\.\d$/);
  t.true(await ping(pod, '10.99.255.254'));
  t.true(await ping(host, one.ip));
  await one.del();
  await server.untilReleased(one.ip);
  const release = new RegExp(`DHCPRELEASE\\(${hostEnd}\\) ${one.ip.replaceAll('.', '\\.')} `);
  await until('the server was told', async () => release.test(server.said()));
  t.deepEqual(leaseFiles(host), []);
});

test('a daemon that takes requests but does not answer: code 11 in bounded time, on every verb', async (t) => {
  const { host } = await dhcpNetwork(t);
  await host.run(['mkdir', '-p', '/run/cni']);
  await host.start(t, [
    process.execPath,
    '-e',
    'require("net").createServer(() => {}).listen("/run/cni/dhcp.sock", () => console.log("ready"))',
  ]);
  const config = {
    cniVersion: '1.1.0',
    name: 'net',
    type: 'x',
    ipam: { type: 'dhcp' },
    'cni.dev/valid-attachments': [],
  };
  const started = Date.now();
  await Promise.all(
    ['ADD', 'CHECK', 'DEL', 'STATUS', 'GC'].map(async (command) => {
      // The agent does the calls of one pod in turn.
      const pod = await host.addPod();
      const { error, stdout } = await runPlugin(host, 'dhcp', command, { pod, config });
      t.is(error?.code, 11, `${command}: ${stdout}`);
      t.regex(
        error?.msg ?? '',
        /DHCP daemon on "\/run\/cni\/dhcp.sock" has said nothing for 10 seconds/,
        command,
      );
    }),
  );
  t.true(Date.now() - started < 120_000);
});

test('a daemon that is restarted during ADD and DEL: code 11, and the next try succeeds', async (t) => {
  // An agent does the calls of one attachment one after the other.
  const { host, outside } = await dhcpNetwork(t, { mayHaveAgent: false });
  // Nobody answers yet.
  const keeper = await daemon(t, host);
  const one = new Attachment(host, await host.addPod(), sample(dhcpSample));
  const config = pluginConfig(one.network, one.network.plugins[0]!);
  const adding = one.tryAdd();
  await until('the daemon asks', async () =>
    (await one.pod.tryRun(['ip', '-j', 'link', 'show', 'eth0'])).stdout.includes('"UP"'),
  );
  // DEL waits for the ADD.
  const deleting = runPlugin(host, 'dhcp', 'DEL', { pod: one.pod, config });
  await until(
    'DEL has asked, too',
    async () => (await host.run(['ss', '-xH', 'state', 'established'])).split('dhcp.sock').length > 2,
  );
  await keeper.stop();
  for (const { error, stdout } of await Promise.all([adding, deleting])) {
    t.is(error?.code, 11, stdout);
    t.regex(error?.msg ?? '', /The DHCP daemon on "\/run\/cni\/dhcp\.sock" ended before it had answered/);
  }
  await dnsmasq(t, outside);
  await daemon(t, host);
  const outcome = await one.tryAdd();
  t.is(outcome.exit, 0, outcome.stdout);
  await one.del();
  t.deepEqual(leaseFiles(host), []);
});

test('a lease whose namespace is no longer one ends neither the daemon nor other renewals', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside, '--dhcp-option=option:T1,4', '--dhcp-option=option:T2,100');
  await daemon(t, host);
  const [broken, sound] = [await attach(host, sample(dhcpSample)), await attach(host, sample(dhcpSample))];
  const expiryOf = async ({ ip }: Attachment) =>
    Number(
      (await server.leases())
        .split('\n')
        .find((line) => line.includes(` ${ip} `))
        ?.split(' ')[0],
    );
  // A loop of symbolic links in its place. Lazily, because a renewal may have the namespace open.
  await host.run(['sh', '-c', `umount --lazy "$0" && ln -sfn "${broken.pod.name}" "$0"`, broken.pod.netns]);
  await until('the broken lease has ended', () => leaseFiles(host).length === 1);
  let granted = Number.NaN;
  // The server truncates the file before it rewrites it.
  await until('its lease is listed', async () => {
    granted = await expiryOf(sound);
    return granted > 0;
  });
  await until('the other one is renewed', async () => (await expiryOf(sound)) > granted);
  await sound.check();
  // DEL of the broken one goes through as well: the server takes the address back in time.
  t.is(
    (
      await runPlugin(host, 'dhcp', 'DEL', {
        pod: broken.pod,
        config: pluginConfig(broken.network, broken.network.plugins[0]!),
      })
    ).exit,
    0,
  );
  t.is(leaseFiles(host).length, 1);
  await sound.del();
  t.deepEqual(leaseFiles(host), []);
});

test('DEL does not wait for a renewal that gets no answer, and nothing brings the lease back', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside, '--dhcp-option=option:T1,3', '--dhcp-option=option:T2,100');
  await daemon(t, host);
  const one = await attach(host, sample(dhcpSample));
  await server.stop();
  await sleep(4000); // The renewal is under way.
  const again = await dnsmasq(t, outside, '--dhcp-option=option:T1,3', '--dhcp-option=option:T2,100');
  const started = Date.now();
  await one.del();
  t.true(Date.now() - started < 30_000);
  await again.untilReleased(one.ip);
  t.deepEqual(leaseFiles(host), []);
  await sleep(4000);
  t.deepEqual(leaseFiles(host), []);
  t.is(await again.leases(), '');
});

test('a lease that cannot be written down: ADD names the file, and the server has the address back', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside, '--dhcp-option=option:T1,4', '--dhcp-option=option:T2,100');
  await host.run(['mkdir', '-p', '/run/cni']);
  await host.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', '/run/cni']);
  const keeper = await daemon(t, host);
  const living = await attach(host, sample(dhcpSample));
  await host.run(['sh', '-c', 'cat /dev/zero > /run/cni/filler 2> /dev/null || true']);

  const failed = await new Attachment(host, await host.addPod(), sample(dhcpSample)).tryAdd();
  t.is(failed.error?.code, 5, failed.stdout);
  t.regex(
    failed.error?.msg ?? '',
    /Cannot write "\/run\/cni\/dhcp-leases\/[0-9a-f]+\.json"\. The file system is full\. Free space/,
  );
  await until('the address is released', async () => (await server.leases()).trim().split('\n').length === 1);
  // The living one is renewed all the same, and deleted.
  const expiry = async () => Number((await server.leases()).split(' ')[0]);
  const granted = await expiry();
  await until('the lease is renewed', async () => (await expiry()) > granted);
  await until('the daemon names the file', () => /Cannot write /.test(keeper.said()));
  t.is(leaseFiles(host).length, 1);
  await living.del();
  await server.untilReleased(living.ip);
  t.deepEqual(leaseFiles(host), []);
});

test('a result that nobody takes: the new lease is given back, one that was there before stays', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside);
  await daemon(t, host);
  const living = await attach(host, sample(dhcpSample));
  const add = (containerId: string) =>
    host.tryRun(['sh', '-c', '"$0" > /dev/full', join(suites.ours, 'dhcp')], {
      stdin: JSON.stringify(pluginConfig(living.network, living.network.plugins[0]!)),
      env: {
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: containerId,
        CNI_NETNS: living.pod.netns,
        CNI_IFNAME: 'eth0',
        CNI_PATH: suites.ours,
      },
    });
  t.not((await add(living.pod.containerId)).exit, 0);
  t.regex(await server.leases(), new RegExp(` ${living.ip.replaceAll('.', '\\.')} `));
  await living.check();
  t.not((await add('another')).exit, 0);
  t.is(leaseFiles(host).length, 1);
  // A release is not answered.
  await until(
    'the server has the new lease back',
    async () => (await server.leases()).trim().split('\n').length === 1,
  );
  t.is((await runNetworkVerb(host, living.network, 'STATUS')).exit, 0);
});

test('a server that takes an address back while it is renewed has the interface brought down', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const times = ['--dhcp-option=option:T1,4', '--dhcp-option=option:T2,100'];
  const server = await dnsmasq(t, outside, ...times);
  const keeper = await daemon(t, host);
  const one = await attach(host, sample(dhcpSample));
  await server.stop();
  // By then somebody else has the address. Servers broadcast their refusal.
  const other = `${Math.ceil(Date.now() / 1000) + 3600} 02:00:00:00:00:01 ${one.ip} * *`;
  await outside.run(['sh', '-c', `echo "$0" > /run/leases-${outside.name}`, other]);
  const again = await dnsmasq(t, outside, ...times);
  await until('the refusal', () => /DHCPNAK\(eth0\)/.test(again.said()));
  await until('the end of the lease', () => leaseFiles(host).length === 0);
  // Its output may be read only after the end of the lease is seen.
  const loss = new RegExp(`The DHCP server took address ${one.ip.replaceAll('.', '\\.')} back`);
  await until('the daemon says so', () => loss.test(keeper.said()));
  t.false((await link(one.pod, 'eth0'))!.flags.includes('UP'));
  const instead = /the DHCP server grants (10\.99\.1\.\d)\/16 in place of/;
  await until('the daemon says what it got instead', () => instead.test(keeper.said()));
  await again.untilReleased(instead.exec(keeper.said())![1]!);
});

/** Starts a server that misbehaves. @returns what it prints. */
async function misbehavingServer(t: ExecutionContext, outside: Pod, manner: string): Promise<() => string> {
  // The way that limited broadcasts go.
  await outside.run(['ip', 'route', 'add', 'default', 'dev', 'eth0']);
  const script = join(import.meta.dirname, '../support/dhcp-server.ts');
  const server = await outside.start(t, [process.execPath, '--no-warnings', script, manner]);
  let said = '';
  server.stdout!.on('data', (text: Buffer) => {
    said += text.toString();
  });
  return () => said;
}

test('a server that has forgotten what it granted is asked for the address again, and the interface stays up', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const asked = await misbehavingServer(t, outside, 'forgetful');
  const keeper = await daemon(t, host);
  const one = await attach(host, sample(dhcpSample));
  await until('it was asked again', () => /Discover 10\.99\.0\.5\nRequest 10\.99\.0\.5/.test(asked()));
  // It is renewed after that as well.
  await until('it was asked twice', () => (asked().match(/Discover 10\.99\.0\.5/g) ?? []).length > 1);
  t.regex(keeper.said(), /took address 10\.99\.0\.5 back/);
  t.notRegex(keeper.said(), /brought down/);
  t.true((await link(one.pod, 'eth0'))!.flags.includes('UP'));
  await one.check();
  await one.del();
  t.deepEqual(leaseFiles(host), []);
});

test('a server that renews without a netmask, and speaks of another address, renews the lease as it was', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const asked = await misbehavingServer(t, outside, 'terse');
  const keeper = await daemon(t, host);
  const one = await attach(host, sample(dhcpSample));
  await until('it was asked twice', () => (asked().match(/^Request$/gm) ?? []).length > 1);
  t.is(keeper.said(), '');
  // An ADD that is repeated prints what the lease has.
  const config = pluginConfig(one.network, one.network.plugins[0]!);
  const again = succeeded(await runPlugin(host, 'dhcp', 'ADD', { pod: one.pod, config }));
  t.deepEqual(again.result!.ips, [{ address: '10.99.0.5/16' }]);
});

/** Starts the daemon with a clock that says the host was booted so much earlier. */
async function daemonLater(t: ExecutionContext, host: Host, seconds: number): Promise<ChildProcess> {
  const later = `unshare --time --boottime ${seconds} --fork --kill-child`;
  return await host.start(t, ['sh', '-c', `echo ready; exec ${later} ${join(suites.ours, 'dhcp')} daemon`]);
}

test('a lease ends by the time since boot, unless the server grants its address once more', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside);
  const keeper = await daemon(t, host);
  const one = await attach(host, sample(dhcpSample));
  await keeper.stop();
  const [file] = leaseFiles(host);
  const expiry = () => {
    const text = readFileSync(host.file(`/run/cni/dhcp-leases/${file}`), 'utf8');
    return (JSON.parse(text) as { times: { expiresAt: number } }).times.expiresAt;
  };
  const granted = expiry();
  const later = await daemonLater(t, host, 3600);
  await until('it has been granted once more', () => expiry() > granted);
  t.true((await link(one.pod, 'eth0'))!.flags.includes('UP'));
  later.kill();
  await server.stop();

  await daemonLater(t, host, 7200);
  await until('the lease has ended', () => leaseFiles(host).length === 0);
  t.false((await link(one.pod, 'eth0'))!.flags.includes('UP'));
  // The daemon knows nothing of it any more: it asks the server for another one.
  await dnsmasq(t, outside);
  const config = pluginConfig(one.network, one.network.plugins[0]!);
  succeeded(await runPlugin(host, 'dhcp', 'ADD', { pod: one.pod, config }));
  t.is(leaseFiles(host).length, 1);
});

test('a lease of an earlier boot is forgotten, and what has the name of its sandbox now is left alone', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  await dnsmasq(t, outside);
  const keeper = await daemon(t, host);
  const one = await attach(host, sample(dhcpSample));
  await keeper.stop();
  const [name] = leaseFiles(host);
  const file = host.file(`/run/cni/dhcp-leases/${name}`);
  const lease = JSON.parse(readFileSync(file, 'utf8')) as object;
  writeFileSync(file, JSON.stringify({ ...lease, boot: '00000000-0000-0000-0000-000000000000' }));
  await daemonLater(t, host, 3600);
  await until('the lease has ended', () => leaseFiles(host).length === 0);
  t.true((await link(one.pod, 'eth0'))!.flags.includes('UP'));
});

/** Replaces a pod that is gone without DEL by another one, at the same path. */
async function replace({ pod }: Attachment, host: Host): Promise<void> {
  await pod.remove();
  await host.run(['ip', 'netns', 'add', pod.name]);
}

test("the lease of a lost pod leaves the pod alone that has the sandbox's path by now", async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside, '--dhcp-option=option:T1,4', '--dhcp-option=option:T2,100');
  const keeper = await daemon(t, host);
  const lost = await attach(host, sample(dhcpSample));
  await replace(lost, host);
  const next = await attach(host, sample(dhcpSample), { pod: lost.pod, containerId: 'next' });
  await until('the end of the lost lease', () => leaseFiles(host).length === 1);
  const gone = new RegExp(
    `interface "eth0" no longer exists, so the lease of ${lost.ip.replaceAll('.', '\\.')} is not renewed`,
  );
  await until('the daemon says so', () => gone.test(keeper.said()));
  await lost.del();
  t.notRegex(server.said(), /DHCPRELEASE/);
  t.deepEqual(await addresses(next.pod, 'eth0'), [`${next.ip}/16`]);
  await next.check();
  await next.del();
  await server.untilReleased(next.ip);
  t.deepEqual(leaseFiles(host), []);
  t.is(keeper.said().trim().split('\n').length, 1);
});

test("a lease that has ended leaves an interface up that is the next pod's", async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  await dnsmasq(t, outside);
  const keeper = await daemon(t, host);
  const lost = await attach(host, sample(dhcpSample));
  await keeper.stop();
  await replace(lost, host);
  await lost.pod.run(['ip', 'link', 'add', 'eth0', 'up', 'type', 'veth', 'peer', 'name', 'eth1']);
  await daemonLater(t, host, 3600);
  await until('the end of the lease', () => leaseFiles(host).length === 0);
  t.true((await link(lost.pod, 'eth0'))!.flags.includes('UP'));
});

test('a container that comes back under its old ID and path gets a lease of its own', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside);
  await daemon(t, host);
  const before = await attach(host, sample(dhcpSample));
  await replace(before, host);
  const asked = () => (server.said().match(/DHCPACK/g) ?? []).length;
  await until('the server was asked', () => asked() > 0);
  // A request that was sent twice may be answered twice.
  const once = asked();
  const again = await attach(host, sample(dhcpSample), { pod: before.pod });
  await until('the server was asked again', () => asked() > once);
  t.is(leaseFiles(host).length, 1);
  await again.del();
  t.deepEqual(leaseFiles(host), []);
});
