/** The bill of materials of the built tree: all that is in it, and nothing else. */

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { privatePrefix } from '../../../launcher/launch.ts';
import packageJson from '../../../package.json' with { type: 'json' };
import packageLock from '../../../package-lock.json' with { type: 'json' };
import { bundledPackages, type Component, type Sbom, sbomFile } from '../../../scripts/build/sbom.ts';
import { debianPackageOf } from '../../../scripts/build/target.ts';
import { binDir } from '../../support/host.ts';

const hidden = join(binDir, readdirSync(binDir).find((name) => name.startsWith(privatePrefix))!);
const bill = JSON.parse(readFileSync(join(hidden, sbomFile), 'utf8')) as Sbom;
const sha256 = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');

test('it is of this project, in the format, and has no reference twice or astray', (t) => {
  t.is(bill.bomFormat, 'CycloneDX');
  t.is(bill.specVersion, '1.6');
  t.is(bill.metadata.component.name, packageJson.name);
  t.is(bill.metadata.component.version, packageJson.version);
  const refs = bill.components.map((component) => component['bom-ref']);
  t.is(new Set(refs).size, refs.length);
  const [own, ...others] = bill.dependencies;
  t.deepEqual(own, { ref: packageJson.name, dependsOn: refs as string[] });
  t.deepEqual(
    others.map(({ ref }) => ref),
    refs as string[],
  );
});

test('every file that is shipped is in it, with its digest', (t) => {
  const files = [bill.metadata.component, ...bill.components]
    .flatMap(({ components = [] }) => components)
    .filter(({ type }) => type === 'file');
  const listed = Object.fromEntries(files.map(({ name, hashes }) => [name, hashes![0]!.content]));
  const shipped = readdirSync(hidden, { withFileTypes: true }).filter(
    (entry) => entry.isFile() && entry.name !== sbomFile,
  );
  t.deepEqual(listed, Object.fromEntries(shipped.map(({ name }) => [name, sha256(join(hidden, name))])));
});

test('every npm package whose code is in the executable is in it, and no other', (t) => {
  const executable = readFileSync(join(hidden, 'cni-plugins'), 'latin1');
  const names = bill.components.filter(({ purl }) => purl?.startsWith('pkg:npm/')).map(({ name }) => name);
  for (const name of ['yargs', 'ip-num', 'jsonc-parser', 'prom-client', 'node']) t.true(names.includes(name));
  // Texts that survive minification, of packages that are shipped and of those that only build and test.
  for (const [text, name] of [
    ['Unknown argument: %s', 'yargs'],
    ['process_cpu_user_seconds_total', 'prom-client'],
  ] as const)
    t.is(executable.includes(text), names.includes(name), name);
  for (const name of ['ava', 'esbuild', 'typescript', 'fast-check', '@grpc/grpc-js'])
    t.false(names.includes(name), name);
});

test('what the packages in it need is in it as well', (t) => {
  const names = bill.components.filter(({ purl }) => purl?.startsWith('pkg:npm/')).map(({ name }) => name);
  const packages = packageLock.packages as Record<string, { dependencies?: Record<string, string> }>;
  const needed = new Set(['yargs', 'ip-num', 'jsonc-parser', 'prom-client']);
  // Iterating over a set includes what is added meanwhile.
  for (const name of needed)
    for (const dependency of Object.keys(packages[`node_modules/${name}`]?.dependencies ?? {}))
      needed.add(dependency);
  t.deepEqual(
    [...needed].filter((name) => !names.includes(name)),
    [],
  );
});

test('every part has a version, a package URL and licences', (t) => {
  const isComplete = ({ name, version, purl, licenses }: Component) => {
    t.regex(version ?? '', /^\d/, name);
    t.regex(purl ?? '', /^pkg:(?:npm|deb)\/\S+@\S+$/, name);
    t.is(licenses?.length, 1, name);
  };
  for (const component of bill.components) isComplete(component);
  const node = bill.components.find(({ name }) => name === 'node')!;
  const parts = new Map(node.components!.map(({ name, version }) => [name, version]));
  for (const name of ['v8', 'openssl', 'uv', 'zlib'])
    t.is(parts.get(name), process.versions[name as 'v8'], name);
});

test('packages are those that esbuild says have bytes in a bundle', (t) => {
  const metafile = (inputs: Record<string, number>) => ({
    inputs: {},
    outputs: {
      'main.js': {
        bytes: 1,
        imports: [],
        exports: [],
        inputs: Object.fromEntries(
          Object.entries(inputs).map(([file, bytesInOutput]) => [file, { bytesInOutput }]),
        ),
      },
    },
  });
  const found = bundledPackages([
    metafile({ 'lib/ip.ts': 9, 'node_modules/yargs/index.mjs': 9, 'node_modules/yaml/index.js': 0 }),
    metafile({ '../elsewhere/node_modules/yargs/other.mjs': 1, 'node_modules/@opentelemetry/api/a.js': 1 }),
  ]);
  t.deepEqual(
    found.map(({ name }) => name),
    ['@opentelemetry/api', 'yargs'],
  );
  t.throws(() => bundledPackages([metafile({ 'node_modules/none-such/index.js': 1 })]));
});

test('each library belongs to a Debian package', (t) => {
  for (const [file, name] of [
    ['libstdc++.so.6', 'libstdc++6'],
    ['libgcc_s.so.1', 'libgcc-s1'],
    ['libatomic.so.1', 'libatomic1'],
    ['libc.so.6', 'libc6'],
    ['ld-linux-x86-64.so.2', 'libc6'],
  ] as const)
    t.is(debianPackageOf(file), name);
});

test('docs/supply-chain.md has each npm package of the project in the table where it belongs, and no other', (t) => {
  const page = readFileSync(join(import.meta.dirname, '../../../docs/supply-chain.md'), 'utf8');
  /** What the rows of a section have in code type. */
  const namesIn = (title: string) =>
    page
      .split(`\n## ${title}\n`)[1]!
      .split('\n## ')[0]!
      .split('\n')
      .filter((line) => line.startsWith('| '))
      .flatMap((line) => [...line.matchAll(/`([^`]+)`/g)].map(([, name]) => name!));
  const [shipped, built] = ['What is shipped', 'What builds and tests it'].map(namesIn) as [
    string[],
    string[],
  ];
  const billed = new Set(bill.components.map(({ name }) => name));
  const isShipped = (name: string) => billed.has(name) || name.startsWith('node-linux-');
  const all = Object.keys(packageJson.devDependencies);
  t.deepEqual(
    all.filter((name) => !(isShipped(name) ? shipped : built).includes(name)),
    [],
  );
  t.deepEqual(
    built.filter((name) => !all.includes(name) || isShipped(name)),
    [],
  );
});
