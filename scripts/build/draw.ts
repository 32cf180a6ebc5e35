/** What `cni draw` needs from the build: the page's script and style. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

const page = join(import.meta.dirname, '../../cli/draw/page');

/** The script of the page that `cni draw --html` writes. */
export async function pageScript(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(page, 'page.ts')],
    bundle: true,
    minify: true,
    write: false,
    format: 'iife',
    target: 'es2022',
    legalComments: 'none',
  });
  return outputFiles[0]!.text;
}

/** Its style sheet. */
export function pageStyle(): string {
  return readFileSync(join(page, 'page.css'), 'utf8');
}
