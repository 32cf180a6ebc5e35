/** The plugin host-local, called by itself. Runs once: no agent takes part. */

import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { suitePairs } from '../support/chain.ts';
import { Namespace } from '../support/host.ts';
import { type Outcome, type PluginCall, runPlugin, type Suite } from '../support/plugin.ts';

/** An IPAM plugin touches no network: it runs where the test does, in a directory of its own. */
const here = new Namespace([]);

class Pool {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'host-local-'));
  readonly ipam: object;
  readonly conf: object;

  constructor(t: ExecutionContext, ipam: object = { subnet: '10.1.0.0/24' }, conf: object = {}) {
    t.teardown(() => rmSync(this.dataDir, { recursive: true, force: true }));
    this.ipam = ipam;
    this.conf = conf;
  }

  run(
    command: string,
    containerId: string,
    call: PluginCall & { ipam?: object; conf?: object } = {},
  ): Promise<Outcome> {
    const { ipam = {}, conf = {}, ...rest } = call;
    return runPlugin(here, 'host-local', command, {
      containerId,
      netns: '/var/run/netns/unused',
      config: {
        cniVersion: '1.0.0',
        name: 'net',
        type: 'bridge',
        ...this.conf,
        ...conf,
        ipam: { type: 'host-local', dataDir: this.dataDir, ...this.ipam, ...ipam },
      },
      ...rest,
    });
  }

  async add(
    containerId: string,
    suite: Suite = 'ours',
    call: PluginCall & { conf?: object } = {},
  ): Promise<string> {
    const outcome = await this.run('ADD', containerId, { suite, ...call });
    if (outcome.exit !== 0) throw new Error(outcome.stdout);
    return outcome.result!.ips!.map(({ address }) => address.split('/')[0]).join(' ');
  }

  /** What is reserved, by address. */
  get reserved(): Record<string, string> {
    const names = readdirSync(join(this.dataDir, 'net')).filter((name) => !/^l/.test(name));
    return Object.fromEntries(names.map((name) => [name, this.read(name)]));
  }

  read(name: string): string {
    return readFileSync(join(this.dataDir, 'net', name), 'latin1');
  }

  write(name: string, text: string): void {
    writeFileSync(join(this.dataDir, 'net', name), text);
  }
}

test("files are the reference plugin's, byte for byte", async (t) => {
  const ours = new Pool(t);
  const theirs = new Pool(t);
  await ours.add('one');
  await theirs.add('one', 'reference');
  t.deepEqual(ours.reserved, { '10.1.0.2': 'one\r\neth0' });
  t.deepEqual(ours.reserved, theirs.reserved);
  t.is(ours.read('last_reserved_ip.0'), theirs.read('last_reserved_ip.0'));
  t.is(ours.read('lock'), '');
  t.deepEqual(readdirSync(join(ours.dataDir, 'net')), readdirSync(join(theirs.dataDir, 'net')));
  t.is(statSync(join(ours.dataDir, 'net/10.1.0.2')).mode & 0o777, 0o600);
});

test('either suite releases and checks what the other reserved, at every step', async (t) => {
  for (const [adder, other] of suitePairs) {
    const pool = new Pool(t);
    t.is(await pool.add('a', adder), '10.1.0.2');
    t.is(await pool.add('b', other), '10.1.0.3');
    t.is(await pool.add('c', adder), '10.1.0.4');
    t.is((await pool.run('CHECK', 'a', { suite: other })).exit, 0);
    t.is((await pool.run('DEL', 'a', { suite: other })).exit, 0);
    t.is((await pool.run('DEL', 'b', { suite: adder })).exit, 0);
    t.deepEqual(Object.keys(pool.reserved), ['10.1.0.4']);
    t.not((await pool.run('CHECK', 'b', { suite: other })).exit, 0);
    t.is(await pool.add('d', other), '10.1.0.5', 'the search goes on where either left off');
    t.is((await pool.run('DEL', 'd', { suite: adder })).exit, 0);
    t.is((await pool.run('DEL', 'c', { suite: adder })).exit, 0);
    t.deepEqual(pool.reserved, {});
  }
});

