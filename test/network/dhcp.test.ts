import { spawn } from 'node:child_process';
import { join } from 'node:path';
import test from 'ava';
import { Attachment, attach, pluginConfig, runNetworkVerb, sample } from '../support/chain.ts';
import { daemon, dhcpd, dhcpNetwork, dhcpSample, dnsmasq } from '../support/dhcp.ts';
import { addresses, files, link, ping, routes, until } from '../support/observe.ts';
import { changed } from '../support/outside.ts';
import { runPlugin, suites } from '../support/plugin.ts';
import { cleanEnv } from '../support/run.ts';

const name = dhcpSample;

test('a pod gets address, gateway and routes from a real server, and gives them back', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside, '--dhcp-option=option:router,10.99.255.254');
  await daemon(t, host);
  const one = await attach(host, sample(name));
  t.regex(one.ip, /^10\.99\.1\.\d$/);
  t.deepEqual(await addresses(one.pod, 'eth0'), [`${one.ip}/16`]);
  t.is((await routes(one.pod)).find(({ dst }) => dst === 'default')?.gateway, '10.99.255.254');
  t.true(await ping(one.pod, '10.99.255.254'));
  t.regex(await server.leases(), new RegExp(one.ip));
  await one.check();
  const two = await attach(host, sample(name));
  t.not(two.ip, one.ip);
  await one.del();
  await one.del();
  await server.untilReleased(one.ip);
  // The server truncates the file before it rewrites it.
  await until('the other lease is kept', async () => (await server.leases()).includes(` ${two.ip} `));
  t.regex((await one.tryCheck()).error?.msg ?? '', /no lease/);
});

test("ISC's server grants, and takes back, as dnsmasq does", async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dhcpd(t, outside);
  await daemon(t, host);
  const one = await attach(host, sample(name));
  t.regex(one.ip, /^10\.99\.1\.\d$/);
  t.true(await ping(one.pod, '10.99.255.254'));
  t.regex(await server.leases(), new RegExp(`lease ${one.ip} [^}]*binding state active`));
  await one.check();
  await one.del();
  await until('the lease is free', async () => /binding state free/.test(await server.leases()));
});

test('classless routes, options to send and the metric', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(
    t,
    outside,
    '--dhcp-option=121,172.20.0.0/16,10.99.255.253,0.0.0.0/0,10.99.255.254',
  );
  await daemon(t, host);
  const ipam = {
    type: 'dhcp',
    request: [{ option: '121' }],
    provide: [{ option: 'host-name', fromArg: 'K8S_POD_NAME' }],
    priority: 50,
  };
  const one = await attach(host, changed(name, { ipam }), { args: 'IgnoreUnknown=1;K8S_POD_NAME=web' });
  const found = (await routes(one.pod)).map(({ dst, gateway, metric }) => [dst, gateway, metric]);
  t.deepEqual(found.filter(([, gateway]) => gateway).sort(), [
    ['172.20.0.0/16', '10.99.255.253', 50],
    ['default', '10.99.255.254', 50],
  ]);
  t.regex(await server.leases(), / web /);
});

test('routers come only where they are asked for, and a netmask always', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  await dhcpd(t, outside);
  await daemon(t, host);
  const attachWith = async (...request: object[]) => {
    const one = await attach(host, changed(name, { ipam: { type: 'dhcp', request } }));
    t.deepEqual(await addresses(one.pod, 'eth0'), [`${one.ip}/16`]);
    return (await routes(one.pod)).some(({ dst }) => dst === 'default');
  };
  t.true(await attachWith({ option: 'routers', skipDefault: true }));
  // Asked for nothing, the server would send all that it has.
  t.false(await attachWith({ skipDefault: true }));
});

