/**
 * The one executable behind every name: it runs the plugin whose name it was started under.
 *
 * scripts/build.ts writes the entry point that calls this with a table of what it found in plugins/ and
 * ipam/. Nothing is loaded but the plugin that is asked for.
 */

import { writeSync } from 'node:fs';
import { basename } from 'node:path';
import { readEnvironment, readLaunch } from './launcher/launch.ts';
import { formatError } from './lib/cni/error-object.ts';
import type { Plugin } from './lib/cni/plugin.ts';
import { type FindPlugin, runPlugin } from './lib/cni/runner.ts';
import { readStdin, writeStdout } from './lib/cni/stdio.ts';

/** What a file in plugins/ or ipam/ exports. */
export interface PluginModule {
  readonly plugin: Plugin<never>;
  /** Runs the executable with arguments, as in `dhcp daemon`. @returns the exit code. */
  readonly command?: (args: readonly string[]) => Promise<number>;
}

/** Plugins by name, each loaded when called for. */
export type PluginTable = ReadonlyMap<string, () => Promise<PluginModule>>;

/** The plugins that the executable holds, by kind. */
export interface Suite {
  readonly plugins: PluginTable;
  readonly ipam: PluginTable;
}

/**
 * Runs the plugin that this process was started as.
 * @param plugins every plugin in the executable.
 * @returns the exit code.
 */
export async function main(plugins: PluginTable): Promise<number> {
  const name = basename(process.argv0);
  process.on('uncaughtException', fail);
  process.on('unhandledRejection', fail);

  const load = plugins.get(name);
  if (!load) {
    process.stderr.write(
      `This executable holds no plugin called "${name}". ` +
        `Start it under one of these names: ${[...plugins.keys()].join(', ')}, or cni\n`,
    );
    return 1;
  }
  const { plugin, command } = await load();
  const { program, args } = readLaunch(process.argv);
  if (command && args.length > 0) return await command(args);
  const caller = {
    program,
    environment: readEnvironment(process.env),
    warn: (message: string) => void process.stderr.write(`${message}\n`),
    readStdin,
    print: writeStdout,
  };
  return await runPlugin(plugin, caller, finderIn(plugins));
}

/** What finds a delegate among plugins. */
export function finderIn(plugins: PluginTable): FindPlugin {
  return (name) =>
    plugins
      .get(name)?.()
      .then(({ plugin }) => plugin);
}

/** A defect of ours must reach the runtime as any other CNI error does. */
function fail(error: unknown): never {
  writeSync(1, formatError(error));
  process.exit(1);
}
