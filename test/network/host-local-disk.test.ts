/**
 * host-local on disks that are full or read-only, and on directories that somebody has tampered with.
 * Runs once: no agent takes part.
 */

import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type Disk, fill, mountDisk } from '../support/full-disk.ts';
import { Namespace } from '../support/host.ts';
import { type Outcome, type PluginCall, runPlugin, type Suite } from '../support/plugin.ts';
import { run } from '../support/run.ts';

const here = new Namespace([]);

interface CallOptions extends PluginCall {
  ipam?: object;
  conf?: object;
}

/** One network's reservations: how to call host-local on them, and where to look for what it did. */
class Network {
  readonly inside: Namespace;
  readonly dataDir: string;
  /** The directory as this process sees it. */
  readonly seen: string;

  constructor(inside: Namespace, dataDir: string, seen: string) {
    this.inside = inside;
    this.dataDir = dataDir;
    this.seen = seen;
  }

  call(
    command: string,
    containerId: string,
    { ipam = {}, conf = {}, ...rest }: CallOptions = {},
  ): Promise<Outcome> {
    return runPlugin(this.inside, 'host-local', command, {
      containerId,
      netns: '/run/netns/unused',
      config: {
        cniVersion: '1.1.0',
        name: 'net',
        type: 'bridge',
        ...conf,
        ipam: { type: 'host-local', dataDir: this.dataDir, subnet: '10.1.0.0/24', ...ipam },
      },
      ...rest,
    });
  }

  async add(
    t: ExecutionContext,
    containerId: string,
    call: CallOptions & { suite?: Suite } = {},
  ): Promise<string> {
    const outcome = await this.call('ADD', containerId, call);
    t.is(outcome.exit, 0, outcome.stdout);
    return outcome.result!.ips!.map(({ address }) => address.split('/')[0]).join(' ');
  }

  async del(t: ExecutionContext, containerId: string): Promise<Outcome> {
    const outcome = await this.call('DEL', containerId);
    t.is(outcome.exit, 0, outcome.stdout);
    return outcome;
  }

  gc(valid: { containerID: string; ifname: string }[]): Promise<Outcome> {
    return this.call('GC', '', { conf: { 'cni.dev/valid-attachments': valid } });
  }

  path(name: string): string {
    return join(this.seen, 'net', name);
  }

  /** Addresses that have an entry. */
  get addresses(): string[] {
    return readdirSync(join(this.seen, 'net')).filter((name) => /^[\d.]+$|:/.test(name));
  }
}

function onDisk(disk: Disk): Network {
  return new Network(disk.inside, disk.path, disk.file(''));
}

