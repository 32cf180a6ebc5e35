/** Opening namespaces by paths that lead to all sorts of things: it never waits, and says what is there. */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Netns, NetnsGoneError } from '../../../lib/kernel/netns.ts';

const directory = mkdtempSync(join(tmpdir(), 'cni-netns-'));
test.after.always(() => rmSync(directory, { recursive: true, force: true }));

test('what is not a network namespace is refused at once, by name', async (t) => {
  const at = (name: string) => join(directory, name);
  execFileSync('mkfifo', [at('fifo')]);
  writeFileSync(at('file'), '');
  symlinkSync('loop', at('loop'));
  symlinkSync('fifo', at('link'));
  const server = createServer().listen(at('socket'));
  await new Promise((resolve) => server.once('listening', resolve));
  for (const [path, pattern] of [
    [at('fifo'), /"\S+" is a FIFO, not a network namespace/],
    [at('link'), /is a FIFO/],
    [at('file'), /is a file, not a network namespace/],
    [at('loop'), /is a symbolic link that leads in a circle/],
    [at('socket'), /is a socket/],
    [directory, /is a directory/],
    ['/dev/zero', /is a device/],
    ['/dev/tty', /is a device/],
    ['/proc/self/ns/mnt', /is a file, not a network namespace/],
    [at('missing'), /does not exist/],
    [at('file/below'), /does not exist/],
    ['/proc/999999999/ns/net', /does not exist/],
  ] as const) {
    t.throws(() => Netns.open(path), { instanceOf: NetnsGoneError, message: pattern }, path);
    t.is(Netns.openIfPresent(path), undefined);
  }
  server.close();
});

test('a namespace is opened by any path to it', (t) => {
  symlinkSync('/proc/self/ns/net', join(directory, 'own'));
  for (const path of ['/proc/self/ns/net', join(directory, 'own')]) {
    using netns = Netns.open(path);
    t.is(netns.path, path);
    t.is(
      netns.run(() => 5),
      5,
    );
  }
});

test('a thread comes back to where it was, from within another namespace and after a failure too', (t) => {
  const where = () => readlinkSync('/proc/thread-self/ns/net');
  using outer = Netns.create();
  using inner = Netns.create();
  const own = where();
  const seen = outer.run(() => [where(), inner.run(where), where()]);
  t.is(new Set([own, ...seen]).size, 3);
  t.is(seen[0], seen[2]);
  t.is(where(), own);
  t.throws(() =>
    outer.run(() =>
      inner.run(() => {
        throw new Error('inside');
      }),
    ),
  );
  t.is(where(), own);
  t.deepEqual(
    outer.run(() => inner.run(where)),
    seen[1],
  );
});

test('a path that the kernel refuses is an error, not a container that is gone', (t) => {
  const error = t.throws(() => Netns.openIfPresent(`/${'x'.repeat(300)}`));
  t.false(error instanceof NetnsGoneError);
  t.regex(error.message, /Cannot open network namespace .*\(ENAMETOOLONG\)/);
});

test('a namespace has one identity, by whatever path, and none of a namespace that is gone', (t) => {
  using own = Netns.current();
  using same = Netns.open('/proc/self/ns/net');
  t.is(own.identity(), same.identity());
  const seen = new Set([own.identity()]);
  // The kernel reuses the inode number of a namespace that is gone.
  for (let i = 1; i <= 5; i++) {
    using netns = Netns.create();
    seen.add(netns.identity());
    t.is(seen.size, 1 + i);
  }
});
