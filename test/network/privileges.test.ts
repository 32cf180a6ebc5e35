/**
 * Privileges: docs/privileges.json is true, in both directions; the agent and the DHCP daemon work with what
 * their units leave them, and not with less; the units are as closed as the docs say.
 * Runs once: it starts an agent itself.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { callsOf } from '../support/agent.ts';
import { Attachment, attach, type Conflist, runNetworkVerb } from '../support/chain.ts';
import { dhcpNetwork, dhcpSample, dnsmasq } from '../support/dhcp.ts';
import { useLegacyIptables } from '../support/firewall.ts';
import { type Host, makeHostWithDevices } from '../support/host.ts';
import { OpenVswitch } from '../support/open-vswitch.ts';
import { changed } from '../support/outside.ts';
import { type Outcome, suites } from '../support/plugin.ts';
import {
  guestSubjects,
  Privileged,
  type Privileges,
  setpriv,
  subjects,
  verbs,
} from '../support/privileges.ts';
import { run } from '../support/run.ts';

const root = join(import.meta.dirname, '../..');
const privileges = JSON.parse(readFileSync(join(root, 'docs/privileges.json'), 'utf8')) as Privileges;
const page = readFileSync(join(root, 'docs/privileges.md'), 'utf8');

/** Each set with one capability left out. */
const withOneFewer = (names: readonly string[]) =>
  names.map((missing) => ({ missing, rest: names.filter((name) => name !== missing) }));

function refusesFor(t: ExecutionContext, { exit, error, stdout, stderr }: Outcome, missing: string): void {
  t.is(exit, 1, `without ${missing}: ${stdout}${stderr}`);
  t.regex(error?.msg ?? '', new RegExp(`\\b${missing}\\b`));
  t.notRegex(stdout + stderr, /\n\s+at /);
}

for (const subject of subjects)
  test(`${subject.name}: each verb works with what is written, and names what is missing`, async (t) => {
    const one = await Privileged.prepare(t, subject);
    for (const verb of verbs) {
      const needed = privileges[subject.name]![verb]!;
      const exact = await one.attempt(verb, needed);
      if (!exact.works) t.log(JSON.stringify(exact.pictures));
      t.true(exact.works, `${verb} with ${needed}: ${exact.outcome.stdout}${exact.outcome.stderr}`);
      for (const { missing, rest } of withOneFewer(needed)) {
        const { works, outcome, pictures } = await one.attempt(verb, rest);
        t.false(works, `${verb} works without ${missing}`);
        refusesFor(t, outcome, missing);
        t.deepEqual(pictures[1], pictures[0], `${verb} without ${missing} left something`);
      }
    }
  });

test('the table has a row of every verb for what is tried, here and in a guest, and for nothing else', (t) => {
  const names = [...subjects, ...guestSubjects].map(({ name }) => name);
  for (const { name } of subjects) t.true(name in privileges, name);
  for (const [name, row] of Object.entries(privileges)) {
    t.true(names.includes(name), name);
    t.deepEqual(Object.keys(row), [...verbs], name);
  }
});

/** A directive of a unit. */
function directive(unit: string, name: string): string[] {
  const text = readFileSync(join(root, 'conf/systemd', unit), 'utf8');
  const value = new RegExp(`^${name}=(.*)$`, 'm').exec(text)?.[1] ?? '';
  return value.split(' ').filter(Boolean).sort();
}

const agentCapabilities = directive('cni-agent.service', 'CapabilityBoundingSet');
const daemonCapabilities = directive('cni-dhcp.service', 'CapabilityBoundingSet');

/**
 * Capabilities that are in no row: for the socket of a database that runs as another user, for a sandbox
 * below /proc, and for iptables-legacy, which loads modules itself.
 */
const further = ['CAP_DAC_OVERRIDE', 'CAP_SYS_PTRACE', 'CAP_SYS_MODULE'];

/** What dnsmasq needs, which systemd runs in a service of its own if the agent is a service. */
const ofNameServer = ['CAP_NET_BIND_SERVICE', 'CAP_SETGID'];

test("the agent's unit leaves it what plugins take, and what is needed on some hosts", (t) => {
  const taken = new Set(
    Object.entries(privileges).flatMap(([name, row]) =>
      verbs
        .flatMap((verb) => row[verb] ?? [])
        .filter((one) => name !== 'dnsname' || !ofNameServer.includes(one)),
    ),
  );
  t.deepEqual(agentCapabilities, [...new Set([...taken, ...further])].sort());
});

/** Everything that an agent on a host is asked for. */
const network: Conflist = {
  cniVersion: '1.1.0',
  name: 'net',
  plugins: [
    {
      ...{ type: 'bridge', bridge: 'br0', isGateway: true, ipMasq: true, macspoofchk: true },
      ipam: { type: 'host-local', subnet: '10.44.0.0/24', routes: [{ dst: '0.0.0.0/0' }] },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
    { type: 'firewall' },
    { type: 'bandwidth', ingressRate: 1e6, ingressBurst: 1e6, egressRate: 1e6, egressBurst: 1e6 },
    { type: 'tuning', mtu: 1400 },
  ],
};
const capabilities = { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'udp' }] };

