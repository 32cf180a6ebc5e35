/** What host-local takes for reservations of earlier boots, also where hosts share a directory. */

import { mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Store } from '../../../ipam/host-local/store.ts';
import { Address } from '../../../lib/ip.ts';
import { bootId } from '../../../lib/kernel/boot.ts';

/** A directory of reservations, as this host and others see it. */
function directory(t: ExecutionContext) {
  const dataDir = mkdtempSync(join(tmpdir(), 'cni-boots-'));
  t.teardown(() => rmSync(dataDir, { recursive: true, force: true }));
  const index = join(dataDir, '.owners/net');
  /** Edits a file of the index, but keeps its times. */
  const change = (file: string, edit: (text: string) => string) => {
    const path = join(index, file);
    const { atime, mtime } = statSync(path);
    writeFileSync(path, edit(readFileSync(path, 'utf8')));
    utimesSync(path, atime, mtime);
  };
  const inNet = async <T>(work: (store: Store) => T) => {
    using store = await Store.open({ dataDir, network: 'net', warn: (message) => t.fail(message) });
    return work(store);
  };
  return {
    index,
    path: (last: number) => join(dataDir, `net/10.1.0.${last}`),
    change,
    add: (containerId: string, last: number) =>
      inNet((store) => {
        store.releaseEarlierBoots();
        const owner = { network: 'net', containerId, ifname: 'eth0' };
        t.true(store.reserve(Address.parse(`10.1.0.${last}`), owner, 0));
      }),
    release: (containerId: string) =>
      inNet((store) => store.release({ network: 'net', containerId, ifname: 'eth0' })),
    collect: (...kept: string[]) =>
      inNet((store) => store.collect(({ containerId }) => kept.includes(containerId))),
    reserved: () => inNet((store) => store.reserved().map(String).sort()),
    /** As if this boot had been an earlier one. */
    reboot() {
      for (const file of ['stamp', 'hosts']) change(file, (text) => text.replace(bootId()!, 'ended'));
    },
    /** As if another host had made what this one has. */
    move() {
      for (const file of ['stamp', 'hosts']) change(file, (text) => text.replace(bootId()!, 'living'));
      change('hosts', (text) => text.replace(/ \w+$/, ' 0123456789abcdef'));
    },
  };
}

test('what a host has reserved goes with its next boot', async (t) => {
  const { add, reserved, reboot } = directory(t);
  await add('a', 2);
  reboot();
  await add('b', 3);
  t.deepEqual(await reserved(), ['10.1.0.3']);
  await add('c', 4);
  t.deepEqual(await reserved(), ['10.1.0.3', '10.1.0.4']);
});

test('what another host has reserved stays, also after the next boot of this one', async (t) => {
  const { add, reserved, reboot, move } = directory(t);
  await add('a', 2);
  move();
  await add('b', 3);
  t.deepEqual(await reserved(), ['10.1.0.2', '10.1.0.3']);
  reboot();
  await add('c', 4);
  t.deepEqual(await reserved(), ['10.1.0.2', '10.1.0.3', '10.1.0.4']);
});

test('a stamp proves nothing that an earlier release has left, or another host by one', async (t) => {
  const { index, change, add, reserved } = directory(t);
  await add('a', 2);
  change('stamp', () => 'ended');
  await add('b', 3);
  t.deepEqual(await reserved(), ['10.1.0.2', '10.1.0.3']);
  rmSync(join(index, 'hosts'));
  change('stamp', () => 'ended');
  await add('c', 4);
  t.deepEqual(await reserved(), ['10.1.0.2', '10.1.0.3', '10.1.0.4']);
});

test('a host whose number has changed is the only one again once nothing else can be left', async (t) => {
  for (const [what, empty] of [
    ['GC', ({ collect }) => collect('b')],
    ['DEL of the last attachment', ({ release }) => release('b')],
    ['somebody else who removes all', async ({ path }) => rmSync(path(3))],
  ] satisfies [string, (network: ReturnType<typeof directory>) => Promise<void>][]) {
    const network = directory(t);
    const { add, release, reserved, reboot, move } = network;
    await add('a', 2);
    move();
    await add('b', 3);
    if (what !== 'GC') await release('a');
    await empty(network);
    await add('c', 4);
    reboot();
    await add('d', 5);
    t.deepEqual(await reserved(), ['10.1.0.5'], what);
  }
});

test('an ADD that finds nothing reserved leaves the lines of other hosts out', async (t) => {
  const { index, add, release, move } = directory(t);
  await add('a', 2);
  await release('a');
  move();
  await add('b', 3);
  t.regex(readFileSync(join(index, 'hosts'), 'utf8'), new RegExp(`^${bootId()} \\w+$`));
});

test('a host that another one has left out is noted again by its next change', async (t) => {
  const { add, release, reserved, reboot, collect, move } = directory(t);
  await add('a', 2);
  await collect('a');
  move();
  await add('b', 3);
  await collect('a', 'b');
  move();
  await release('b');
  reboot();
  await add('c', 4);
  t.deepEqual(await reserved(), ['10.1.0.2', '10.1.0.4']);
});