test('the same input gives equal results and error codes', async (t) => {
  const cases: (PluginCall & { ipam?: object; conf?: object })[] = [
    {},
    { ipam: { gateway: '10.1.0.254', rangeStart: '10.1.0.100', rangeEnd: '10.1.0.110' } },
    { ipam: { gateway: '', rangeStart: '', rangeEnd: '' } },
    {
      ipam: {
        subnet: undefined,
        ranges: [[{ subnet: '10.2.0.0/24' }, { subnet: '10.3.0.0/24' }], [{ subnet: 'fd00::/64' }]],
      },
    },
    // A range whose only address is its gateway, beside another one.
    {
      ipam: {
        subnet: undefined,
        ranges: [
          [
            { subnet: '10.2.0.0/24', rangeStart: '10.2.0.1', rangeEnd: '10.2.0.1' },
            { subnet: '10.3.0.0/24' },
          ],
        ],
      },
    },
    { ipam: { routes: [{ dst: '0.0.0.0/0' }, { dst: '10.9.0.0/16', gw: '10.1.0.9' }] } },
    { args: 'IP=10.1.0.77;IgnoreUnknown=1;K8S_POD_NAME=x' },
    { args: 'IP=10.1.0.77/24' },
    { args: 'IP=10.1.0.77', conf: { runtimeConfig: { ips: ['10.1.0.77/24'] } } },
    { conf: { args: { cni: { ips: ['10.1.0.88'] } } } },
    { conf: { runtimeConfig: { ips: ['10.1.0.66/24'] } } },
    { conf: { runtimeConfig: { ipRanges: [[{ subnet: '10.7.0.0/24' }]] } } },
    { conf: { cniVersion: '0.2.0' } },
    { conf: { cniVersion: '0.3.1' } },
    { conf: { cniVersion: '0.4.0' } },
    { ipam: { SubNet: '10.4.0.0/24', subnet: undefined } },
    // And what both refuse.
    { args: 'IP=10.1.0.1' },
    { args: 'IP=10.5.0.1' },
    { args: 'IP=nowhere' },
    { args: 'K8S_POD_NAME=x' },
    { ipam: { subnet: '10.1.0.1/24' } },
    { ipam: { subnet: '10.1.0.0/31' } },
    { ipam: { subnet: 'ten/24' } },
    { ipam: { subnet: 24 } },
    { ipam: { subnet: undefined } },
    { ipam: { subnet: undefined, ranges: [] } },
    { ipam: { subnet: undefined, ranges: [[]] } },
    { ipam: { rangeStart: '10.2.0.1' } },
    { ipam: { rangeStart: '10.1.0.9', rangeEnd: '10.1.0.3' } },
    { ipam: { rangeStart: '10.1.0.1', rangeEnd: '10.1.0.1' } },
    { ipam: { ranges: [[{ subnet: '10.1.0.0/16' }]] } },
    { ipam: { resolvConf: '/nonexistent' } },
    { conf: { cniVersion: '7.0.0' } },
    { conf: { cniVersion: 'new' } },
    { conf: { name: '../net' } },
    { conf: { name: undefined } },
    { ifname: 'a-name-of-16byte' },
    { ifname: 'a/b' },
    { containerId: '../../etc/passwd' },
    { containerId: '$(reboot)' },
    { containerId: '' },
    { config: '{' },
    { config: '[]' },
    { env: { CNI_PATH: undefined } },
    { env: { CNI_NETNS: undefined } },
    { env: { CNI_COMMAND: 'FROB' } },
  ];
  for (const call of cases) {
    const [ours, theirs] = [new Pool(t), new Pool(t)];
    const [a, b] = [
      await ours.run('ADD', 'one', call),
      await theirs.run('ADD', 'one', { ...call, suite: 'reference' }),
    ];
    const what = JSON.stringify(call);
    t.is(a.exit, b.exit, `${what}\n${a.stdout}\n${b.stdout}`);
    t.is(a.error?.code, b.error?.code, `${what}\n${a.stdout}\n${b.stdout}`);
    // The older reference plugin prints an empty "dns" for 1.0.0.
    const plain = (outcome: Outcome) =>
      outcome.result && { ...outcome.result, dns: { ...outcome.result.dns } };
    t.deepEqual(plain(a), plain(b), what);
    t.is(a.stderr, '');
  }
});