/** A host with an agent that has fewer capabilities, and a sandbox below /proc of a process with all. */
async function hostWithAgent(t: ExecutionContext, names: readonly string[]) {
  const host = await makeHostWithDevices(t, { mayHaveAgent: false });
  await host.start(t, [...setpriv(names), join(suites.ours, 'cni'), 'agent']);
  return { host, ...(await podOfProcess(t, host)) };
}

/** A pod that is named by a process in it, which has all capabilities. */
async function podOfProcess(t: ExecutionContext, host: Host) {
  const pod = await host.addPod();
  const { pid } = await pod.start(t, ['sh', '-c', 'echo ready; exec sleep 1000']);
  return { pod, netns: `/proc/${pid}/ns/net` };
}

test('the agent does every call with what its unit leaves it', async (t) => {
  const { host, pod, netns } = await hostWithAgent(t, agentCapabilities);
  const one = await attach(host, network, { pod, netns, capabilities });
  await one.check();
  t.is((await runNetworkVerb(host, network, 'STATUS')).exit, 0);
  const valid = [{ containerID: pod.containerId, ifname: 'eth0' }];
  t.is((await runNetworkVerb(host, network, 'GC', { valid })).exit, 0);
  await one.check();
  await one.del();
  t.is(await callsOf(host), 6 * network.plugins.length);
});

for (const missing of ['CAP_NET_ADMIN', 'CAP_SYS_ADMIN'])
  test(`an agent without ${missing} says so`, async (t) => {
    const names = agentCapabilities.filter((name) => name !== missing);
    const { host, pod, netns } = await hostWithAgent(t, names);
    const failed = t.throwsAsync(attach(host, network, { pod, netns, capabilities }));
    t.regex((await failed)?.message ?? '', new RegExp(`\\b${missing}\\b`));
    t.is(await callsOf(host), 1);
  });

test('an agent without CAP_SYS_PTRACE says so, and takes no call of a process with more capabilities', async (t) => {
  const names = agentCapabilities.filter((name) => name !== 'CAP_SYS_PTRACE');
  const host = await makeHostWithDevices(t, { mayHaveAgent: false });
  const agent = [...setpriv(names), join(suites.ours, 'cni'), 'agent'].join(' ');
  await host.start(t, ['sh', '-c', `exec ${agent} 2>/run/agent.log`]);
  await (await attach(host, network, { capabilities })).del();
  t.is(await callsOf(host), 0);
  t.regex(
    readFileSync(host.file('/run/agent.log'), 'utf8'),
    /may not see the namespaces of process \d+, .*\. Grant the agent CAP_SYS_PTRACE$/m,
  );
});

test('an agent without CAP_NET_RAW says so where iptables is the legacy one, which works with it', async (t) => {
  const { plugins, ...rest } = network;
  const legacy = { ...rest, plugins: [{ ...plugins[0]!, ipMasqBackend: 'iptables', macspoofchk: false }] };
  for (const names of [agentCapabilities, agentCapabilities.filter((name) => name !== 'CAP_NET_RAW')]) {
    const { host, pod, netns } = await hostWithAgent(t, names);
    await useLegacyIptables(host);
    const { exit, error } = await new Attachment(host, pod, legacy, { netns }).tryAdd();
    t.is(await callsOf(host), 1);
    if (names === agentCapabilities) t.is(exit, 0, error?.msg);
    else t.regex(error?.msg ?? '', /\bCAP_NET_RAW\b/);
  }
});

test('the agent reaches a database of Open vSwitch that runs as another user, and otherwise says what it lacks', async (t) => {
  const ipam = { type: 'host-local', subnet: '10.46.0.0/24' };
  const ovs = { type: 'ovs', bridge: 'br1', link_state_check_retries: 50, ipam };
  const network = { cniVersion: '1.1.0', name: 'net', plugins: [ovs] };
  const add = async (names: readonly string[]) => {
    const { host, pod } = await hostWithAgent(t, names);
    const openVswitch = await OpenVswitch.start(t, host);
    // As in the packages of Fedora and RHEL.
    await host.run(['chown', 'nobody', '/run/openvswitch/db.sock']);
    await host.run(['chmod', '0750', '/run/openvswitch/db.sock']);
    const outcome = await new Attachment(host, pod, network).tryAdd();
    t.is(await callsOf(host), 1);
    return { outcome, ports: await openVswitch.ports() };
  };
  const { outcome, ports } = await add(agentCapabilities);
  t.is(outcome.exit, 0, outcome.stdout);
  t.is(ports.length, 1);
  const refused = await add(agentCapabilities.filter((name) => name !== 'CAP_DAC_OVERRIDE'));
  t.is(refused.outcome.error?.code, 999);
  t.regex(refused.outcome.error!.msg, /is denied\..* lacks CAP_DAC_OVERRIDE/);
  t.deepEqual(refused.ports, []);
});

/** Where the output of the DHCP daemon of {@link hostWithDaemon} goes. */
const daemonLog = '/run/daemon.log';

