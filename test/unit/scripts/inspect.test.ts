import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { privatePrefix } from '../../../launcher/launch.ts';
import { inspectTree, readElf } from '../../../scripts/build/inspect.ts';
import { targetOf } from '../../../scripts/build/target.ts';
import { binDir } from '../../support/host.ts';

const target = targetOf(process.arch);
const hidden = readdirSync(binDir).find((name) => name.startsWith(privatePrefix))!;

/** A copy of the built tree, made of links, with bridge as its only plugin. */
function copyTree(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'inspect-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  mkdirSync(join(directory, hidden));
  for (const entry of readdirSync(join(binDir, hidden), { withFileTypes: true }))
    if (entry.isFile()) symlinkSync(join(binDir, hidden, entry.name), join(directory, hidden, entry.name));
  copyFileSync(join(binDir, 'bridge'), join(directory, 'bridge'));
  return directory;
}

test('the built tree has all that it needs', (t) => {
  t.notThrows(() => inspectTree(target, copyTree(t), hidden, ['bridge']));
});

test('a library that another one needs must be there', (t) => {
  const directory = copyTree(t);
  rmSync(join(directory, hidden, 'libatomic.so.1'));
  t.throws(() => inspectTree(target, directory, hidden, ['bridge']), {
    message: /cni-plugins" needs "libatomic\.so\.1", which is not there/,
  });
});

test('the loader must be there', (t) => {
  const directory = copyTree(t);
  rmSync(join(directory, hidden, target.loader));
  t.throws(() => inspectTree(target, directory, hidden, ['bridge']), {
    message: new RegExp(`lacks "${target.loader.replaceAll('.', '\\.')}"`),
  });
});

test('a launcher that needs a library of the host is refused', (t) => {
  const directory = copyTree(t);
  copyFileSync('/bin/true', join(directory, 'bridge'));
  t.throws(() => inspectTree(target, directory, hidden, ['bridge']), { message: /bridge" needs "\/lib/ });
});

test('a tree for another machine is refused', (t) => {
  const other = { machine: 'PDP-11', loader: target.loader };
  t.throws(() => inspectTree(other, copyTree(t), hidden, ['bridge']), {
    message: /bridge" is for ".+", not for "PDP-11"/,
  });
});

test('what a program says of itself is read', (t) => {
  const { interpreter, needed, machine } = readElf('/bin/true');
  t.regex(interpreter ?? '', /ld-linux/);
  t.true(needed.includes('libc.so.6'));
  t.is(machine, target.machine);
});
