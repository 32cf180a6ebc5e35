/** Runs once: it starts agents itself where the plugins' calls are many and beside the point. */

import { chmodSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { attach, sample } from '../support/chain.ts';
import { cni, command, directory, here } from '../support/command.ts';
import { type Host, makeHost, startAgent } from '../support/host.ts';
import { links, snapshot, until } from '../support/observe.ts';
import { pluginNames, suites } from '../support/plugin.ts';

const bridge = { type: 'bridge', bridge: 'br0', ipam: { type: 'host-local', subnet: '10.1.0.0/16' } };
const list = (name: string, ...plugins: object[]) => ({ cniVersion: '1.0.0', name, plugins });

test.serial(
  'install installs every plugin, with no ADD failing meanwhile, and keeps foreign ones; uninstall removes only those of this suite',
  async (t) => {
    const dir = directory(t, {
      'my-plugin': '#!/bin/sh\n',
      vlan: '#!/bin/sh\necho "CNI vlan plugin v1.1.1" >&2\n',
    });
    chmodSync(join(dir, 'vlan'), 0o755);
    const installed = await cni('install', '--bin-dir', dir);
    t.is(installed.exit, 0, installed.stderr);
    t.regex(installed.stdout, /vlan .*CNI vlan plugin v1\.1\.1/);
    const names = pluginNames(suites.ours);
    t.deepEqual(pluginNames(dir).sort(), [...names, 'my-plugin'].sort());
    const hidden = () => readdirSync(dir).filter((name) => name.startsWith('.'));
    t.deepEqual(
      hidden().map((name) => name.replace(/-[0-9a-f]{12}$/, '')),
      ['.cni-backup', '.cni-plugins'],
    );
    t.is(new Set(names.map((name) => statSync(join(dir, name)).ino)).size, 1, 'one file under every name');
    const version = await here.tryRun([join(dir, 'vlan')], { env: { CNI_COMMAND: 'VERSION' } });
    t.regex(version.stdout, /"1\.1\.0"/);
    let running = true;
    const exits = (async () => {
      const exits = [];
      while (running)
        exits.push((await here.tryRun([join(dir, 'host-local')], { env: { CNI_COMMAND: 'VERSION' } })).exit);
      return exits;
    })();
    const again = await cni('install', '--bin-dir', dir);
    running = false;
    t.regex(again.stdout, new RegExp(`; ${names.length} replaced`));
    t.true((await exits).length > 3);
    t.deepEqual([...new Set(await exits)], [0]);
    rmSync(join(dir, 'ptp'));
    writeFileSync(join(dir, 'ptp'), '#!/bin/sh\necho other >&2\n', { mode: 0o755 });
    const removed = await cni('install', '--uninstall', '--bin-dir', dir);
    t.is(removed.exit, 0);
    t.regex(removed.stderr, /Kept, .*ptp \(other\)/);
    t.true(readdirSync(dir).includes('my-plugin'));
    t.true(readdirSync(dir).includes('ptp'));
    t.false(readdirSync(dir).includes('bridge'));
    t.regex(removed.stdout, /^vlan +CNI vlan plugin v1\.1\.1$/m);
    t.regex((await here.run([join(dir, 'vlan')], {})).toString(), /^$/);
    t.deepEqual(hidden(), []);
  },
);

test('install that fails says why, and changes nothing', async (t) => {
  const dir = directory(t, { file: '' });
  const below = await cni('install', '--bin-dir', join(dir, 'file/bin'));
  t.is(below.exit, 1);
  t.regex(below.stderr, /Cannot write to .*file\/bin/);
  mkdirSync(join(dir, 'bin/portmap'), { recursive: true });
  const blocked = await cni('install', '--bin-dir', join(dir, 'bin'));
  t.regex(blocked.stderr, /portmap" is a directory\. Remove it\. Nothing was changed/);
  t.deepEqual(readdirSync(join(dir, 'bin')), ['portmap']);
  const host = await makeHost(t);
  await host.run(['sh', '-c', 'mkdir /run/readonly && mount -t tmpfs -o ro tmpfs /run/readonly']);
  const readOnly = await host.tryRun([command, 'install', '--bin-dir', '/run/readonly']);
  t.regex(readOnly.stderr, /read-only/);
  t.is((await cni('install', '--bin-dir', '/proc/nowhere')).exit, 1);
});

test('add, check, del and status run a network as cnitool does', async (t) => {
  const host = await makeHost(t);
  const pod = await host.addPod();
  await host.run(['sh', '-c', `cat > /etc/cni/net.d/10-x.conflist`], {
    stdin: JSON.stringify(sample('10-bridge.conflist')),
  });
  const run = (...args: string[]) => host.tryRun([command, ...args], { env: { CNI_PATH: suites.ours } });
  const added = await run('add', 'podnet', pod.netns);
  t.is(added.exit, 0, added.stderr);
  const { ips } = JSON.parse(added.stdout) as { ips: { address: string }[] };
  t.regex(ips[0]!.address, /^10\.88\./);
  t.is((await run('check', 'podnet', pod.netns)).exit, 0);
  const cached = (await host.run(['ls', '/var/lib/cni/results'])).trim();
  t.regex(cached, /^podnet-cnitool-[0-9a-f]{20}-eth0$/);
  for (const verb of ['check', 'del']) {
    const named = await run(verb, 'podnet', pod.name);
    t.is(named.exit, 1, verb);
    t.regex(named.stderr, new RegExp(`is not a network namespace\\. Did you mean "${pod.netns}"\\?`));
  }
  t.is((await run('del', 'podnet', '/run/netns/never')).exit, 0, 'what is gone can be detached');
  const second = await run('add', 'podnet', pod.netns);
  t.regex(second.stderr, /already attached/);
  const traced = await run('del', 'podnet', pod.netns, '--trace');
  t.is(traced.exit, 0);
  t.regex(traced.stderr, /portmap[\s\S]*bridge/);
  t.is((await host.run(['ls', '/var/lib/cni/results'])).trim(), '');
  t.regex((await run('add', 'none', pod.netns)).stderr, /none/);
  t.regex((await run('add', 'podnet', '/etc/passwd')).stderr, /not a network namespace/);
  // A damaged cache does not keep DEL from detaching the container.
  await run('add', 'podnet', pod.netns);
  await host.run(['sh', '-c', `echo '{' > /var/lib/cni/results/${cached}`]);
  t.is((await run('del', 'podnet', pod.netns)).exit, 0);
  t.is((await host.run(['ip', '-n', pod.name, 'link', 'show', 'eth0', 'up']).catch(() => '')).trim(), '');
  await attach(host, sample('10-bridge.conflist'));
});

test('an ADD that fails by its arguments leaves nothing behind', async (t) => {
  const { host, run } = await hostWith(t, sample('10-bridge.conflist'));
  const pod = await host.addPod();
  t.is((await run(['add', 'podnet', pod.netns])).exit, 0);
  t.is((await run(['del', 'podnet', pod.netns])).exit, 0);
  const before = await snapshot(host);
  const words = await run(['add', 'podnet', pod.netns], { CAP_ARGS: '8080:80' });
  t.is(words.exit, 2);
  t.regex(words.stderr, /CAP_ARGS is "8080:80", but it must be JSON, such as \{"portMappings"/);
  const text = JSON.stringify({ portMappings: [{ hostPort: '8080', containerPort: 80 }] });
  const failed = await run(['add', 'podnet', pod.netns], { CAP_ARGS: text });
  t.is(failed.exit, 1);
  t.regex(failed.stderr, /hostPort" is "8080", but it must be a whole number/);
  t.deepEqual(await snapshot(host), before);
});

test('who is not root is told so, where it takes root', async (t) => {
  const nobody = ['setpriv', '--reuid', '65534', '--clear-groups', command];
  for (const args of [['list'], ['gc'], ['draw'], ['status', 'podnet'], ['add', 'podnet', '/run/netns/x']]) {
    const { exit, stderr } = await here.tryRun([...nobody, ...args]);
    t.is(exit, 1, args.join(' '));
    t.regex(stderr, /takes root\. Run it as root/);
  }
  const dir = directory(t, { 'x.conflist': list('x', bridge) });
  chmodSync(dir, 0o755);
  t.is((await here.tryRun([...nobody, 'validate', '--no-host', dir])).exit, 0);
});

test('a reader that has seen enough ends the command without a word', async (t) => {
  const dir = directory(t);
  for (let i = 0; i < 2000; i++) writeFileSync(join(dir, `${i}.conflist`), '{');
  const script = `(${command} validate --no-host ${dir}; echo "exit $?" >&2) | head -1`;
  const { stdout, stderr } = await here.tryRun(['sh', '-c', script]);
  t.is(stdout.split('\n').length, 2);
  t.is(stderr, 'exit 1\n');
});

test('help and version are printed; a wrong command line exits with 2', async (t) => {
  const help = await cni('--help');
  t.is(help.exit, 0);
  for (const name of ['install', 'validate', 'add', 'check', 'del', 'status'])
    t.regex(help.stdout, new RegExp(`cni ${name}`));
  t.false(help.stdout.includes('\x1b['), 'no colours where there is no terminal');
  t.regex((await cni('--version')).stdout, /^cni-plugins-ts \d/);
  t.is((await cni('frobnicate')).exit, 2);
  t.regex((await cni('vaildate')).stderr, /^Error: There is no such command\. Did you mean "validate"\?$/m);
  const short = await cni('add', 'one');
  t.is(short.exit, 2);
  t.regex(short.stderr, /^Error: Arguments are missing: 1 is given, 2 are needed\. "--help" tells which$/m);
  t.regex((await cni('add')).stderr, /: 0 are given, 2 are needed/);
  t.regex((await cni('draw', '--svg')).stderr, /^Error: Option "--svg" needs a value$/m);
});

interface Listed {
  attachments: { containerId: string; network: string; ips: string[]; ports: object[]; orphaned: string[] }[];
  ranges: { network: string; range: string; used: number; capacity: number }[];
  problems: string[];
}

test('list and draw show attachments and orphans; gc removes the orphans', async (t) => {
  const host = await makeHost(t);
  await startAgent(t, host);
  await host.run(['sh', '-c', 'cat > /etc/cni/net.d/10-x.conflist'], {
    stdin: JSON.stringify({ ...sample('10-bridge.conflist'), cniVersion: '1.1.0' }),
  });
  const run = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    host.tryRun([command, ...args], { env: { CNI_PATH: suites.ours, ...env } });
  const listed = async () => JSON.parse((await run(['list', '-o', 'json'])).stdout) as Listed;
  const empty = await listed();
  t.deepEqual(empty.attachments, []);
  t.deepEqual(empty.ranges, [
    {
      network: 'podnet',
      range: '10.88.0.1-10.88.255.254',
      subnets: ['10.88.0.0/16'],
      gateways: ['10.88.0.1'],
      used: 0,
      free: 65533,
      capacity: 65533,
    },
  ]);
  t.regex((await run(['draw'])).stdout, /no container networks/);

  const [web, gone] = [await host.addPod(), await host.addPod()];
  const mappings = {
    CAP_ARGS: JSON.stringify({ portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] }),
  };
  t.is((await run(['add', 'podnet', web.netns], mappings)).exit, 0);
  t.is((await run(['add', 'podnet', gone.netns])).exit, 0);
  // One that no runtime knows of: ADD without a record, as after a crash.
  const forgotten = await attach(host, { ...sample('10-bridge.conflist'), cniVersion: '1.1.0' });
  await gone.remove();
  await forgotten.pod.remove();

  const { attachments } = await listed();
  t.is(attachments.length, 3);
  const byAddress = new Map(attachments.map((one) => [one.ips[0], one]));
  t.deepEqual(byAddress.get('10.88.0.2')?.ports, [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }]);
  t.deepEqual(byAddress.get('10.88.0.2')?.orphaned, []);
  t.deepEqual(byAddress.get('10.88.0.3')?.orphaned, ['its network namespace is gone']);
  t.regex(byAddress.get('10.88.0.4')?.orphaned[0] ?? '', /no runtime knows/);
  const table = (await run(['list'])).stdout;
  t.regex(table, /CONTAINER +NETWORK +INTERFACE +ADDRESSES +PORTS +AGE +STATE/);
  t.regex(table, /10\.88\.0\.2 +8080:80\/tcp +\d+[sm] +ok/);
  t.regex(table, /3 attachments, 2 orphaned/);

  const text = (await run(['draw'])).stdout;
  t.regex(text, /bridge cni0\n[\s\S]*10\.88\.0\.1\/16\n[\s\S]*network podnet/);
  t.regex(text, /veth[0-9a-f]{8}\n.*eth0 in podnet:\n.*10\.88\.0\.2\n.*published: 8080:80\/tcp\n *│? *ok/);
  t.regex(text, /10\.88\.0\.3\n.*orphaned\n.*its network namespace is gone/);
  t.is((await run(['draw', '--svg', '/run/host.svg'])).exit, 1);
  const svg = await host.run(['cat', '/run/host.svg']);
  t.regex(svg, /^<svg [\s\S]*bridge cni0[\s\S]*10\.88\.0\.2[\s\S]*<\/svg>\n$/);

  const dry = await run(['gc', 'podnet', '--dry-run']);
  t.regex(dry.stdout, /Would remove .*10\.88\.0\.3[\s\S]*2 attachments would be removed, 1 kept/);
  t.regex(dry.stdout, /^The plugins would also search for what belongs to no attachment/m);
  t.is(dry.exit, 1);
  t.is((await listed()).attachments.length, 3, 'nothing was removed');
  const collected = await run(['gc', 'podnet']);
  t.is(collected.exit, 0, collected.stderr);
  t.deepEqual(
    (await listed()).attachments.map(({ ips }) => ips),
    [['10.88.0.2']],
  );
  t.is((await run(['check', 'podnet', web.netns], mappings)).exit, 0);

  await host.run(['sh', '-c', 'echo garbage > /var/lib/cni/results/podnet-x-eth0']);
  const problem = await run(['list']);
  t.is(problem.exit, 1);
  t.regex(problem.stderr, /podnet-x-eth0" is not JSON/);
  t.is((await run(['gc', 'podnet', web.netns, '--all'])).exit, 0);
  t.is((await host.run(['ip', '-n', web.name, '-o', 'link'])).includes('eth0'), false);
});

/** Waits until the kernel has removed the interfaces of pods that are gone, but for so many. */
const untilPodInterfaces = (host: Host, count: number) =>
  until('the interfaces of the dead pods are gone', async () => {
    const ports = (await links(host)).filter(({ ifname }) => ifname.startsWith('veth'));
    return ports.length === count;
  });

/** A host with one network and an agent, and what it takes to run the command on it. */
async function hostWith(t: ExecutionContext, network: object) {
  const host = await makeHost(t);
  await startAgent(t, host);
  const write = (content: object) =>
    host.run(['sh', '-c', 'cat > /etc/cni/net.d/10-x.conflist'], { stdin: JSON.stringify(content) });
  await write(network);
  const run = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    host.tryRun([command, ...args], { env: { CNI_PATH: suites.ours, ...env } });
  const orphans = async () =>
    (JSON.parse((await run(['list', '-o', 'json'])).stdout) as Listed).attachments.filter(
      ({ orphaned }) => orphaned.length > 0,
    );
  return { host, write, run, orphans };
}

const port8080 = {
  CAP_ARGS: JSON.stringify({ portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] }),
};

test('gc without a network removes the orphans of all of them', async (t) => {
  const { host, run, orphans } = await hostWith(t, sample('10-bridge.conflist'));
  writeFileSync(host.file('/etc/cni/net.d/20-ptp.conflist'), JSON.stringify(sample('20-ptp.conflist')));
  for (const file of ['10-bridge.conflist', '20-ptp.conflist'])
    await (await attach(host, sample(file))).pod.remove();
  await untilPodInterfaces(host, 0);
  t.is((await orphans()).length, 2);
  const { exit, stdout, stderr } = await run(['gc']);
  t.is(exit, 0, stdout + stderr);
  t.is(stdout.match(/^Removed /gm)?.length, 2);
  t.deepEqual(await orphans(), []);
});

test('gc does all that it should though nobody reads what it prints', async (t) => {
  const { host, orphans } = await hostWith(t, sample('10-bridge.conflist'));
  writeFileSync(host.file('/etc/cni/net.d/20-ptp.conflist'), JSON.stringify(sample('20-ptp.conflist')));
  for (const closed of ['> /run/out', '2> /run/out']) {
    for (const file of ['10-bridge.conflist', '20-ptp.conflist'])
      await (await attach(host, sample(file))).pod.remove();
    await untilPodInterfaces(host, 0);
    t.is((await orphans()).length, 2);
    // A FIFO whose reader has gone.
    const script = `rm -f /run/out; mkfifo /run/out; head -c 0 /run/out & ${command} gc --trace ${closed}; echo $?`;
    t.is((await host.run(['sh', '-c', script], { env: { CNI_PATH: suites.ours } })).split('\n').at(-2), '0');
    t.deepEqual(await orphans(), [], closed);
  }
});

test('gc does all that it should though what it prints cannot be written', async (t) => {
  const { host, run, orphans } = await hostWith(t, sample('10-bridge.conflist'));
  writeFileSync(host.file('/etc/cni/net.d/20-ptp.conflist'), JSON.stringify(sample('20-ptp.conflist')));
  for (const file of ['10-bridge.conflist', '20-ptp.conflist'])
    await (await attach(host, sample(file))).pod.remove();
  const written = (args: string) =>
    host.tryRun(['sh', '-c', `${command} ${args} > /dev/full`], { env: { CNI_PATH: suites.ours } });
  const stderr = 'Error: Cannot write the output: ENOSPC: no space left on device, write\n';
  t.like(await written('gc'), { exit: 1, stdout: '', stderr });
  t.deepEqual(await orphans(), []);
  t.is((await run(['list'])).exit, 0);
  t.like(await written('list'), { exit: 1, stdout: '', stderr });
});

test('check looks at what the record says was published, unless it is told of something else', async (t) => {
  const { host, run } = await hostWith(t, sample('10-bridge.conflist'));
  const web = await host.addPod();
  t.is((await run(['add', 'podnet', web.netns], port8080)).exit, 0);
  t.is((await run(['check', 'podnet', web.netns])).exit, 0);
  await host.run(['sh', '-c', 'iptables -t nat -F CNI-HOSTPORT-DNAT']);
  const { exit, stderr } = await run(['check', 'podnet', web.netns]);
  t.is(exit, 1);
  t.regex(stderr, /^Error: Plugin "portmap" failed CHECK: .*8080|CNI-HOSTPORT-DNAT/m);
  t.is((await run(['check', 'podnet', web.netns], { CAP_ARGS: '{}' })).exit, 0);
});

test('gc removes orphans of a network below 1.1.0, which has no GC, and leaves a living attachment alone', async (t) => {
  // A sample as it is: its version is 1.0.0.
  const { host, run, orphans } = await hostWith(t, sample('10-bridge.conflist'));
  const web = await host.addPod();
  t.is((await run(['add', 'podnet', web.netns], port8080)).exit, 0);
  const reserved = await attach(host, sample('10-bridge.conflist'));
  const inRules = await attach(host, sample('10-bridge.conflist'), {
    capabilities: { portMappings: [{ hostPort: 9090, containerPort: 80, protocol: 'tcp' }] },
  });
  for (const { pod } of [reserved, inRules]) await pod.remove();
  await untilPodInterfaces(host, 1);
  // Of this one, only the firewall still knows.
  await host.run(['rm', `/var/lib/cni/networks/podnet/${inRules.ip}`]);
  const before = await orphans();
  t.deepEqual(before.map(({ orphaned: [why] }) => why!.split(',')[0]).sort(), [
    'address reserved',
    'firewall rules remain',
  ]);
  t.regex(await host.run(['iptables-save', '-t', 'nat']), /9090/);

  const { exit, stdout, stderr } = await run(['gc', 'podnet']);
  t.is(exit, 0, stdout + stderr);
  t.regex(stdout, /2 attachments removed, 1 kept/);
  t.is(stdout.match(/^Removed /gm)?.length, 2);
  t.deepEqual(await orphans(), []);
  const rules = await host.run(['iptables-save', '-t', 'nat']);
  for (const { containerId } of before) t.false(rules.includes(containerId), containerId);
  t.notRegex(rules, /9090/);
  t.regex(rules, /8080/);
  t.deepEqual(
    (await host.run(['ls', '/var/lib/cni/networks/podnet'])).split('\n').filter((name) => /^10\./.test(name)),
    ['10.88.0.2'],
  );
  t.is((await run(['check', 'podnet', web.netns], port8080)).exit, 0);
});

test('gc reports what it could not remove as still there, with the reason, and exits with 1', async (t) => {
  const network = { ...sample('10-bridge.conflist'), cniVersion: '1.1.0' };
  const { host, write, run, orphans } = await hostWith(t, network);
  const { pod } = await attach(host, network);
  await pod.remove();

  await write({ ...network, disableGC: true });
  const { exit, stdout } = await run(['gc', 'podnet', '--dry-run']);
  t.is(exit, 1);
  t.regex(stdout, /^Still there: .*"disableGC"/m);
  t.notRegex(stdout, /Would remove/);
  const disabled = await run(['gc', 'podnet']);
  t.is(disabled.exit, 1);
  t.regex(disabled.stdout, /^Still there: .*"disableGC"/m);
  t.notRegex(disabled.stdout, /^Removed/m);
  t.regex(disabled.stdout, /0 attachments removed, 1 still there, 0 kept/);
  t.is((await orphans()).length, 1);

  mkdirSync(host.file('/run/bin'));
  writeFileSync(host.file('/run/bin/portmap'), '#!/bin/sh\nexit 3\n', { mode: 0o755 });
  await write({ ...network, cniVersion: '1.0.0' });
  const failing = await run(['gc', 'podnet'], { CNI_PATH: `/run/bin:${suites.ours}` });
  t.is(failing.exit, 1);
  t.regex(failing.stdout, /^Still there: .*Plugin "portmap" failed DEL/m);
  t.is((await orphans()).length, 1);

  await write(network);
  t.is((await run(['gc', 'podnet'])).exit, 0);
  t.deepEqual(await orphans(), []);
});

test('gc --all --dry-run tells what would be removed, the living too, and removes nothing', async (t) => {
  const { host, run } = await hostWith(t, { ...sample('10-bridge.conflist'), cniVersion: '1.1.0' });
  const [alive, dead] = [await host.addPod(), await host.addPod()];
  t.is((await run(['add', 'podnet', alive.netns], port8080)).exit, 0);
  t.is((await run(['add', 'podnet', dead.netns])).exit, 0);
  await dead.remove();
  await untilPodInterfaces(host, 1);
  const before = await snapshot(host);
  const dry = await run(['gc', 'podnet', '--all', '--dry-run']);
  t.is(dry.exit, 1, dry.stderr);
  t.regex(dry.stdout, /2 attachments would be removed, 0 kept/);
  t.deepEqual(await snapshot(host), before);
  t.is((await run(['check', 'podnet', alive.netns], port8080)).exit, 0);
  // A network whose name is the beginning of this one's is another one.
  const pod = { ...sample('10-bridge.conflist'), name: 'pod', cniVersion: '1.1.0' };
  await host.run(['sh', '-c', 'cat > /etc/cni/net.d/20-pod.conflist'], { stdin: JSON.stringify(pod) });
  const other = await run(['gc', 'pod', '--all']);
  t.is(other.exit, 0, other.stderr);
  t.regex(other.stdout, /0 attachments removed, 0 kept/);
  t.is((await run(['check', 'podnet', alive.netns], port8080)).exit, 0);
});

test('gc finds a renamed network in the result cache, and keeps its living attachments', async (t) => {
  const network = { ...sample('10-bridge.conflist'), cniVersion: '1.1.0' };
  const { host, write, run, orphans } = await hostWith(t, network);
  const [alive, dead] = [await host.addPod(), await host.addPod()];
  t.is((await run(['add', 'podnet', alive.netns], port8080)).exit, 0);
  t.is((await run(['add', 'podnet', dead.netns])).exit, 0);
  await write({ ...network, name: 'newnet' });
  t.deepEqual(await orphans(), []);
  await dead.remove();
  const { exit, stdout, stderr } = await run(['gc', 'podnet']);
  t.is(exit, 0, stderr);
  t.regex(stderr, /No configuration .* has the network "podnet" any more/);
  t.regex(stdout, /1 attachment removed, 1 kept/);
  t.regex(await host.run(['iptables-save', '-t', 'nat']), /8080/);
  t.is((await run(['check', 'podnet', alive.netns], port8080)).exit, 0);
  t.is((await run(['del', 'podnet', alive.netns], port8080)).exit, 0);
  t.notRegex(await host.run(['iptables-save', '-t', 'nat']), /8080/);
  t.regex((await run(['gc', 'podnet'])).stderr, /No configuration .* has the network "podnet"\. See/);
});

test('a record without "netns" is judged by the sandbox in its result', async (t) => {
  const { host, run, orphans } = await hostWith(t, sample('10-bridge.conflist'));
  const [alive, dead] = [await host.addPod(), await host.addPod()];
  for (const { netns } of [alive, dead]) t.is((await run(['add', 'podnet', netns])).exit, 0);
  // As libcni 1.1 in containerd 1.7 writes them.
  await host.run(['sh', '-c', `sed -i 's/"netns":"[^"]*",//' /var/lib/cni/results/*`]);
  t.notRegex(await host.run(['sh', '-c', 'cat /var/lib/cni/results/*']), /"netns"/);
  t.deepEqual(await orphans(), []);
  await dead.remove();
  t.deepEqual(
    (await orphans()).map(({ ips, orphaned }) => [ips, orphaned]),
    [[['10.88.0.3'], ['its network namespace is gone']]],
  );
  t.regex((await run(['gc', 'podnet'])).stdout, /Removed .*10\.88\.0\.3[\s\S]*1 attachment removed, 1 kept/);
  t.is((await run(['check', 'podnet', alive.netns])).exit, 0);
});

test('list and validate warn of a range that is full', async (t) => {
  const network = {
    cniVersion: '1.0.0',
    name: 'small',
    plugins: [{ type: 'bridge', ipam: { type: 'host-local', ranges: [[{ subnet: '10.5.0.0/29' }]] } }],
  };
  const { host, run } = await hostWith(t, network);
  const pods = [];
  for (let i = 0; i < 4; i++) pods.push(await attach(host, network));
  t.notRegex((await run(['list'])).stderr, /given away/);
  pods.push(await attach(host, network));
  const full = /all 5 addresses of 10\.5\.0\.1-10\.5\.0\.6/i;
  t.regex((await run(['list'])).stderr, full);
  const validated = await run(['validate']);
  t.regex(validated.stdout, full);
  t.is(validated.exit, 0, 'a warning');
  await pods[0]!.del();
  t.notRegex((await run(['list'])).stderr, /given away/);
});

test('explain describes what a network would do', async (t) => {
  const directoryOf = join(import.meta.dirname, '../../conf');
  const podnet = (await cni('explain', join(directoryOf, '10-bridge.conflist'))).stdout;
  t.regex(
    podnet,
    /1\. bridge[\s\S]*"cni0"[\s\S]*"host-local".* 65534 in 10\.88\.0\.0\/16[\s\S]*10\.88\.0\.1-10\.88\.255\.254[\s\S]*Masquerades[\s\S]*2\. portmap/,
  );
  const { host, run } = await hostWith(t, sample('10-bridge.conflist'));
  t.is((await run(['explain', 'podnet'])).stdout, podnet, 'by name');
  const beside = await host.run(['sh', '-c', `cd /run; mkdir podnet; ${command} explain podnet`]);
  t.is(beside.trimEnd(), podnet.trimEnd(), 'whatever is called so in the working directory');
  t.regex((await run(['explain', 'other'])).stderr, /No configuration .* has the network "other"/);
  const flannel = (await cni('explain', join(directoryOf, '40-flannel.conflist'))).stdout;
  t.regex(flannel, /leased from \/run\/flannel\/subnet\.env[\s\S]*Runs "bridge" for network "cbr0"/);
  const unknown = directory(t, { 'x.conflist': list('x', bridge, { type: 'other' }) });
  t.regex((await cni('explain', join(unknown, 'x.conflist'))).stdout, /2\. other\n.*not of this suite/);
  const invalid = directory(t, { 'x.conflist': list('x', { ...bridge, mtu: '1400' }) });
  t.regex((await cni('explain', join(invalid, 'x.conflist'))).stderr, /not valid[\s\S]*"mtu" is "1400"/);
  t.is((await cni('explain', '/etc/passwd')).exit, 1);
});

test('completion is printed for bash and zsh', async (t) => {
  for (const shell of ['bash', 'zsh'])
    t.regex(await here.run([command, 'completion'], { env: { SHELL: `/bin/${shell}` } }), /cni/);
});