function inDirectory(t: ExecutionContext): Network {
  const directory = mkdtempSync(join(tmpdir(), 'host-local-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return new Network(here, directory, directory);
}

for (const [what, options, inodes] of [
  ['no space', 'size=128k', false],
  ['neither space nor inodes', 'size=128k,nr_inodes=24', true],
] as const)
  test(`a disk with ${what} left: a failed ADD leaves nothing, DEL and GC release`, async (t) => {
    const disk = await mountDisk(t, options);
    const network = onDisk(disk);
    for (const id of ['a', 'b', 'c', 'd']) await network.add(t, id);
    await fill(disk, { inodes });

    const failed = await network.call('ADD', 'late');
    t.not(failed.exit, 0);
    t.regex(
      failed.error?.msg ?? '',
      /Cannot write reservation "\/mnt\/net\/10\.1\.0\.6"\. The file system is full\. Free/,
    );
    t.deepEqual(network.addresses.sort(), ['10.1.0.2', '10.1.0.3', '10.1.0.4', '10.1.0.5']);
    const status = await network.call('STATUS', '');
    t.is(status.error?.code, 50, status.stdout);
    t.regex(status.error?.msg ?? '', /The file system is full/);

    await network.del(t, 'b');
    t.false(existsSync(network.path('10.1.0.3')));
    // What DEL freed is used up again.
    await fill(disk, { inodes });
    t.is((await network.call('CHECK', 'a')).exit, 0);
    t.is((await network.gc([{ containerID: 'a', ifname: 'eth0' }])).exit, 0);
    t.deepEqual(network.addresses, ['10.1.0.2']);

    await disk.inside.run(['sh', '-c', `rm ${disk.path}/filler*`]);
    t.is(await network.add(t, 'e'), '10.1.0.6', 'the cursor was kept');
    await network.del(t, 'a');
    await network.del(t, 'e');
    t.deepEqual(network.addresses, []);
  });

test('a disk on which the first range set fits and the second does not: the first is taken back', async (t) => {
  // Two pages are left: a reservation and its index entry, or a cursor.
  const disk = await mountDisk(t, 'size=128k,nr_inodes=64');
  const network = onDisk(disk);
  const ipam = { ranges: [[{ subnet: '10.2.0.0/24' }], [{ subnet: '10.3.0.0/24' }]] };
  await network.add(t, 'a', { ipam });
  const before = network.addresses;
  for (let pages = 0; pages <= 6; pages++) {
    await fill(disk);
    await disk.inside.run(['truncate', `--size=-${pages * 4096}`, `${disk.path}/filler`]);
    const outcome = await network.call('ADD', 'late', { ipam });
    if (outcome.exit !== 0) t.deepEqual(network.addresses, before, `${pages} pages: ${outcome.stdout}`);
    else await network.del(t, 'late');
    t.deepEqual(network.addresses, before, `${pages} pages`);
  }
});

test('a read-only disk: the file and the way out are named, and nothing is torn', async (t) => {
  const disk = await mountDisk(t, 'size=1m');
  const network = onDisk(disk);
  await network.add(t, 'a');
  await disk.inside.run(['mount', '-o', 'remount,ro', disk.path]);
  for (const [command, id, code] of [
    ['ADD', 'b', 5],
    ['DEL', 'a', 5],
    ['STATUS', '', 50],
  ] as const) {
    const { error } = await network.call(command, id);
    t.is(error?.code, code, command);
    t.regex(error?.msg ?? '', /"\/mnt.*"\. The file system is read-only\. Remount it writable/, command);
  }
  t.is((await network.call('CHECK', 'a')).exit, 0);
  t.is(readFileSync(network.path('10.1.0.2'), 'latin1'), 'a\r\neth0');
});

test('one entry that cannot be used keeps nobody from an address or from giving one back', async (t) => {
  const network = inDirectory(t);
  for (const id of ['a', 'b', 'c']) await network.add(t, id);
  writeFileSync(network.path('10.1.0.10'), Buffer.alloc(70));
  writeFileSync(network.path('10.1.0.11'), 'x/../../y\r\neth0');
  writeFileSync(network.path('10.1.0.12'), 'd'.repeat(100_000));
  mkdirSync(network.path('10.1.0.13'));
  symlinkSync('10.1.0.14', network.path('10.1.0.14'));
  await run(['mkfifo', network.path('10.1.0.15')]);
  writeFileSync(network.path('10.1.0.16'), '../../../escape\r\n../../up');

  t.is(await network.add(t, 'e'), '10.1.0.5');
  t.is((await network.call('CHECK', 'a')).exit, 0);
  const deleted = await network.del(t, 'a');
  t.false(existsSync(network.path('10.1.0.2')));
  t.is(deleted.stdout, '');
  const status = await network.call('STATUS', '');
  t.is(status.exit, 0);
  t.regex(status.stderr, /"[^"]*\/net\/10\.1\.0\.1\d" is not a reservation, and 6 more like it.*Remove it/);
  const again = await network.call('DEL', 'nobody');
  t.is(again.exit, 0);
  t.regex(again.stderr, /is not a reservation/);

  const collected = await network.gc([{ containerID: 'b', ifname: 'eth0' }]);
  t.is(collected.exit, 0, collected.stdout);
  t.deepEqual(network.addresses.sort(), ['10.1.0.12', '10.1.0.13', '10.1.0.14', '10.1.0.15', '10.1.0.3']);
  t.true(lstatSync(network.path('10.1.0.14')).isSymbolicLink());
  // Whatever a file said, nothing is outside of the two directories.
  t.deepEqual(readdirSync(network.seen).sort(), ['.owners', 'net']);
  t.deepEqual(readdirSync(join(network.seen, '.owners')), ['net']);
});

test('links, FIFOs and directories in place of its own files lead nowhere', async (t) => {
  for (const kind of ['link', 'fifo', 'directory'] as const) {
    const network = inDirectory(t);
    await network.add(t, 'a');
    const victim = join(network.seen, 'victim');
    const put = async (path: string) => {
      rmSync(path, { recursive: true, force: true });
      if (kind === 'link') {
        writeFileSync(victim, 'precious', { mode: 0o644 });
        symlinkSync(victim, path);
      } else if (kind === 'fifo') await run(['mkfifo', path]);
      else mkdirSync(path);
    };
    await put(network.path('10.1.0.3'));
    await put(network.path('last_reserved_ip.0'));
    for (const name of readdirSync(join(network.seen, '.owners/net')))
      await put(join(network.seen, '.owners/net', name));
    const given = await network.add(t, 'b');
    t.is(given, '10.1.0.4', kind);
    await network.del(t, 'a');
    await network.del(t, 'b');
    t.deepEqual(network.addresses, ['10.1.0.3'], kind);

    await put(network.path('lock'));
    const refused = await network.call('ADD', 'c');
    t.is(refused.exit, 1, kind);
    t.regex(refused.error?.msg ?? '', /Cannot lock "[^"]*\/net\/lock"\. .*Remove it/, kind);
    if (kind !== 'link') continue;
    t.is(readFileSync(victim, 'utf8'), 'precious');
    t.is(statSync(victim).mode & 0o777, 0o644);
  }
});

test('a link in place of a directory of ours is refused or done without; dataDir itself may be one', async (t) => {
  const network = inDirectory(t);
  const elsewhere = mkdtempSync(join(tmpdir(), 'elsewhere-'));
  t.teardown(() => rmSync(elsewhere, { recursive: true, force: true }));
  mkdirSync(join(elsewhere, 'net'));
  writeFileSync(join(elsewhere, 'net/10.1.0.9'), 'precious\r\neth0');

  symlinkSync(elsewhere, join(network.seen, '.owners'));
  await network.add(t, 'a');
  t.is((await network.call('ADD', 'a')).exit, 1, 'found without an index');
  await network.del(t, 'a');
  t.deepEqual(network.addresses, []);

  rmSync(join(network.seen, 'net'), { recursive: true });
  symlinkSync(join(elsewhere, 'net'), join(network.seen, 'net'));
  for (const command of ['ADD', 'DEL']) {
    const { error } = await network.call(command, 'precious');
    t.is(error?.code, 5, command);
    t.regex(
      error?.msg ?? '',
      /Cannot open "[^"]*\/net"\. .*is a symbolic link, which is not followed here/,
      command,
    );
  }
  t.is((await network.call('STATUS', '')).error?.code, 50);
  t.deepEqual(readdirSync(elsewhere), ['net']);
  t.deepEqual(readdirSync(join(elsewhere, 'net')), ['10.1.0.9']);

  const linked = new Network(here, join(elsewhere, 'data'), join(elsewhere, 'data'));
  mkdirSync(join(elsewhere, 'disk'));
  symlinkSync(join(elsewhere, 'disk'), linked.seen);
  t.is(await linked.add(t, 'a'), '10.1.0.2');
  t.is((await linked.call('STATUS', '')).exit, 0);
  await linked.del(t, 'a');
  t.deepEqual(linked.addresses, []);
});

test('a reservation that was edited in place is released for its new owner', async (t) => {
  const network = inDirectory(t);
  for (const id of ['a', 'b']) await network.add(t, id);
  const directory = statSync(join(network.seen, 'net'));
  writeFileSync(network.path('10.1.0.2'), 'a\r\neth7');
  writeFileSync(network.path('10.1.0.3'), 'other\r\neth0');
  // Writing in place leaves the directory's time alone.
  t.is(statSync(join(network.seen, 'net')).mtimeMs, directory.mtimeMs);
  t.is((await network.call('CHECK', 'other')).exit, 0);
  await network.del(t, 'other');
  t.deepEqual(network.addresses, ['10.1.0.2']);
  await network.del(t, 'a');
  t.deepEqual(network.addresses, ['10.1.0.2'], 'eth0 has nothing any more');
  t.is((await network.call('DEL', 'a', { ifname: 'eth7' })).exit, 0);
  t.deepEqual(network.addresses, []);
});

test('an empty file that was taken over by a process that was killed as well is released by DEL', async (t) => {
  const network = inDirectory(t);
  await network.add(t, 'a');
  const stamp = statSync(join(network.seen, '.owners/net/stamp'));
  writeFileSync(network.path('10.1.0.3'), '');
  utimesSync(join(network.seen, 'net'), stamp.atimeMs / 1000, stamp.mtimeMs / 1000);
  // As left by a process that took the empty file over, and was killed before it could update the index.
  writeFileSync(network.path('10.1.0.3'), 'killed\r\neth0');
  t.is(statSync(join(network.seen, 'net')).mtimeMs, stamp.mtimeMs);
  await network.del(t, 'killed');
  t.deepEqual(network.addresses, ['10.1.0.2']);

  // This suite takes a file over by replacing it, which changes the directory's time: nothing is read twice.
  writeFileSync(network.path('10.1.0.3'), '');
  utimesSync(join(network.seen, 'net'), stamp.atimeMs / 1000, stamp.mtimeMs / 1000);
  const before = statSync(network.path('10.1.0.3')).birthtimeMs;
  t.is(await network.add(t, 'b', { args: 'IP=10.1.0.3' }), '10.1.0.3');
  t.not(statSync(network.path('10.1.0.3')).birthtimeMs, before);
});

test('DEL and GC remove the empty file of an ADD that was killed before it wrote who it was for', async (t) => {
  const network = inDirectory(t);
  await network.add(t, 'a');
  writeFileSync(network.path('10.1.0.3'), '');
  await network.del(t, 'killed');
  t.deepEqual(network.addresses, ['10.1.0.2']);
  writeFileSync(network.path('10.1.0.3'), '');
  await network.gc([{ containerID: 'a', ifname: 'eth0' }]);
  t.deepEqual(network.addresses, ['10.1.0.2']);
});

test('a second ADD of a living attachment is refused and its reservations stay, whichever range set it fails in', async (t) => {
  const network = inDirectory(t);
  const ipam = { subnet: undefined, ranges: [[{ subnet: '10.2.0.0/24' }], [{ subnet: '10.3.0.0/24' }]] };
  await network.add(t, 'a', { ipam });
  const both = ['10.2.0.2', '10.3.0.2'];
  const second = await network.call('ADD', 'a', { ipam });
  t.regex(second.error?.msg ?? '', /already has address 10\.2\.0\.2/);
  t.deepEqual(network.addresses.sort(), both);
  // One of its addresses is gone: that set reserves nothing as long as the other one refuses.
  for (const gone of both) {
    const kept = both.filter((address) => address !== gone);
    rmSync(network.path(gone));
    t.is((await network.call('ADD', 'a', { ipam })).exit, 1);
    t.deepEqual(network.addresses, kept);
    writeFileSync(network.path(gone), 'a\r\neth0');
  }
  // A request in the first set is granted before the second fails: only that one is taken back.
  await network.add(t, 'b', { ipam });
  const third = await network.call('ADD', 'c', {
    ipam,
    args: 'IP=10.2.0.77',
    conf: { args: { cni: { ips: ['10.3.0.2'] } } },
  });
  t.regex(third.error?.msg ?? '', /10\.3\.0\.2 is reserved already/);
  t.deepEqual(network.addresses.sort(), ['10.2.0.2', '10.2.0.3', '10.3.0.2', '10.3.0.3']);
});

test('a result that nobody takes: the reservations of that call are gone, and no others', async (t) => {
  const network = inDirectory(t);
  await network.add(t, 'a');
  const config = {
    cniVersion: '1.0.0',
    name: 'net',
    type: 'bridge',
    ipam: {
      type: 'host-local',
      dataDir: network.dataDir,
      ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: '10.2.0.0/24' }]],
    },
  };
  const { suites } = await import('../support/plugin.ts');
  const outcome = await here.tryRun(['sh', '-c', `"$0" > /dev/full`, join(suites.ours, 'host-local')], {
    stdin: JSON.stringify(config),
    env: {
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: 'b',
      CNI_NETNS: '/x',
      CNI_IFNAME: 'eth0',
      CNI_PATH: suites.ours,
    },
  });
  t.not(outcome.exit, 0);
  t.deepEqual(network.addresses, ['10.1.0.2']);
});

