import { existsSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { nodePackage, runTool, targetOf } from '../../../scripts/build/target.ts';

test('an architecture that nobody builds for is refused', (t) => {
  t.throws(() => targetOf('sparc'), { message: 'There is no build for "sparc". Name x64 or arm64' });
});

test('for its own architecture, the machine has everything installed', (t) => {
  const { isNative, libraries, loader, debian, arch } = targetOf(process.arch);
  t.true(isNative);
  t.true(libraries.some((directory) => existsSync(join(directory, loader))));
  for (const [name, { licence, version }] of debian) {
    t.true(existsSync(licence), `licence of ${name}`);
    t.regex(version ?? '', /^\d/, `version of ${name}`);
  }
  t.true(existsSync(join(nodePackage(arch), 'bin/node')));
});

test('a missing compiler is an error that says what to install', (t) => {
  const target = { ...targetOf(process.arch), packages: 'musl-tools binutils' };
  t.throws(() => runTool(target, 'no-such-compiler', []), {
    message: '"no-such-compiler" is missing. Install it with "apt-get install musl-tools binutils"',
  });
});