test('a lease is renewed in time, also by a daemon that was started anew', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  // The lease is renewed after three seconds; two minutes are the least that dnsmasq grants.
  const server = await dnsmasq(t, outside, '--dhcp-option=option:T1,3', '--dhcp-option=option:T2,100');
  const first = await daemon(t, host);
  const one = await attach(host, sample(name));
  const expiry = async () => Number((await server.leases()).split(' ')[0]);
  const granted = await expiry();
  await until('the lease is renewed', async () => (await expiry()) > granted);
  await first.stop('SIGKILL');
  const second = await daemon(t, host);
  await one.check();
  const renewed = await expiry();
  await until('the lease is renewed again', async () => (await expiry()) > renewed);
  await one.del();
  await server.untilReleased(one.ip);
  await second.stop();
  t.deepEqual(
    Object.keys(files(host, '/run/cni')).filter((file) => file.includes('dhcp-leases')),
    [],
  );
});

test('a lease is renewed also where the container has moved its address, or uses the port itself', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside, '--dhcp-option=option:T1,3', '--dhcp-option=option:T2,100');
  await daemon(t, host);
  const { pod, ip } = await attach(host, sample(name));
  const expiry = async () => Number((await server.leases()).split(' ')[0]);
  const untilRenewed = async (what: string) => {
    const before = await expiry();
    await until(what, async () => (await expiry()) > before);
  };
  await pod.run([
    'sh',
    '-ec',
    `ip link add other type veth peer name end; ip link set other up; ip link set end up
    ip address delete ${ip}/16 dev eth0; ip address add ${ip}/16 dev other`,
  ]);
  await untilRenewed('the lease of a moved address is renewed');
  await pod.run(['sh', '-ec', `ip address delete ${ip}/16 dev other; ip address add ${ip}/16 dev eth0`]);
  await pod.start(t, ['sh', '-c', 'exec socat -d -d -u UDP4-RECV:68 OPEN:/dev/null 2>&1']);
  await untilRenewed('the lease is renewed beside another client');
  t.true((await server.leases()).includes(` ${ip} `));
});

test('a lease is renewed whatever firewall and routes the container has, and under another name of its interface', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside, '--dhcp-option=option:T1,3', '--dhcp-option=option:T2,100');
  const keeper = await daemon(t, host);
  const one = await attach(host, sample(name));
  const { pod } = one;
  const expiry = async () => Number((await server.leases()).split(' ')[0]);
  const untilRenewed = async (what: string) => {
    const before = await expiry();
    await until(what, async () => (await expiry()) > before);
  };
  const chains = ['input', 'output'].map(
    (hook) => `chain ${hook} { type filter hook ${hook} priority 0; policy drop; }`,
  );
  await pod.run(['nft', ['table ip closed {', ...chains, '}'].join('\n')]);
  await untilRenewed('the lease is renewed where the container lets nothing through');
  await pod.run(['nft', 'delete', 'table', 'ip', 'closed']);
  await pod.run(['ip', 'route', 'flush', 'table', 'main']);
  await untilRenewed('the lease is renewed where the container has no routes');
  await pod.run(['sh', '-ec', 'ip link set eth0 down; ip link set eth0 name other; ip link set other up']);
  await untilRenewed('the lease of a renamed interface is renewed');
  await runPlugin(host, 'dhcp', 'DEL', { pod, config: pluginConfig(one.network, one.network.plugins[0]!) });
  await server.untilReleased(one.ip);
  t.is(keeper.said(), '');
});

test('an address that somebody uses already is declined, and another one taken', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  await outside.run(['ip', 'route', 'add', 'default', 'dev', 'eth0']);
  await daemon(t, host);
  // A real server would find that out by itself, and offer another one.
  await outside.run(['ip', 'addr', 'add', '10.99.0.5/32', 'dev', 'eth0']);
  const server = await outside.start(t, [
    process.execPath,
    '--no-warnings',
    join(import.meta.dirname, '../support/dhcp-server.ts'),
    'used',
  ]);
  const asked: string[] = [];
  server.stdout!.on('data', (text: Buffer) => asked.push(...text.toString().trim().split('\n')));
  const one = await attach(host, sample(name));
  t.is(one.ip, '10.99.0.6');
  t.true(asked.includes('Decline 10.99.0.5'), asked.join(', '));
  await one.del();
  t.true(asked.indexOf('Request 10.99.0.5') < asked.indexOf('Decline 10.99.0.5'), asked.join(', '));
});