test('what is left of a range that has become its gateway is released', async (t) => {
  const pool = new Pool(t);
  await pool.add('one');
  const ipam = { rangeStart: '10.1.0.1', rangeEnd: '10.1.0.1' };
  t.regex((await pool.run('ADD', 'two', { ipam })).error!.msg, /has no address but that of a gateway/);
  t.is((await pool.run('DEL', 'one', { ipam })).exit, 0);
  t.deepEqual(pool.reserved, {});
});

test('addresses are given in order, wrap around, and run out', async (t) => {
  const pool = new Pool(t, { subnet: '10.1.0.0/29' });
  const all = [];
  for (const id of ['a', 'b', 'c', 'd', 'e']) all.push(await pool.add(id));
  t.deepEqual(all, ['10.1.0.2', '10.1.0.3', '10.1.0.4', '10.1.0.5', '10.1.0.6']);
  t.regex(
    (await pool.run('ADD', 'f')).error?.msg ?? '',
    /No address is free in 10\.1\.0\.1-10\.1\.0\.6 of network "net"/,
  );
  await pool.run('DEL', 'c');
  t.is(await pool.add('f'), '10.1.0.4');
});

test('a container gets no second address for the same interface, but one for another', async (t) => {
  const pool = new Pool(t);
  await pool.add('one');
  t.regex((await pool.run('ADD', 'one')).error?.msg ?? '', /already has address 10\.1\.0\.2/);
  t.is(await pool.add('one', 'ours', { ifname: 'eth1' }), '10.1.0.3');
  await pool.run('DEL', 'one');
  t.deepEqual(pool.reserved, { '10.1.0.3': 'one\r\neth1' });
});

test('nor does it get a second one by asking for it; a living attachment keeps the one that it has', async (t) => {
  const pool = new Pool(t);
  await pool.add('c', 'ours', { args: 'IP=10.1.0.50' });
  for (const address of ['10.1.0.50', '10.1.0.51'])
    for (const call of [{ args: `IP=${address}` }, { conf: { runtimeConfig: { ips: [address] } } }]) {
      const outcome = await pool.run('ADD', 'c', call);
      t.regex(outcome.error?.msg ?? '', /already has address 10\.1\.0\.50/);
    }
  t.deepEqual(pool.reserved, { '10.1.0.50': 'c\r\neth0' });
});

test('a request that no range set has is told apart from a second one of a set', async (t) => {
  const pool = new Pool(t, { ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: '10.2.0.0/24' }]] });
  for (const [ips, said] of [
    [
      ['10.1.0.5', '10.1.0.6'],
      /10\.1\.0\.6 is requested of 10\.1\.0\.1-10\.1\.0\.254 beside 10\.1\.0\.5, .* gives one/,
    ],
    [
      ['10.1.0.5', '10.77.0.1', '10.77.0.2'],
      /^No range has the requested address 10\.77\.0\.1, 10\.77\.0\.2\. Ask for/,
    ],
  ] as const)
    t.regex((await pool.run('ADD', 'c', { conf: { runtimeConfig: { ips } } })).error?.msg ?? '', said);
  t.is(await pool.add('c'), '10.1.0.2 10.2.0.2');
});

test('a failing second range gives the first address back', async (t) => {
  const pool = new Pool(t, { ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: '10.2.0.0/30' }]] });
  await pool.add('a');
  t.is((await pool.run('ADD', 'b')).error?.code, 999);
  t.is((await pool.run('ADD', 'c', { args: 'IP=10.77.0.1' })).error?.code, 999);
  t.deepEqual(Object.keys(pool.reserved), ['10.1.0.2', '10.2.0.2']);
});

