/**
 * Builds the executables: a single one of Node.js, and the launcher that runs it under every plugin's name.
 *
 *     node scripts/build.ts [x64|arm64] [--reproducible]
 *
 * The machine's own architecture goes to dist/bin, another one to dist/<architecture>/bin. What has not
 * changed since the last build is not built again.
 *
 * The bytecode that each plugin runs is built in as well. It comes from training: a first executable is put
 * through every verb of the samples in conf/, in namespaces, which needs root; without it, functions are
 * compiled when called. With --reproducible, training is repeated until its results no longer depend on
 * chance, so that two builds are the same, byte for byte.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { type BuildOptions, build, type Metafile } from 'esbuild';
import { apart, loadApart } from './build/apart.ts';
import { pageScript, pageStyle } from './build/draw.ts';
import { learn } from './build/learn.ts';
import { bundledPackages } from './build/sbom.ts';
import { isCurrent, stampOf, type Training } from './build/stamp.ts';
import { lazyStringWidth } from './build/string-width.ts';
import { nodePackage, runTool, targetOf } from './build/target.ts';
import { layTree } from './build/tree.ts';

const root = join(import.meta.dirname, '..');
const { values: options, positionals } = parseArgs({
  options: { reproducible: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const arch = positionals[0] ?? process.arch;
const target = attempt(() => targetOf(arch));
const native = target.isNative;
const buildDir = join(root, 'build', arch);
const binDir = native ? join(root, 'dist/bin') : join(root, 'dist', arch, 'bin');

/** Options of Node.js and V8 that the executable always runs with; bench/NOTES.md has the measurements. */
const execArgv = [
  '--no-warnings',
  '--v8-pool-size=0',
  // Hash tables keep the seed that Node.js was built with. A new seed at each start protects a server from
  // strings chosen to collide; here it would cost 3 ms for a process that reads one configuration.
  '--no-rehash-snapshot',
  // Nothing runs for long enough to be worth machine code from the second call on.
  '--no-sparkplug',
  // What does run for long is optimized on the same thread: handing it to another can cost 3 ms of waiting
  // for a lock.
  '--no-concurrent-recompilation',
  '--disable-sigusr1',
];

mkdirSync(buildDir, { recursive: true });
const base = attempt(strippedNode);
const names = [...namesIn('plugins'), ...namesIn('ipam'), 'cni'];
const bundling = {
  bundle: true,
  minify: true,
  platform: 'node',
  target: 'node26',
  // jsonc-parser's "main" file has a module format that cannot be bundled.
  mainFields: ['module', 'main'],
  // A single executable's main script is CommonJS, and so is what it loads.
  format: 'cjs',
  // A script run from memory has no loader for import().
  supported: { 'dynamic-import': false },
  legalComments: 'none',
  logLevel: 'warning',
} as const satisfies BuildOptions;
const packages = bundledPackages([
  await bundle('main.js', entryPoint(), { plugins: [loadApart] }),
  await bundle('cni.js', operatorsEntryPoint(), {
    plugins: [loadApart, lazyStringWidth],
    define: { PAGE_SCRIPT: JSON.stringify(await pageScript()), PAGE_STYLE: JSON.stringify(pageStyle()) },
  }),
  ...(await Promise.all(
    Object.entries(apart).map(([module, file]) =>
      bundle(file, `module.exports = require('${module}');`, {
        banner: { js: '(function (require) { const module = { exports: {} };' },
        footer: { js: 'return module.exports; })' },
      }),
    ),
  )),
]);
await makeExecutable();

/** Runs a step of the build; if it fails, ends the build with the step's error message. */
function attempt<T>(step: () => T): T {
  try {
    return step();
  } catch (error) {
    console.error((error as Error).message);
    process.exit(1);
  }
}

/** The plugins that a directory holds: one file each, named after the executable. */
function namesIn(directory: string): string[] {
  return readdirSync(join(root, directory))
    .filter((file) => file.endsWith('.ts'))
    .map((file) => basename(file, '.ts'));
}

/**
 * Source of the plugins' first module, with each plugin's module behind a function so that it loads only on
 * demand.
 */
function entryPoint(): string {
  return `
    import { main } from './main.ts';
    import { exitImmediately } from './lib/netlink/libc.ts';
    void main(new Map([${tableOf('plugins')}${tableOf('ipam')}])).then(end ?? ((code) => {
      exitImmediately(code);
      process.exit(code);
    }));
  `;
}

/** Source of the operators' command's first module, which reads the plugins' schemas from the same table. */
function operatorsEntryPoint(): string {
  return `
    import { main } from './cli/main.ts';
    import { readLaunch } from './launcher/launch.ts';
    void main(readLaunch(process.argv).args, { plugins: new Map([${tableOf('plugins')}]), ipam: new Map([${tableOf('ipam')}]) });
  `;
}

/** Source of the entries of a directory's plugin table. */
function tableOf(directory: string): string {
  return namesIn(directory)
    .map((name) => `['${name}', () => import('./${directory}/${name}.ts')],`)
    .join('\n');
}

/**
 * Bundles a module and everything that it imports into one file: a script whose value is a function, for
 * scripts/build/loader.ts to call.
 * @returns esbuild's account of what is in it.
 */
async function bundle(file: string, contents: string, more: BuildOptions = {}): Promise<Metafile> {
  const { metafile } = await build({
    ...bundling,
    stdin: { contents, resolveDir: root, loader: 'ts' },
    outfile: join(buildDir, file),
    banner: { js: '(function (require, end) {' },
    footer: { js: '})' },
    ...more,
    metafile: true,
    // yargs looks for its translations beside its own file, which a bundle does not have.
    define: { 'import.meta.url': `"file:///${file}"`, ...more.define },
  });
  return metafile;
}