test('servers that are silent, talk garbage, refuse or leave the netmask out: an error in bounded time, and nothing is left', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  // The way that limited broadcasts go.
  await outside.run(['ip', 'route', 'add', 'default', 'dev', 'eth0']);
  await daemon(t, host, '-resendtimeout', '30s', '-resendmax', '200ms');
  const pod = await host.addPod();
  for (const [manner, code, message] of [
    ['silent', 11, /No DHCP server answered on "eth0" within 30 seconds/],
    ['garbage', 11, /No DHCP server answered/],
    ['nak', 999, /refused 3 times/],
    ['maskless', 999, /DHCP server 10\.99\.255\.254 grants 10\.99\.0\.5 with no netmask\. Have it send/],
  ] as const) {
    const server = await outside.start(t, [
      process.execPath,
      '--no-warnings',
      join(import.meta.dirname, '../support/dhcp-server.ts'),
      manner,
    ]);
    const outcome = await new Attachment(host, pod, sample(name)).tryAdd();
    t.is(outcome.error?.code, code, outcome.stdout);
    t.regex(outcome.error?.msg ?? '', message);
    t.is(await link(pod, 'eth0'), undefined);
    server.kill();
  }
  t.deepEqual(
    Object.keys(files(host, '/run/cni')).filter((file) => file.includes('dhcp-leases')),
    [],
  );
});

test('without the daemon ADD says what to start, STATUS is 51, and DEL goes through', async (t) => {
  const { host } = await dhcpNetwork(t);
  const one = new Attachment(host, await host.addPod(), sample(name));
  t.regex((await one.tryAdd()).error?.msg ?? '', /daemon does not answer .* Start it with "dhcp daemon"/);
  t.is((await runNetworkVerb(host, sample(name), 'STATUS')).error?.code, 51);
  await one.del();
});

test('the reference daemon on the socket is told apart', async (t) => {
  const { host } = await dhcpNetwork(t);
  await host.run(['mkdir', '-p', '/run/cni']);
  const child = spawn(host.enter[0]!, [...host.enter.slice(1), '/usr/lib/cni/dhcp', 'daemon'], {
    env: cleanEnv,
    stdio: 'ignore',
  });
  t.teardown(() => void child.kill('SIGKILL'));
  const hasSocket = async () => (await host.tryRun(['test', '-S', '/run/cni/dhcp.sock'])).exit === 0;
  await until('the daemon listens', hasSocket);
  const outcome = await new Attachment(host, await host.addPod(), sample(name)).tryAdd();
  t.regex(outcome.error?.msg ?? '', /that of the reference plugin/);
});

test('a stale socket does not keep the daemon from starting, a second daemon does not start', async (t) => {
  const { host } = await dhcpNetwork(t);
  const first = await daemon(t, host);
  await first.stop('SIGKILL');
  await daemon(t, host);
  const second = await host.tryRun([join(suites.ours, 'dhcp'), 'daemon']);
  t.not(second.exit, 0);
  t.regex(second.stdout + second.stderr, /Another daemon listens/);
  const wrong = await host.tryRun([join(suites.ours, 'dhcp'), 'daemon', '-resendmax', 'soon']);
  t.is(wrong.exit, 2);
  t.regex(wrong.stderr, /-resendmax is "soon"/);
});

test('GC gives back what no valid attachment owns', async (t) => {
  const { host, outside } = await dhcpNetwork(t);
  const server = await dnsmasq(t, outside);
  await daemon(t, host);
  const [kept, stale] = [await attach(host, sample(name)), await attach(host, sample(name))];
  const valid = [{ containerID: kept.pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, sample(name), 'GC', { valid })).exit, 0);
  await server.untilReleased(stale.ip);
  await until('the other lease is kept', async () => (await server.leases()).includes(` ${kept.ip} `));
});
