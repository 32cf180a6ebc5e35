/**
 * `cni validate`: what it finds, and how it says so. See also test/runtimes/verdicts.test.ts.
 * Runs once: no agent takes part.
 */

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { cni, command, directory, here } from '../support/command.ts';
import { makeHost } from '../support/host.ts';
import { suites } from '../support/plugin.ts';

const bridge = { type: 'bridge', bridge: 'br0', ipam: { type: 'host-local', subnet: '10.1.0.0/16' } };
const list = (name: string, ...plugins: object[]) => ({ cniVersion: '1.0.0', name, plugins });

test('validate accepts the samples', async (t) => {
  const dir = directory(t);
  for (const name of readdirSync(join(import.meta.dirname, '../../conf')).filter((file) =>
    /\.conf(list)?$/.test(file),
  ))
    writeFileSync(join(dir, name), readFileSync(join(import.meta.dirname, '../../conf', name)));
  const { exit, stdout } = await cni('validate', '--no-host', dir);
  t.is(exit, 0, stdout);
  t.regex(
    stdout,
    /containerd and CRI-O attach pods to network "podnet" of 10-bridge\.conflist, which comes first/,
  );
});

test('validate warns of bounds that whereabouts ignores', async (t) => {
  const dir = directory(t);
  const range = { range: '10.1.0.0/24', range_start: '10.2.0.1', range_end: '10.1.0.90' };
  const ipam = { type: 'whereabouts', etcd_host: '192.0.2.1:2379', ...range };
  writeFileSync(join(dir, '10-x.conflist'), JSON.stringify(list('x', { ...bridge, ipam }), null, 2));
  const { exit, stdout } = await cni('validate', '--no-host', dir);
  t.is(exit, 0, stdout);
  t.regex(stdout, /:12:\d+: warning: "range_start" of "ipam" has "10\.2\.0\.1", which has no effect/);
  t.regex(stdout, /it is not from 10\.1\.0\.1 to 10\.1\.0\.254/);
  t.notRegex(stdout, /range_end/);
});
const portmap = { type: 'portmap', capabilities: { portMappings: true } };

