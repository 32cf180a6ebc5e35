/** The plugins of the source tree, for programs that run from it: what the build puts into the executable. */

import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { PluginModule, PluginTable, Suite } from '../main.ts';

const root = join(import.meta.dirname, '..');

/** Every plugin in plugins/ and ipam/. */
export function sourceSuite(): Suite {
  return { plugins: tableOf('plugins'), ipam: tableOf('ipam') };
}

function tableOf(directory: string): PluginTable {
  const files = readdirSync(join(root, directory)).filter((file) => file.endsWith('.ts'));
  return new Map(
    files.map((file) => [
      basename(file, '.ts'),
      () => import(join(root, directory, file)) as Promise<PluginModule>,
    ]),
  );
}