test('an empty file, as a process killed half-way leaves it, costs no address and gives none away twice', async (t) => {
  const pool = new Pool(t, { subnet: '10.1.0.0/29' });
  await pool.add('a');
  pool.write('10.1.0.3', '');
  pool.write('10.1.0.4', 'garbage');
  t.is(await pool.add('b'), '10.1.0.3');
  t.is(pool.read('10.1.0.3'), 'b\r\neth0');
  t.is(await pool.add('c'), '10.1.0.5', 'what is not ours is not ours to give away');
});

test('a reservation of a very old version, without an interface name, is released', async (t) => {
  const pool = new Pool(t);
  await pool.add('a');
  pool.write('10.1.0.9', 'old');
  t.is((await pool.run('CHECK', 'old')).exit, 0);
  t.is((await pool.run('DEL', 'old')).exit, 0);
  t.deepEqual(Object.keys(pool.reserved), ['10.1.0.2']);
});

test('CHECK wants the very address', async (t) => {
  const pool = new Pool(t);
  await pool.add('a');
  const prev = (address: string) => ({ conf: { prevResult: { cniVersion: '1.0.0', ips: [{ address }] } } });
  t.is((await pool.run('CHECK', 'a', prev('10.1.0.2/24'))).exit, 0);
  t.regex(
    (await pool.run('CHECK', 'a', prev('10.1.0.3/24'))).error?.msg ?? '',
    /10\.1\.0\.3 is in use by container "a", but not reserved/,
  );
});

test('GC keeps the valid, in this network only', async (t) => {
  const pool = new Pool(t, { subnet: '10.1.0.0/24' }, { cniVersion: '1.1.0' });
  for (const id of ['a', 'b', 'c']) await pool.add(id);
  await pool.add('b', 'ours', { ifname: 'eth1' });
  await pool.add('z', 'ours', { conf: { name: 'other' } });
  pool.write('10.1.0.99', '');
  // Written by a very old version, without an interface name: the container decides.
  pool.write('10.1.0.98', 'b');
  pool.write('10.1.0.97', 'gone');
  const gc = (valid: unknown) => pool.run('GC', '', { conf: { 'cni.dev/valid-attachments': valid } });
  t.is((await gc(null)).exit, 0);
  t.is(Object.keys(pool.reserved).length, 7);
  t.is((await gc([{ containerID: 'b', ifname: 'eth0' }])).exit, 0);
  t.deepEqual(Object.values(pool.reserved).toSorted(), ['b', 'b\r\neth0']);
  t.is((await gc([])).exit, 0);
  t.deepEqual(pool.reserved, {});
  t.deepEqual(
    readdirSync(join(pool.dataDir, 'other')).filter((name) => name.startsWith('10.')),
    ['10.1.0.2'],
  );
});

test('sixty-four at once, of both suites, each get an address of their own', async (t) => {
  const pool = new Pool(t);
  const ids = Array.from({ length: 64 }, (_, i) => `c${i}`);
  const given = await Promise.all(ids.map((id, i) => pool.add(id, i % 3 === 0 ? 'reference' : 'ours')));
  t.is(new Set(given).size, 64);
  t.is(Object.keys(pool.reserved).length, 64);
  await Promise.all(ids.map((id, i) => pool.run('DEL', id, { suite: i % 2 === 0 ? 'reference' : 'ours' })));
  t.deepEqual(pool.reserved, {});
});