test('validate reports each mistake with its line and how to correct it', async (t) => {
  const cases: [object | string, RegExp][] = [
    ['{\n  "cniVersion": "1.0.0",\n  "name": "x",,\n}', /:3:15: error: /],
    [list('x', { ...bridge, mtu: '1400' }), /"plugins\[0\]\.mtu" is "1400", but it must be a whole number/],
    [list('x', { ...bridge, isGatway: true }), /isGatway.*Did you mean "isGateway"\?/],
    [
      list('x', { ...bridge, ipam: { type: 'host-local', subnet: '10.1.0.5/16' } }),
      /host bits\. Write it as "10\.1\.0\.0\/16"/,
    ],
    [list('x', { type: 'brigde' }), /Plugin "brigde" is not installed.*Did you mean "bridge"/],
    [list('x', { type: 'portmap' }), /is the first one\. Put it after/],
    [list('x', bridge, { type: 'portmap' }), /Add "capabilities": \{"portMappings": true\}/],
    [
      list('x', { ...bridge, capabilities: { portMapping: true } }),
      /does nothing with capability "portMapping"/,
    ],
    [
      list('x', bridge, { ...portmap, backend: 'nftables', markMasqBit: 14 }),
      /:\d+:\d+: warning: "markMasqBit" has no effect with "backend" "nftables"/,
    ],
    [{ ...list('x', bridge), cniVersion: '1.2.3' }, /cniVersion "1\.2\.3" does not exist/],
    [list('../x', bridge), /name/],
    // What plugins say about their own configurations.
    [
      list('x', { ...bridge, hairpinMode: true, promiscMode: true }),
      /:12:7: .*"hairpinMode" and "promiscMode" are both set/,
    ],
    [list('x', { type: 'vlan', ipam: bridge.ipam }), /"master" is not set/],
    [
      list('x', { ...bridge, ipam: { type: 'host-local', ranges: [[{ subnet: '10.1.0.0/31' }]] } }),
      /"10\.1\.0\.0\/31", which is too small/,
    ],
    [
      list('x', { ...bridge, ipam: { ...bridge.ipam, rangeStart: '10.1.0.1', rangeEnd: '10.1.0.1' } }),
      /error: "ipam\.ranges\[0\]" has no address but that of a gateway \(10\.1\.0\.1\)/,
    ],
    [list('x', { ...bridge, ipam: { type: 'host-local' } }), /ipam/],
    [list('x', { type: 'ptp' }), /Plugin "ptp" needs addresses/],
    [
      '{\n  "cniVersion": "1.0.0"\n  "name": "x"\n}',
      /:2:24: .*A comma is missing between this value and "name"/,
    ],
  ];
  for (const [content, message] of cases) {
    const dir = directory(t, { '10-x.conflist': content });
    const { exit, stdout } = await cni('validate', '--strict', '--bin-dir', suites.ours, dir);
    t.is(exit, 1, JSON.stringify(content));
    t.regex(stdout, message);
    const json = await cni('validate', '-o', 'json', '--bin-dir', suites.ours, dir);
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

/** What `cni validate` says about pairs of networks; each pair has its own first byte of addresses. */
async function overlapsOf(
  t: ExecutionContext,
  pairs: readonly (readonly [object, object])[],
): Promise<string[]> {
  const files: Record<string, object> = {};
  for (const [i, pair] of pairs.entries()) {
    const own = (plugin: object) =>
      JSON.parse(JSON.stringify(plugin).replaceAll('"10.', `"${10 + i}.`)) as object;
    files[`${10 + i}-a.conflist`] = list(`a${i}`, own(pair[0]));
    files[`${10 + i}-b.conflist`] = list(
      `b${i}`,
      ...[{ type: 'multus', delegates: [list(`within${i}`, own(pair[1]))] }],
    );
  }
  const { stdout } = await cni('validate', '--no-host', '-o', 'json', directory(t, files));
  const report = JSON.parse(stdout) as { files: { file: string; findings: Record<string, string>[] }[] };
  return pairs.map((_, i) =>
    report.files
      .filter(({ file }) => file.endsWith(`${10 + i}-b.conflist`))
      .flatMap(({ findings }) => findings)
      .filter(({ rule }) => rule === 'overlap')
      .map(({ severity, message }) => `${severity}: ${message}`)
      .join('\n'),
  );
}

test('validate complains of networks of whereabouts only where two pods can get the same address', async (t) => {
  const etcd = { etcd_host: '192.0.2.1:2379,192.0.2.2:2379' };
  const api = { kubernetes: { kubeconfig: '/etc/cni/a.kubeconfig' } };
  const alone = { enable_overlapping_ranges: false };
  const narrow = { range_end: '10.1.0.99' };
  const wide = { range: '10.1.0.0/16' };
  const kept = /^warning: .* are kept in .* here, and in .* there/;
  const ranges = /^warning: .* and "enable_overlapping_ranges" is false/;
  const cases: [object, object, RegExp | ''][] = [
    [etcd, { etcd_host: '192.0.2.2:2379' }, ''],
    [etcd, { ...etcd, ...wide }, ''],
    [etcd, {}, ''],
    [etcd, { ...etcd, network_name: 'blue' }, ''],
    [etcd, { etcd_host: '192.0.2.3:2379', network_name: 'blue' }, ''],
    [etcd, { etcd_host: '192.0.2.3:2379' }, kept],
    [etcd, api, kept],
    [{ ...etcd, ...alone }, { ...etcd, ...alone }, ''],
    [{ ...etcd, ...alone }, { ...etcd, ...alone, ...narrow }, ranges],
    [{ ...etcd, ...alone }, etcd, ranges],
    [api, { ...api, ...narrow }, ''],
    [api, { ...api, ...wide }, ''],
    // One pool.
    [api, { ...api, ...alone, ...narrow }, ''],
    [api, { ...api, ...alone, ...wide }, ranges],
    [api, { kubernetes: { kubeconfig: '/etc/cni/b.kubeconfig' } }, kept],
    [{}, {}, ''],
    [etcd, { type: 'host-local', range: undefined, subnet: '10.1.0.0/16' }, /^error: .*Make the ranges/],
  ];
  const macvlan = (master: string, ipam: object) => ({
    ...{ type: 'macvlan', master },
    ipam: { type: 'whereabouts', range: '10.1.0.0/24', ...ipam },
  });
  const found = await overlapsOf(
    t,
    cases.map(([a, b]) => [macvlan('eth1', a), macvlan('eth2', b)] as const),
  );
  for (const [i, [a, b, message]] of cases.entries())
    if (message === '') t.is(found[i], '', JSON.stringify([a, b]));
    else t.regex(found[i]!, message);
});

test('validate complains of a subnet that two networks have only if the host routes to both', async (t) => {
  const upper = { ipam: { type: 'host-local', subnet: '10.1.0.0/16', rangeStart: '10.1.9.0' } };
  const lower = { ipam: { type: 'host-local', subnet: '10.1.0.0/16', rangeEnd: '10.1.8.0' } };
  const routed = { type: 'bridge', isGateway: true };
  const found = await overlapsOf(t, [
    [
      { ...routed, ...upper, bridge: 'br1' },
      { ...routed, ...lower, bridge: 'br2' },
    ],
    [
      { ...routed, ...upper, bridge: 'br3' },
      { type: 'ptp', ...lower },
    ],
    [
      { ...routed, ...upper, bridge: 'br4' },
      { ...routed, ...lower, bridge: 'br4' },
    ],
    [
      { type: 'macvlan', master: 'eth1', ...upper },
      { type: 'macvlan', master: 'eth2', ...lower },
    ],
  ]);
  t.deepEqual(
    found.map((message) => /^error: Subnet .* and the host can route it to only one/.test(message)),
    [true, true, false, false],
  );
  t.deepEqual(found.slice(2), ['', '']);
});

test('what stands within the configuration of multus and flannel is validated as well', async (t) => {
  const ipam = { type: 'host-local', ranges: [[{ subnet: '10.1.0.0/33' }]] };
  const within = list('inner', { type: 'bridge', bridgee: 'br9', mtu: 'a', ipam }, { type: 'portmap' });
  const dir = directory(t, {
    '10-m.conflist': list('m', {
      type: 'multus',
      delegates: [{ type: 'bridge', bridge: 'br5', isGatway: true, ipam: bridge.ipam }, within],
    }),
    '20-n.conflist': list('n', {
      ...bridge,
      bridge: 'br1',
      ipam: { type: 'host-local', subnet: '10.1.2.0/24' },
    }),
    '30-f.conflist': list('f', { type: 'flannel', delegate: { hairpin: true, mtu: 'a' } }),
    '40-g.conflist': list('g', { type: 'flannel', delegate: { ipam: {} } }),
  });
  const { exit, stdout } = await cni('validate', '--no-host', '-o', 'json', dir);
  t.is(exit, 1);
  const { files } = JSON.parse(stdout) as {
    files: { findings: { line: number; path: string; message: string; rule: string }[] }[];
  };
  const found = files.map(({ findings }) => findings.map(({ rule, path }) => `${rule} ${path}`).sort());
  t.deepEqual(found[0], [
    'capability-missing plugins[0].delegates[1].plugins[1]',
    'schema plugins[0].delegates[1].plugins[0].ipam.ranges[0][0].subnet',
    'schema plugins[0].delegates[1].plugins[0].mtu',
    'unknown-key plugins[0].delegates[0].isGatway',
    'unknown-key plugins[0].delegates[1].plugins[0].bridgee',
  ]);
  const text = readFileSync(join(dir, '10-m.conflist'), 'utf8').split('\n');
  for (const { line, path } of files[0]!.findings)
    t.true(
      text[line - 1]!.includes(
        `"${path
          .split('.')
          .at(-1)!
          .replace(/\[\d+\]$/, '')}"`,
      ) || path.endsWith(']'),
      path,
    );
  t.deepEqual(found[1], ['overlap plugins[0].ipam']);
  t.regex(files[1]!.findings[0]!.message, /overlap with .* of network "m" \(10-m\.conflist\)/);
  t.deepEqual(found[2], [
    'schema plugins[0].delegate.mtu',
    'shared-bridge plugins[0].delegate.isGateway',
    'unknown-key plugins[0].delegate.hairpin',
  ]);
  t.deepEqual(found[3], ['config plugins[0].delegate']);
});

test('validate copes with a file of a megabyte, and reports files that cannot be read', async (t) => {
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

test('standard input is validated as "-", whatever it holds', async (t) => {
  const validate = (stdin: string) => here.tryRun([command, 'validate', '--no-host', '-'], { stdin });
  t.is((await validate(JSON.stringify(list('x', bridge)))).exit, 0);
  t.is((await validate(JSON.stringify({ cniVersion: '1.0.0', name: 'x', ...bridge }))).exit, 0);
  const { exit, stdout } = await validate('{');
  t.is(exit, 1);
  t.regex(stdout, /\/dev\/stdin:1:2: error/);
});

test('nothing to validate is told apart by its reason, and fails', async (t) => {
  const cases: [string, RegExp][] = [
    [directory(t), /is empty, so that no pod gets a network/],
    [directory(t, { 'README.md': '' }), /has no file whose name ends in \.conf, \.conflist, \.json/],
    [join(directory(t), 'missing'), /There is no file or directory/],
  ];
  for (const [path, message] of cases) {
    const { exit, stderr } = await cni('validate', path);
    t.is(exit, 1, path);
    t.regex(stderr, message);
  }
});

test('a first file that is broken keeps containerd from all networks, which is said', async (t) => {
  const dir = directory(t, { '05-broken.conf': '{', '10-x.conflist': list('x', bridge) });
  const { stdout } = await cni('validate', '--no-host', dir);
  t.regex(
    stdout,
    /containerd loads no network at all, as 05-broken\.conf, which comes first, cannot be used/,
  );
  t.regex(stdout, /CRI-O attaches pods to network "x" of 10-x\.conflist/);
  const { chosen } = JSON.parse((await cni('validate', '--no-host', '-o', 'json', dir)).stdout) as {
    chosen: unknown;
  };
  t.deepEqual(chosen, { containerd: null, crio: 'x' });
});

test('every plugin has all its findings listed, each once', async (t) => {
  const dir = directory(t, {
    '10-x.conflist': list(
      'x',
      {
        ...bridge,
        bridge: 'a-name-of-more-than-15-bytes',
        hairpinMode: true,
        promiscMode: true,
        dns: { nameservers: '192.0.2.1' },
      },
      { type: 'bandwidth', ingressRate: 1_000_000 },
      { type: 'tuning', sysctl: { 'kernel.msgmax': '1' }, mtu: 20 },
    ),
  });
  const { stdout } = await cni('validate', '--no-host', '-o', 'json', dir);
  const [file] = (JSON.parse(stdout) as { files: { findings: { severity: string; message: string }[] }[] })
    .files;
  const errors = file!.findings.filter(({ severity }) => severity === 'error').map(({ message }) => message);
  for (const pattern of [/dns\.nameservers/, /ingressRate/, /kernel\.msgmax/])
    t.is(errors.filter((message) => pattern.test(message)).length, 1, `${pattern}: ${errors.join('\n')}`);
});

test('the host is checked: what a plugin misses, and what the host has of the subnet already', async (t) => {
  const host = await makeHost(t);
  await host.run(['ip', 'link', 'add', 'lan', 'up', 'type', 'veth', 'peer', 'name', 'far']);
  await host.run(['ip', 'link', 'add', 'office', 'up', 'type', 'bridge']);
  await host.run(['ip', 'address', 'add', '10.1.5.1/24', 'dev', 'office']);
  const dir = directory(t, {
    '10-bridge.conflist': list('x', bridge),
    '20-macvlan.conflist': list('y', { type: 'macvlan', master: 'wan', ipam: { type: 'dhcp' } }),
    '30-full.conflist': list('z', { type: 'ptp', ipam: { type: 'host-local', subnet: '10.7.0.0/30' } }),
  });
  mkdirSync(host.file('/var/lib/cni/networks/z'), { recursive: true });
  writeFileSync(host.file('/var/lib/cni/networks/z/10.7.0.2'), 'pod\neth0');
  const validate = (...args: string[]) =>
    host.tryRun([command, 'validate', '--bin-dir', suites.ours, ...args, dir]);
  const { exit, stdout } = await validate();
  t.is(exit, 1);
  t.regex(stdout, /Subnet 10\.1\.0\.0\/16 overlaps with 10\.1\.5\.1\/24 on interface "office"/);
  t.regex(stdout, /Plugin "macvlan" cannot work on this host.*dhcp/i);
  t.regex(stdout, /All 1 addresses of 10\.7\.0\.1-10\.7\.0\.2 are reserved on this host/);
  t.is((await validate('--no-host', '--strict')).exit, 0);
});

test('findings come as SARIF and as annotations of GitHub', async (t) => {
  const dir = directory(t, { '10-x.conflist': list('x', { ...bridge, mtu: '1400' }) });
  const sarif = JSON.parse((await cni('validate', '--no-host', '--format', 'sarif', dir)).stdout) as {
    version: string;
    runs: {
      results: {
        level: string;
        ruleId: string;
        locations: { physicalLocation: { region: { startLine: number; startColumn: number } } }[];
      }[];
    }[];
  };
  t.is(sarif.version, '2.1.0');
  const [result] = sarif.runs[0]!.results;
  t.is(result!.level, 'error');
  t.deepEqual(result!.locations[0]!.physicalLocation.region, { startLine: 12, startColumn: 7 });
  const { stdout } = await cni('validate', '--no-host', '--format', 'github', dir);
  t.regex(stdout, /^::error file=.*10-x\.conflist,line=12,col=7,title=schema::"plugins\[0\]\.mtu" is/);
});