test('GC of a thousand reservations, half of them stale, and one that cannot be removed', async (t) => {
  const network = inDirectory(t);
  await network.add(t, 'a');
  const valid = [{ containerID: 'a', ifname: 'eth0' }];
  for (let i = 0; i < 1000; i++) {
    writeFileSync(network.path(`10.1.${i >> 8}.${i & 255}`), `c${i}\r\neth0`);
    if (i % 2 === 0) valid.push({ containerID: `c${i}`, ifname: 'eth0' });
  }
  const stubborn = network.path('10.1.1.1');
  const immutable = await run(['chattr', '+i', stubborn]).then(
    () => true,
    () => false,
  );
  if (immutable) t.teardown(async () => void (await run(['chattr', '-i', stubborn])));
  const outcome = await network.gc(valid);
  if (immutable) {
    t.is(outcome.error?.code, 5, outcome.stdout);
    t.regex(outcome.error?.msg ?? '', /Cannot remove reservation "[^"]*10\.1\.1\.1"\. .*lsattr/);
    await run(['chattr', '-i', stubborn]);
  } else t.is(outcome.exit, 0);
  t.is(network.addresses.length, 500 + (immutable ? 1 : 0));
});

test('a lock that is held for ever: an error in bounded time that names it', async (t) => {
  const network = inDirectory(t);
  await network.add(t, 'a');
  const holder = await here.start(t, [
    'flock',
    network.path('lock'),
    'sh',
    '-c',
    'echo held; exec sleep 120',
  ]);
  const started = Date.now();
  const outcome = await network.call('DEL', 'a');
  t.is(outcome.error?.code, 11, outcome.stdout);
  t.regex(outcome.error?.msg ?? '', /has held the lock "[^"]*\/net\/lock" for 30 seconds/);
  t.true(Date.now() - started < 60_000);
  holder.kill('SIGKILL');
});

test('resolvConf that has no end or no writer', async (t) => {
  const network = inDirectory(t);
  const fifo = join(network.seen, 'fifo');
  await run(['mkfifo', fifo]);
  for (const resolvConf of ['/dev/zero', fifo, network.seen]) {
    const outcome = await network.call('ADD', 'a', { ipam: { resolvConf } });
    t.is(outcome.error?.code, 999, outcome.stdout);
    t.regex(outcome.error?.msg ?? '', /Cannot read "ipam.resolvConf".*Correct the path/);
  }
  t.false(existsSync(network.path('10.1.0.2')));
});
