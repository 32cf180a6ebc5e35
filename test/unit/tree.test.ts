import { join } from 'node:path';
import test from 'ava';
import {
  deadExports,
  importCircles,
  layerViolations,
  loadedBy,
  longFiles,
  pluginViolations,
  processUses,
  readSourceTree,
  type SourceTree,
  wideComments,
} from '../support/source-tree.ts';

const tree = readSourceTree(join(import.meta.dirname, '../..'));
const treeOf = (files: Record<string, string>): SourceTree => new Map(Object.entries(files));

/** Files that may use the state of the process. */
const ownProcess = [
  // The dhcp daemon is a process of its own.
  'ipam/dhcp.ts',
  'ipam/dhcp/daemon.ts',
  'ipam/dhcp/lease.ts',
  // Ends the process when main.ts says so.
  'lib/netlink/libc.ts',
  // Aborts when it cannot leave a namespace, in which nothing must be done any more.
  'lib/kernel/netns.ts',
];

/** Exports that no import statement names. */
const usedOtherwise = [
  // By the first module of each bundle, which scripts/build.ts writes.
  'main.ts: main',
  'cli/main.ts: main',
  'lib/netlink/libc.ts: exitImmediately',
  // By the table of plugins, which the build derives from the folders.
  ...[...tree.keys()]
    .filter((file) => /^(?:plugins|ipam)\/[^/]+$/.test(file))
    .map((file) => `${file}: plugin`),
  'ipam/dhcp.ts: command',
];

test('no file imports itself by way of others, not even for types', (t) => {
  t.deepEqual(importCircles(tree), []);
});

test('each folder of lib/ imports only those below it', (t) => {
  t.deepEqual(layerViolations(tree), []);
});

test('plugins import only lib/ and files of their own', (t) => {
  t.deepEqual(pluginViolations(tree), []);
});

test('no file has more than 300 lines', (t) => {
  t.deepEqual(longFiles(tree, 300), []);
});

test('comments keep within 110 columns', (t) => {
  t.deepEqual(wideComments(tree, 110), []);
});

test('nothing that serves a call uses the state of the process', (t) => {
  t.deepEqual(processUses(tree, ownProcess), []);
});

test('every export is used by another file', (t) => {
  t.deepEqual(deadExports(tree, usedOtherwise), []);
});

test('plugins load of the firewall only what they are told to use', (t) => {
  const firewall = (file: string) => loadedBy(tree, file).filter((one) => one.startsWith('lib/firewall/'));
  t.true(loadedBy(tree, 'lib/cni/runner.ts').includes('lib/cni/config.ts'));
  t.deepEqual(firewall('lib/cni/runner.ts'), []);
  // It needs the names of the backends from that.
  t.deepEqual(firewall('plugins/ptp.ts'), ['lib/firewall/backend.ts']);
});