/** A host with a server outside and the DHCP daemon, which has fewer capabilities. */
async function hostWithDaemon(t: ExecutionContext, names: readonly string[], before = '') {
  const { host, outside } = await dhcpNetwork(t);
  await dnsmasq(t, outside);
  const daemon = [
    'setpriv',
    '--pdeathsig',
    'KILL',
    '--',
    ...setpriv(names),
    join(suites.ours, 'dhcp'),
    'daemon',
  ].join(' ');
  const isThere = 'while ! [ -S /run/cni/dhcp.sock ]; do sleep 0.02; done; echo ready; wait';
  await host.start(t, ['sh', '-c', `${before} ${daemon} 2>${daemonLog} & ${isThere}`]);
  return { host, said: () => readFileSync(host.file(daemonLog), 'utf8') };
}

/**
 * A lease for an interface that the daemon has to bring up, in the sandbox of a process with all
 * capabilities.
 */
async function attachByDaemon(t: ExecutionContext, host: Host) {
  const { pod, netns } = await podOfProcess(t, host);
  const macvlan = ['ip', 'link', 'add', 'link', 'eth0', 'name', 'm0', 'netns', pod.name, 'type', 'macvlan'];
  await host.run(macvlan);
  const alone = { type: 'dhcp', ipam: { type: 'dhcp' } };
  return attach(host, { cniVersion: '1.1.0', name: 'net', plugins: [alone] }, { pod, netns, ifname: 'm0' });
}

test('the DHCP daemon works with what its unit leaves it, in a mount namespace of its own', async (t) => {
  const ownMounts = 'mount --make-rshared /run && unshare --mount --propagation slave';
  const { host, said } = await hostWithDaemon(t, daemonCapabilities, ownMounts);
  for (const one of [await attach(host, changed(dhcpSample, {})), await attachByDaemon(t, host)]) {
    t.regex(one.ip, /^10\.99\.1\./);
    await one.del();
  }
  t.is(said(), '');
});

for (const { missing, rest } of withOneFewer(daemonCapabilities))
  test(`a DHCP daemon without ${missing} says so`, async (t) => {
    const { host, said } = await hostWithDaemon(t, rest);
    const live = async () => {
      await (await attachByDaemon(t, host)).del();
      // Only if the interface has the leased address is the release sent from it.
      await (await attach(host, changed(dhcpSample, {}))).del();
    };
    const problem = await live().catch((error: Error) => error.message);
    t.regex(`${problem}${said()}`, new RegExp(`\\b${missing}\\b`));
  });

for (const [unit, capabilities] of [
  ['cni-agent.service', agentCapabilities],
  ['cni-dhcp.service', daemonCapabilities],
] as const)
  test(`the docs have the capabilities that ${unit} leaves`, (t) => {
    const row = page.split('\n').find((line) => line.startsWith(`| \`${unit}\` |`))!;
    t.deepEqual(
      row.split(' | ')[2]!.split(' '),
      capabilities.map((name) => name.replace('CAP_', '')),
    );
  });

for (const unit of ['cni-agent.service', 'cni-dhcp.service'])
  test(`systemd finds ${unit} no more exposed than the docs say`, async (t) => {
    const stated = Number(new RegExp(`\`${unit.replaceAll('.', '\\.')}\` \\| (\\d+\\.\\d)`).exec(page)?.[1]);
    t.true(stated > 0 && stated < 10);
    const threshold = String(Math.round(stated * 10));
    const args = ['--offline=yes', '--no-pager', `--threshold=${threshold}`];
    // It looks for other units of that name unless it is given a path.
    await t.notThrowsAsync(
      run(['systemd-analyze', 'security', ...args, join(root, 'conf/systemd', unit)]),
      `above ${stated}`,
    );
  });

test('no system call that a call through the agent takes is one that its unit forbids', async (t) => {
  const host = await makeHostWithDevices(t, { mayHaveAgent: false });
  const log = host.file('/run/trace');
  await host.start(t, [
    ...['strace', '-f', '-qq', '-o', '/run/trace', '-e', 'signal=none'],
    ...[
      'setpriv',
      '--pdeathsig',
      'KILL',
      '--',
      join(suites.ours, 'cni'),
      'agent',
      '--metrics',
      'unix:/run/metrics.sock',
    ],
  ]);
  const one = await attach(host, network, { capabilities });
  await one.check();
  await one.del();
  await runNetworkVerb(host, network, 'GC', { valid: [] });
  t.true((await callsOf(host)) > 0);
  const used = new Set(
    [...readFileSync(log, 'latin1').matchAll(/^\d+ +([a-z_0-9]+)\(/gm)].map(([, name]) => name!),
  );
  for (const name of ['setns', 'sendto', 'openat']) t.true(used.has(name), name);
  const groups = directive('cni-agent.service', 'SystemCallFilter').map((name) => name.replace('~', ''));
  t.true(groups.length > 3);
  for (const group of groups) {
    const text = await run(['systemd-analyze', '--no-pager', 'syscall-filter', group]);
    const forbidden = text.split('\n').map((line) => line.trim());
    t.deepEqual(
      forbidden.filter((name) => used.has(name)),
      [],
      group,
    );
  }
});