test('killed at any moment, it neither leaks an address nor gives one away twice', async (t) => {
  const pool = new Pool(t);
  const { spawn } = await import('node:child_process');
  const { suites } = await import('../support/plugin.ts');
  for (let i = 0; i < 20; i++) {
    const child = spawn(join(suites.ours, 'host-local'), [], {
      env: {
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: `k${i}`,
        CNI_NETNS: '/x',
        CNI_IFNAME: 'eth0',
        CNI_PATH: suites.ours,
      },
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    child.stdin.on('error', () => {});
    child.stdin.end(
      JSON.stringify({
        cniVersion: '1.0.0',
        name: 'net',
        type: 'x',
        ipam: { type: 'host-local', dataDir: pool.dataDir, ...pool.ipam },
      }),
    );
    setTimeout(() => child.kill('SIGKILL'), 20 + i * 2);
    await new Promise((resolve) => child.on('close', resolve));
  }
  const survivor = await pool.add('survivor');
  t.is(Object.values(pool.reserved).filter((text) => text === 'survivor\r\neth0').length, 1);
  t.true(Object.keys(pool.reserved).includes(survivor));
  for (let i = 0; i < 20; i++) t.is((await pool.run('DEL', `k${i}`)).exit, 0);
  await pool.run('DEL', 'survivor');
  t.deepEqual(
    Object.values(pool.reserved).filter((text) => text !== ''),
    [],
  );
});

test('STATUS: a full range is only told of, a directory where nothing can be written is an error', async (t) => {
  const pool = new Pool(t, { subnet: '10.1.0.0/30' }, { cniVersion: '1.1.0' });
  const fine = await pool.run('STATUS', '');
  t.deepEqual([fine.exit, fine.stderr], [0, '']);
  await pool.add('a');
  const full = await pool.run('STATUS', '');
  t.deepEqual([full.exit, full.stdout], [0, '']);
  t.regex(
    full.stderr,
    /All addresses of 10\.1\.0\.1-10\.1\.0\.2 in network "net" are reserved\. Delete containers/,
  );
  const nowhere = await pool.run('STATUS', '', { ipam: { dataDir: '/proc/nowhere' } });
  t.is(nowhere.error?.code, 50);
  t.regex(
    nowhere.error?.msg ?? '',
    /Cannot write to "\/proc"\. .*Make its parent writable, or set "ipam.dataDir"/,
  );
  const added = await pool.run('ADD', 'a', { ipam: { dataDir: '/proc/nowhere' } });
  t.regex(added.error?.msg ?? '', /Cannot open "\/proc\/nowhere\/net"\. .*Make its parent writable/);
  t.deepEqual(
    readdirSync(pool.dataDir).filter((name) => name.startsWith('.probe')),
    [],
  );
});

test('what it writes stays in its directory, whatever the container is called', async (t) => {
  const pool = new Pool(t);
  const long = 'c'.repeat(300);
  await pool.add(long);
  t.deepEqual(Object.values(pool.reserved), [`${long}\r\neth0`]);
  t.is((await pool.run('CHECK', long)).exit, 0);
  t.is((await pool.run('DEL', long)).exit, 0);
  t.deepEqual(pool.reserved, {});
});

test('relative paths are refused by ADD; DEL and GC go on with what is there', async (t) => {
  const pool = new Pool(t);
  const ipam = { dataDir: relative(process.cwd(), pool.dataDir) };
  const conf = { cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] };
  await pool.add('a');
  await pool.add('b');
  const { exit, error } = await pool.run('ADD', 'c', { ipam: { ...ipam, resolvConf: 'etc/resolv.conf' } });
  t.is(exit, 1);
  t.regex(error!.msg, /"ipam\.dataDir" is "\.\..*", but it must be an absolute path/);
  t.regex(error!.msg, /"ipam\.resolvConf" is "etc\/resolv\.conf", but it must be an absolute path/);
  t.regex((await pool.run('STATUS', '', { ipam, conf })).error!.msg, /must be an absolute path/);
  t.deepEqual(Object.values(pool.reserved), ['a\r\neth0', 'b\r\neth0']);
  t.is((await pool.run('DEL', 'a', { ipam })).exit, 0);
  t.deepEqual(Object.values(pool.reserved), ['b\r\neth0']);
  t.is((await pool.run('GC', '', { ipam, conf })).exit, 0);
  t.deepEqual(pool.reserved, {});
});

test('resolvConf becomes the resolver settings', async (t) => {
  const pool = new Pool(t);
  const file = join(pool.dataDir, 'resolv.conf');
  writeFileSync(
    file,
    '# comment\nnameserver 10.0.0.1\nnameserver fd00::1\ndomain a.example\nsearch b.example c.example\noptions ndots:5\n',
  );
  const { result } = await pool.run('ADD', 'a', { ipam: { resolvConf: file } });
  t.deepEqual(result?.dns, {
    nameservers: ['10.0.0.1', 'fd00::1'],
    domain: 'a.example',
    search: ['b.example', 'c.example'],
    options: ['ndots:5'],
  });
});