/**
 * Makes the executable's first script.
 * @param training where it leaves code caches; "" for the executable that is meant for use.
 */
async function bundleLoader(file: string, training: string): Promise<void> {
  await build({
    ...bundling,
    entryPoints: [join(root, 'scripts/build/loader.ts')],
    outfile: join(buildDir, file),
    define: { TRAINING: JSON.stringify(training) },
  });
}

/** Node.js for the target, without its symbols: 116 MB rather than 150. @returns the path. */
function strippedNode(): string {
  const source = join(nodePackage(arch), 'bin/node');
  const stripped = join(buildDir, 'node');
  if (!existsSync(stripped) || statSync(stripped).mtimeMs < statSync(source).mtimeMs) {
    console.log(`Stripping Node.js ${process.versions.node} for ${arch}`);
    copyFileSync(source, `${stripped}.new`);
    runTool(target, target.strip, ['--strip-all', `${stripped}.new`]);
    renameSync(`${stripped}.new`, stripped);
  }
  return stripped;
}

/**
 * Puts the parts together, unless the last build already did so with the same parts, and links the names to
 * the result.
 */
async function makeExecutable(): Promise<void> {
  const executable = join(buildDir, 'cni-plugins');
  const training = join(buildDir, 'training');
  await bundleLoader('loader.js', '');
  await bundleLoader('training.js', training);

  const stamp = createHash('sha256').update(JSON.stringify([execArgv, names, statSync(base).mtimeMs]));
  for (const file of ['main.js', 'cni.js', ...Object.values(apart), 'loader.js', 'training.js'])
    stamp.update(readFileSync(join(buildDir, file)));
  const digest = stamp.digest('hex');
  const stampFile = join(buildDir, 'stamp');
  const previous = existsSync(executable) && existsSync(stampFile) ? readFileSync(stampFile, 'utf8') : '';
  const obstacle = trainingObstacle();
  const wanted: Training = obstacle ? 'untrained' : options.reproducible ? 'reproducible' : 'trained';
  if (!isCurrent(previous, digest, wanted)) {
    rmSync(stampFile, { force: true });
    rmSync(training, { recursive: true, force: true });
    mkdirSync(training, { recursive: true });
    if (obstacle)
      console.log(`${obstacle}: this executable compiles what it runs, which takes 4 to 8 ms a verb`);
    const trained = !obstacle && train(training);
    assemble(
      'loader.js',
      executable,
      readdirSync(training).filter((file) => file.endsWith('.cache')),
      training,
    );
    writeFileSync(stampFile, stampOf(digest, trained ? wanted : 'untrained'));
  }
  attempt(() => {
    layTree({ target, nodePackage: nodePackage(arch), executable, packages }, binDir, names, buildDir);
  });
  const megabytes = Math.round(statSync(executable).size / 1e6);
  console.log(`${binDir}: ${names.length} names of one executable of ${megabytes} MB (${names.join(', ')})`);
}

/** Why training is not possible, or not wanted; undefined otherwise. */
function trainingObstacle(): string | undefined {
  // A code cache must come from the very same V8 that will read it.
  if (!native) return 'Training needs a machine of that architecture';
  if (process.getuid?.() !== 0) return 'Training needs root';
  return process.env.CNI_SKIP_TRAINING ? 'Training is skipped, as CNI_SKIP_TRAINING asks' : undefined;
}

/**
 * Has every plugin leave the bytecode of what it runs. Where calls get in each other's way, that depends on
 * chance: for a reproducible build, training is repeated until each plugin has left the same bytecode twice.
 * @param directory where the code caches go.
 * @returns false when training failed, as in a container that may not create namespaces. It has said why.
 */
function train(directory: string): boolean {
  console.log('Training');
  const trainee = join(directory, 'cni-plugins');
  assemble('training.js', trainee, [], directory);
  const bin = join(directory, 'bin');
  mkdirSync(bin);
  for (const name of names) linkSync(trainee, join(bin, name));
  const trainOnce = () => {
    const script = join(root, 'scripts/build/train.ts');
    const env = { ...process.env, CNI_BIN: bin };
    return spawnSync(process.execPath, ['--no-warnings', script], { env, stdio: 'inherit' }).status === 0;
  };
  const isTrained = options.reproducible ? learn(directory, trainOnce) : trainOnce();
  if (!isTrained)
    console.log(
      'Training failed for the reason above: this executable compiles what was not recorded. The next build tries again',
    );
  rmSync(bin, { recursive: true });
  rmSync(trainee);
  return isTrained;
}

/**
 * Makes a single executable.
 * @param main its first script.
 * @param caches code caches to put into it, and the directory that has them.
 */
function assemble(main: string, output: string, caches: readonly string[], directory: string): void {
  const config = {
    // The executable contains this path: a relative one is the same wherever it is built.
    main,
    output: `${output}.new`,
    executable: base,
    disableExperimentalSEAWarning: true,
    execArgv,
    // Nothing in a runtime's environment may add options.
    execArgvExtension: 'none',
    assets: Object.fromEntries([
      ...['main.js', 'cni.js', ...Object.values(apart)].map((file) => [file, join(buildDir, file)]),
      ...caches.map((file) => [file, join(directory, file)]),
    ]),
  };
  const configFile = join(buildDir, 'sea.json');
  writeFileSync(configFile, JSON.stringify(config, null, 2));
  execFileSync(process.execPath, [`--build-sea=${configFile}`], {
    cwd: buildDir,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  chmodSync(config.output, 0o755);
  renameSync(config.output, output);
}