test('what serves metrics is loaded only when they are asked for', (t) => {
  const importing = (pattern: RegExp) =>
    [...tree].filter(([, text]) => pattern.test(text)).map(([file]) => file);
  t.deepEqual(importing(/from 'prom-client'/), ['agent/metrics.ts']);
  t.deepEqual(importing(/from '[^']*\/metrics\.ts'/), []);
  t.deepEqual(importing(/await import\('\.\.\/agent\/metrics\.ts'\)/), ['cli/agent.ts']);
});

test('what makes spans, and the log, are loaded only when they are asked for', (t) => {
  const importing = (pattern: RegExp) =>
    [...tree].filter(([, text]) => pattern.test(text)).map(([file]) => file);
  t.deepEqual(importing(/from '@opentelemetry\//), ['agent/tracing.ts']);
  t.deepEqual(importing(/from '[^']*\/(?:tracing|log\/writer)\.ts'/), []);
  t.deepEqual(importing(/await import\('\.\.\/agent\/tracing\.ts'\)/), ['cli/agent.ts']);
  t.deepEqual(importing(/await import\('\.\/log\/writer\.ts'\)/), ['lib/cni/log.ts']);
  t.deepEqual(importing(/from '\.\/log\/[^']*'/), [], 'only what the log itself loads may import its parts');
});

test('what asks the Kubernetes API, and reads YAML for it, is loaded only when it is configured', (t) => {
  const importing = (pattern: RegExp) =>
    [...tree].filter(([, text]) => pattern.test(text)).map(([file]) => file);
  t.deepEqual(importing(/from 'js-yaml'|import\('js-yaml'\)/), [
    'cli/terminal.ts',
    'lib/kubernetes/kubeconfig.ts',
  ]);
  const asking = importing(/from '[^']*\/kubernetes\/[^']*'/);
  t.deepEqual(
    asking.filter((file) => !/^(?:scripts|ipam\/whereabouts\/kubernetes)\//.test(file)),
    ['lib/networks/pod-api.ts'],
  );
  t.deepEqual(importing(/^import (?!type )[^;]* from '[^']*\/pod-api\.ts'/m), []);
  t.deepEqual(importing(/await import\('\.\/pod-api\.ts'\)/), ['lib/networks/several.ts']);
  t.deepEqual(importing(/await import\('\.\/whereabouts\/kubernetes\/backend\.ts'\)/), [
    'ipam/whereabouts.ts',
  ]);
});

test('the whole tree is checked', (t) => {
  t.true(tree.size > 100);
  for (const file of [
    'main.ts',
    'lib/ip.ts',
    'plugins/bridge.ts',
    'ipam/dhcp/daemon.ts',
    'scripts/build/train.ts',
  ])
    t.true(tree.has(file), file);
});

test('a circle is found, whichever way its imports are written', (t) => {
  const inTwo = (back: string) =>
    importCircles(treeOf({ 'cli/a.ts': "import { b } from './b.ts';\n", 'cli/b.ts': back }));
  for (const back of [
    "import { a } from './a.ts';",
    "import type { A } from './a.ts';",
    "import {\n  type A,\n  a,\n} from '../cli/a.ts';",
    "export { a } from './a.ts';",
    "export * from './a.ts';",
    "import * as all from './a.ts';",
    "import './a.ts';",
    "const later = () => import('./a.ts');",
  ])
    t.deepEqual(inTwo(back), ['cli/a.ts -> cli/b.ts -> cli/a.ts'], back);
  for (const other of [
    "import { c } from './c.ts';",
    "// from './a.ts'",
    "const text = `\n  import './a.ts'`;",
  ])
    t.deepEqual(inTwo(other), [], other);
  const longer = treeOf({
    'lib/a.ts': "import './b.ts';",
    'lib/b.ts': "import './c.ts';\nimport './d.ts';",
    'lib/c.ts': '',
    'lib/d.ts': "import './a.ts';",
  });
  t.deepEqual(importCircles(longer), ['lib/a.ts -> lib/b.ts -> lib/d.ts -> lib/a.ts']);
});

test('what a file loads is found, but not types and what comes later', (t) => {
  const loaded = (first: string) =>
    loadedBy(
      treeOf({ 'lib/a.ts': first, 'lib/b.ts': "export * from './c.ts';", 'lib/c.ts': '' }),
      'lib/a.ts',
    );
  for (const line of [
    "import { b } from './b.ts';",
    "import {\n  type B,\n  b,\n} from './b.ts';",
    "export { b } from './b.ts';",
    "import './b.ts';",
  ])
    t.deepEqual(loaded(line), ['lib/b.ts', 'lib/c.ts'], line);
  for (const line of [
    "import type { B } from './b.ts';",
    "export type { B } from './b.ts';",
    "const later = () => import('./b.ts');",
  ])
    t.deepEqual(loaded(line), [], line);
});

test('an import against the layers is found', (t) => {
  const importing = (file: string, target: string) =>
    layerViolations(treeOf({ [file]: `import type { X } from '${target}';` }));
  t.deepEqual(importing('lib/kernel/link.ts', '../cni/call.ts'), [
    'lib/kernel/link.ts imports lib/cni/call.ts',
  ]);
  t.deepEqual(importing('lib/netlink/libc.ts', '../kernel/link.ts'), [
    'lib/netlink/libc.ts imports lib/kernel/link.ts',
  ]);
  t.deepEqual(importing('lib/ip.ts', './cni/call.ts'), ['lib/ip.ts imports lib/cni/call.ts']);
  t.deepEqual(importing('lib/cni/call.ts', '../../main.ts'), ['lib/cni/call.ts imports main.ts']);
  t.deepEqual(importing('lib/other/x.ts', '../ip.ts'), [
    'lib/other/x.ts belongs to none of netlink, kernel, firewall, ovsdb, etcd, kubernetes, cni, networks',
  ]);
  t.deepEqual(importing('lib/cni/call.ts', '../netlink/libc.ts'), []);
  t.deepEqual(importing('lib/netlink/libc.ts', '../errors.ts'), []);
  t.deepEqual(importing('lib/cni/call.ts', './config.ts'), []);
});

test('a plugin that imports another is found', (t) => {
  const importing = (file: string, target: string) =>
    pluginViolations(treeOf({ [file]: `import '${target}';` }));
  t.deepEqual(importing('plugins/ptp.ts', './bridge.ts'), ['plugins/ptp.ts imports plugins/bridge.ts']);
  t.deepEqual(importing('ipam/dhcp/daemon.ts', '../host-local/store.ts'), [
    'ipam/dhcp/daemon.ts imports ipam/host-local/store.ts',
  ]);
  t.deepEqual(importing('plugins/tuning.ts', './tuning/sysctl.ts'), []);
  t.deepEqual(importing('plugins/tuning/sysctl.ts', '../../lib/ip.ts'), []);
});

test('a file that is too long, and a comment that is too wide, are found', (t) => {
  t.deepEqual(longFiles(treeOf({ 'cli/a.ts': 'x\n'.repeat(301), 'cli/b.ts': 'x\n'.repeat(300) }), 300), [
    'cli/a.ts has 301 lines',
  ]);
  const wide = (line: string) => wideComments(treeOf({ 'cli/a.ts': `\n${line}` }), 110);
  for (const start of ['// ', '  // ', '/** ', ' * ', '/* '])
    t.deepEqual(wide(start + 'x'.repeat(111 - start.length)), ['cli/a.ts:2 has 111 columns'], start);
  t.deepEqual(wide(`// ${'x'.repeat(107)}`), []);
  t.deepEqual(wide(`const text = '${'x'.repeat(111)}';`), []);
});

test('a use of the process is found, but not in comments or where it is allowed', (t) => {
  const uses = (file: string, line: string) => processUses(treeOf({ [file]: line }), ['ipam/dhcp/daemon.ts']);
  for (const use of ['process.env', 'process.exit', 'process.stderr', 'process.stdout', 'process.exitCode'])
    t.deepEqual(uses('plugins/a.ts', `\nf(${use});`), [`plugins/a.ts:2 uses ${use}`]);
  t.deepEqual(uses('lib/cni/a.ts', '/* as in\n process.env */\n// process.env\nf(); // process.exit'), []);
  t.deepEqual(uses('ipam/dhcp/daemon.ts', 'process.exit(1)'), []);
  t.deepEqual(uses('cli/a.ts', 'process.exit(1)'), []);
});

test('an export that nobody imports is found', (t) => {
  const dead = (a: string, b: string) =>
    deadExports(treeOf({ 'lib/a.ts': a, 'lib/b.ts': b }), ['lib/a.ts: entry']);
  for (const declaration of [
    'const one = 1;',
    'function one() {}',
    'function* one() {}',
    'async function one() {}',
    'class one {}',
    'abstract class one {}',
    'interface one {}',
    'type one = 1;',
    '{ one };',
    '{ two as one };',
  ]) {
    t.deepEqual(
      dead(`export ${declaration}`, "import { other } from './a.ts';"),
      ['lib/a.ts: one'],
      declaration,
    );
    t.deepEqual(dead(`export ${declaration}`, "import { one as mine } from './a.ts';"), [], declaration);
    t.deepEqual(dead(`export ${declaration}`, "import { type one } from './a.ts';"), [], declaration);
  }
  t.deepEqual(dead('export const entry = 1;', ''), [], 'allowed');
  t.deepEqual(dead('export interface one {}\nfunction f(a: one) {}', ''), [], 'a type of a signature');
  t.deepEqual(dead('export interface one {} // one', ''), ['lib/a.ts: one']);
  t.deepEqual(
    dead('export const one = 1;', "import { one } from './c.ts';"),
    ['lib/a.ts: one'],
    'another one',
  );
  t.deepEqual(dead('export const one = 1;', "import * as all from './a.ts';\nall.one;"), []);
  const reexported = { 'lib/a.ts': 'export const one = 1;', 'lib/b.ts': "export * from './a.ts';" };
  t.deepEqual(deadExports(treeOf({ ...reexported, 'lib/c.ts': "import { one } from './b.ts';" }), []), []);
  t.deepEqual(deadExports(treeOf({ ...reexported, 'lib/c.ts': "import { two } from './b.ts';" }), []), [
    'lib/a.ts: one',
  ]);
  t.deepEqual(dead('export const one = 1;', "const { one } = await import('./a.ts');"), []);
  t.deepEqual(dead('export const one = 1;', "await import('./a.ts'); // one"), ['lib/a.ts: one']);
});
