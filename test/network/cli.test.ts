import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { attach, sample } from '../support/chain.ts';
import { makeHost, Namespace } from '../support/host.ts';
import { pluginNames, suites } from '../support/plugin.ts';
import type { Output } from '../support/run.ts';

const here = new Namespace([]);
const command = join(suites.ours, 'cni');
const cni = (...args: string[]): Promise<Output> => here.tryRun([command, ...args]);

function directory(t: ExecutionContext, files: Record<string, string | object> = {}): string {
  const dir = mkdtempSync(join(tmpdir(), 'cni-command-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  for (const [name, content] of Object.entries(files))
    writeFileSync(join(dir, name), typeof content === 'string' ? content : JSON.stringify(content, null, 2));
  return dir;
}

const bridge = { type: 'bridge', bridge: 'br0', ipam: { type: 'host-local', subnet: '10.1.0.0/16' } };
const list = (name: string, ...plugins: object[]) => ({ cniVersion: '1.0.0', name, plugins });

test('install puts every plugin into place, keeps foreign ones, and uninstall takes only ours away', async (t) => {
  const dir = directory(t, {
    'my-plugin': '#!/bin/sh\n',
    vlan: '#!/bin/sh\necho "CNI vlan plugin v1.1.1" >&2\n',
  });
  chmodSync(join(dir, 'vlan'), 0o755);
  const installed = await cni('install', '--bin-dir', dir);
  t.is(installed.exit, 0, installed.stderr);
  t.regex(installed.stdout, /vlan .*CNI vlan plugin v1\.1\.1/);
  const names = pluginNames(suites.ours);
  t.deepEqual(readdirSync(dir).sort(), [...names, 'my-plugin'].sort());
  t.is(new Set(names.map((name) => statSync(join(dir, name)).ino)).size, 1, 'one file under every name');
  const version = await here.tryRun([join(dir, 'vlan')], { env: { CNI_COMMAND: 'VERSION' } });
  t.regex(version.stdout, /"1\.1\.0"/);
  const again = await cni('install', '--bin-dir', dir);
  t.regex(again.stdout, new RegExp(`; ${names.length} replaced`));
  rmSync(join(dir, 'ptp'));
  writeFileSync(join(dir, 'ptp'), '#!/bin/sh\necho other >&2\n', { mode: 0o755 });
  const removed = await here.tryRun([command, 'install', '--uninstall', '--bin-dir', dir]);
  t.is(removed.exit, 0);
  t.regex(removed.stderr, /Kept, .*ptp \(other\)/);
  t.true(readdirSync(dir).includes('my-plugin'));
  t.true(readdirSync(dir).includes('ptp'));
  t.false(readdirSync(dir).includes('bridge'));
});

test('no ADD fails while the plugins are replaced', async (t) => {
  const dir = directory(t);
  await cni('install', '--bin-dir', dir);
  let running = true;
  const calls = (async () => {
    const exits = [];
    while (running)
      exits.push((await here.tryRun([join(dir, 'host-local')], { env: { CNI_COMMAND: 'VERSION' } })).exit);
    return exits;
  })();
  for (let i = 0; i < 3; i++) t.is((await cni('install', '--bin-dir', dir)).exit, 0);
  running = false;
  const exits = await calls;
  t.true(exits.length > 3);
  t.deepEqual([...new Set(exits)], [0]);
});

test('install says why it cannot, and leaves nothing half-done', async (t) => {
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
  // Another file system: a copy in place of a link.
  await host.run(['mkdir', '/run/bin']);
  t.regex((await host.run([command, 'install', '--bin-dir', '/run/bin'])).toString(), /copied to/);
});

test('validate finds nothing wrong with the samples', async (t) => {
  const dir = directory(t);
  for (const name of readdirSync(join(import.meta.dirname, '../../conf')).filter((file) =>
    /\.conf(list)?$/.test(file),
  ))
    writeFileSync(join(dir, name), readFileSync(join(import.meta.dirname, '../../conf', name)));
  const { exit, stdout } = await cni('validate', '--bin-dir', suites.ours, dir);
  t.is(exit, 0, stdout);
  t.regex(
    stdout,
    /containerd and CRI-O attach pods to network "podnet", whose file 10-bridge\.conflist comes first/,
  );
});

test('validate points at each mistake and says what to do', async (t) => {
  const cases: [object | string, RegExp][] = [
    ['{\n  "cniVersion": "1.0.0",\n  "name": "x",,\n}', /:3:15: error: /],
    [list('x', { ...bridge, mtu: '1400' }), /"plugins\[0\]\.mtu" is "1400", but it must be a whole number/],
    [list('x', { ...bridge, isGatway: true }), /isGatway.*Did you mean "isGateway"\?/],
    [
      list('x', { ...bridge, ipam: { type: 'host-local', subnet: '10.1.0.5/16' } }),
      /host bits\. Write it as "10\.1\.0\.0\/16"/,
    ],
    [list('x', { type: 'brigde' }), /Plugin "brigde" is not installed.*Did you mean "bridge"/],
    [list('x', { type: 'portmap' }), /is the first one\. Put it behind/],
    [list('x', bridge, { type: 'portmap' }), /Add "capabilities": \{"portMappings": true\}/],
    [
      list('x', { ...bridge, capabilities: { portMapping: true } }),
      /does nothing with capability "portMapping"/,
    ],
    [{ ...list('x', bridge), cniVersion: '1.2.3' }, /cniVersion "1\.2\.3" does not exist/],
    [list('../x', bridge), /name/],
  ];
  for (const [content, message] of cases) {
    const dir = directory(t, { '10-x.conflist': content });
    const { exit, stdout } = await cni('validate', '--strict', '--bin-dir', suites.ours, dir);
    t.is(exit, 1, JSON.stringify(content));
    t.regex(stdout, message);
    const json = await cni('validate', '--json', '--bin-dir', suites.ours, dir);
    const report = JSON.parse(json.stdout) as { files: { findings: { line: number; severity: string }[] }[] };
    t.true(report.files[0]!.findings.every(({ line }) => line >= 1));
  }
});

test('validate compares networks with one another', async (t) => {
  const overlapping = directory(t, {
    '10-a.conflist': list('a', bridge),
    '20-b.conflist': list('b', {
      ...bridge,
      bridge: 'br1',
      ipam: { type: 'host-local', subnet: '10.1.128.0/24' },
    }),
  });
  t.regex((await cni('validate', '--bin-dir', suites.ours, overlapping)).stdout, /overlap with .* of .*a/);
  const shared = directory(t, {
    '10-a.conflist': list('a', { ...bridge, mtu: 1400 }),
    '20-b.conflist': list('b', { ...bridge, mtu: 1500, ipam: { type: 'host-local', subnet: '10.2.0.0/16' } }),
  });
  t.regex((await cni('validate', '--strict', '--bin-dir', suites.ours, shared)).stdout, /mtu/);
});

test('validate takes a megabyte in its stride, and unreadable files for what they are', async (t) => {
  const dir = directory(t, {
    '10-big.conflist': list('big', {
      ...bridge,
      dns: { search: Array.from({ length: 60_000 }, (_, i) => `domain${i}.example`) },
    }),
    '20-empty.conflist': '',
  });
  const { exit, stdout } = await cni('validate', '--bin-dir', suites.ours, dir);
  t.is(exit, 1);
  t.regex(stdout, /20-empty\.conflist:1:1: .*error/);
  t.notRegex(stdout, /10-big\.conflist:\d+:\d+: .*error/);
  t.is((await cni('validate', join(dir, 'none'))).exit, 1);
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
  const second = await run('add', 'podnet', pod.netns);
  t.regex(second.stderr, /already attached/);
  const traced = await run('del', 'podnet', pod.netns, '--trace');
  t.is(traced.exit, 0);
  t.regex(traced.stderr, /portmap[\s\S]*bridge/);
  t.is((await host.run(['ls', '/var/lib/cni/results'])).trim(), '');
  t.regex((await run('add', 'none', pod.netns)).stderr, /none/);
  t.regex((await run('add', 'podnet', '/etc/passwd')).stderr, /not a network namespace/);
  // A cache that is damaged does not keep the container from being taken down.
  await run('add', 'podnet', pod.netns);
  await host.run(['sh', '-c', `echo '{' > /var/lib/cni/results/${cached}`]);
  t.is((await run('del', 'podnet', pod.netns)).exit, 0);
  t.is((await host.run(['ip', '-n', pod.name, 'link', 'show', 'eth0', 'up']).catch(() => '')).trim(), '');
  await attach(host, sample('10-bridge.conflist'));
});

test('help, versions and wrong command lines', async (t) => {
  const help = await cni('--help');
  t.is(help.exit, 0);
  for (const name of ['install', 'validate', 'add', 'check', 'del', 'status'])
    t.regex(help.stdout, new RegExp(`cni ${name}`));
  t.false(help.stdout.includes('\x1b['), 'no colours where there is no terminal');
  t.regex((await cni('--version')).stdout, /^cni-plugins-ts \d/);
  t.is((await cni('frobnicate')).exit, 2);
  t.is((await cni('add', 'one')).exit, 2);
});

interface Listed {
  attachments: { containerId: string; network: string; ips: string[]; ports: object[]; orphaned: string[] }[];
  problems: string[];
}

test('list, gc, draw and explain: what is there, what is stale, and what it looks like', async (t) => {
  const host = await makeHost(t);
  await host.run(['sh', '-c', 'cat > /etc/cni/net.d/10-x.conflist'], {
    stdin: JSON.stringify({ ...sample('10-bridge.conflist'), cniVersion: '1.1.0' }),
  });
  const run = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    host.tryRun([command, ...args], { env: { CNI_PATH: suites.ours, ...env } });
  const listed = async () => JSON.parse((await run(['list', '--json'])).stdout) as Listed;
  t.deepEqual(await listed(), { attachments: [], problems: [] });
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
  t.regex(table, /10\.88\.0\.2 +8080:80\/tcp +\d+s +ok/);
  t.regex(table, /3 attachments, 2 orphaned/);

  const text = (await run(['draw'])).stdout;
  t.regex(text, /bridge cni0 {2}10\.88\.0\.1\/16, network podnet, masqueraded/);
  t.regex(text, /veth[0-9a-f]{8} ── eth0 10\.88\.0\.2 .*\[8080:80\/tcp\]/);
  t.regex(text, /✘ .*10\.88\.0\.3/);
  t.is((await run(['draw', '--svg', '/run/node.svg'])).exit, 0);
  const svg = await host.run(['cat', '/run/node.svg']);
  t.regex(svg, /^<svg [\s\S]*bridge cni0[\s\S]*10\.88\.0\.2[\s\S]*<\/svg>\n$/);

  const dry = await run(['gc', 'podnet', '--dry-run']);
  t.regex(dry.stdout, /Would remove .*10\.88\.0\.3[\s\S]*2 attachments would be removed, 1 kept/);
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
  t.is(problem.exit, 0);
  t.regex(problem.stderr, /podnet-x-eth0" is not JSON/);
  t.is((await run(['gc', 'podnet', web.netns, '--all'])).exit, 0);
  t.is((await host.run(['ip', '-n', web.name, '-o', 'link'])).includes('eth0'), false);
});

test('explain tells what each sample would do', async (t) => {
  const directoryOf = join(import.meta.dirname, '../../conf');
  for (const name of readdirSync(directoryOf).filter((file) => /\.conf(list)?$/.test(file))) {
    const { exit, stdout, stderr } = await cni('explain', join(directoryOf, name));
    t.is(exit, 0, stderr);
    t.notRegex(stdout, /undefined|not of this suite|\[object/, name);
  }
  const bridge = (await cni('explain', join(directoryOf, '10-bridge.conflist'))).stdout;
  t.regex(
    bridge,
    /1\. bridge[\s\S]*"cni0"[\s\S]*10\.88\.0\.1-10\.88\.255\.254 \(65534 addresses\)[\s\S]*Masquerades[\s\S]*2\. portmap/,
  );
  t.is((await cni('explain', '/etc/passwd')).exit, 1);
});

test('completion for bash and zsh', async (t) => {
  for (const shell of ['bash', 'zsh'])
    t.regex(await here.run([command, 'completion'], { env: { SHELL: `/bin/${shell}` } }), /cni/);
});
