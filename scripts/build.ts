/**
 * Builds the executables: one Node.js single executable, and a hard link to it under every plugin's name.
 *
 *     node scripts/build.ts [x64|arm64]
 *
 * The machine's own architecture goes to dist/bin, another one to dist/<architecture>/bin. What has not changed since
 * the last build is not built again.
 */

import { execFileSync } from 'node:child_process';
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
import { type BuildOptions, build } from 'esbuild';

const root = join(import.meta.dirname, '..');
const arch = process.argv[2] ?? process.arch;
const native = arch === process.arch;
const buildDir = join(root, 'build', arch);
const binDir = native ? join(root, 'dist/bin') : join(root, 'dist', arch, 'bin');

/** Options of Node.js and V8 that the executable always runs with; bench/NOTES.md has the measurements. */
const execArgv = ['--no-warnings', '--v8-pool-size=0'];

mkdirSync(buildDir, { recursive: true });
const base = strippedNode();
const plugins = [...namesIn('plugins'), ...namesIn('ipam')];
const operatorsCommand = existsSync(join(root, 'cli/main.ts'));
const names = operatorsCommand ? [...plugins, 'cni'] : plugins;
await bundle('main.js', { stdin: { contents: entryPoint(), resolveDir: root, loader: 'ts' } });
if (operatorsCommand)
  await bundle('cni.js', {
    stdin: { contents: operatorsEntryPoint(), resolveDir: root, loader: 'ts' },
    // yargs looks for its translations beside its own file, which a bundle does not have.
    define: { 'import.meta.url': '"file:///cni.js"' },
  });
makeExecutable();

/** The plugins that a directory holds: one file each, named after the executable. */
function namesIn(directory: string): string[] {
  if (!existsSync(join(root, directory))) return [];
  return readdirSync(join(root, directory))
    .filter((file) => file.endsWith('.ts'))
    .map((file) => basename(file, '.ts'));
}

/** Source of the bundle's first module, with each plugin's module behind a function so that it loads only on demand. */
function entryPoint(): string {
  return `
    import { getAsset } from 'node:sea';
    import { main } from './main.ts';
    void main(new Map([${tableOf('plugins')}${tableOf('ipam')}]), () => new Function('require', getAsset('cni.js', 'utf8'))(require));
  `;
}

/** Source of the operators' command's first module: it reads the plugins' schemas from the same table. */
function operatorsEntryPoint(): string {
  return `
    import { main } from './cli/main.ts';
    void main(process.argv.slice(2), { plugins: new Map([${tableOf('plugins')}]), ipam: new Map([${tableOf('ipam')}]) });
  `;
}

/** Source of the entries of a directory's plugin table. */
function tableOf(directory: string): string {
  return namesIn(directory)
    .map((name) => `['${name}', () => import('./${directory}/${name}.ts')],`)
    .join('\n');
}

async function bundle(file: string, input: BuildOptions): Promise<void> {
  await build({
    ...input,
    outfile: join(buildDir, file),
    bundle: true,
    minify: true,
    platform: 'node',
    target: 'node26',
    // A single executable's main script is CommonJS: only that can have a code cache.
    format: 'cjs',
    legalComments: 'none',
    logLevel: 'warning',
  });
}

/** Node.js for the target, without its symbols: 150 MB become 116. @returns the path. */
function strippedNode(): string {
  const source = join(root, 'node_modules', `node-linux-${arch}`, 'bin/node');
  if (!existsSync(source)) {
    console.error(
      `There is no Node.js for ${arch} to build on. Fetch it with ` +
        `"npm install --no-save --force node-linux-${arch}@${process.versions.node}" and build again`,
    );
    process.exit(1);
  }
  const stripped = join(buildDir, 'node');
  if (!existsSync(stripped) || statSync(stripped).mtimeMs < statSync(source).mtimeMs) {
    console.log(`Stripping Node.js ${process.versions.node} for ${arch}`);
    const strip = native ? 'strip' : `${{ arm64: 'aarch64', x64: 'x86-64' }[arch]}-linux-gnu-strip`;
    copyFileSync(source, `${stripped}.new`);
    execFileSync(strip, ['--strip-all', `${stripped}.new`], { stdio: 'inherit' });
    renameSync(`${stripped}.new`, stripped);
  }
  return stripped;
}

/** Puts bundle and Node.js together, unless the last build did so from the same parts, and links the names to it. */
function makeExecutable(): void {
  const executable = join(buildDir, 'cni-plugins');
  const config = {
    main: join(buildDir, 'main.js'),
    output: `${executable}.new`,
    executable: base,
    disableExperimentalSEAWarning: true,
    // The code cache must come from the very V8 that reads it.
    useCodeCache: native,
    execArgv,
    // Nothing in a runtime's environment may add to them.
    execArgvExtension: 'none',
    assets: operatorsCommand ? { 'cni.js': join(buildDir, 'cni.js') } : {},
  };
  const configFile = join(buildDir, 'sea.json');
  writeFileSync(configFile, JSON.stringify(config, null, 2));

  const stamp = createHash('sha256');
  for (const file of [configFile, ...Object.values(config.assets), config.main])
    stamp.update(readFileSync(file));
  stamp.update(String(statSync(base).mtimeMs));
  const digest = stamp.digest('hex');
  const stampFile = join(buildDir, 'stamp');
  if (!existsSync(executable) || !existsSync(stampFile) || readFileSync(stampFile, 'utf8') !== digest) {
    rmSync(stampFile, { force: true });
    execFileSync(process.execPath, [`--build-sea=${configFile}`], { stdio: ['ignore', 'ignore', 'inherit'] });
    chmodSync(config.output, 0o755);
    renameSync(config.output, executable);
    writeFileSync(stampFile, digest);
  }

  mkdirSync(binDir, { recursive: true });
  for (const file of readdirSync(binDir)) if (!names.includes(file)) rmSync(join(binDir, file));
  for (const name of names) {
    const link = join(binDir, name);
    // Renaming one link over another of the same file does nothing.
    if (statSync(link, { throwIfNoEntry: false })?.ino === statSync(executable).ino) continue;
    rmSync(`${link}.new`, { force: true });
    linkSync(executable, `${link}.new`);
    renameSync(`${link}.new`, link);
  }
  const megabytes = Math.round(statSync(executable).size / 1e6);
  console.log(`${binDir}: ${names.length} names of one executable of ${megabytes} MB (${names.join(', ')})`);
}
