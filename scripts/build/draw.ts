/** What `cni draw` needs of the build: a layout engine of its own file, and the page's script and style. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { build, type Plugin } from 'esbuild';

const page = join(import.meta.dirname, '../../cli/draw/page');

/**
 * Has a bundle take a module from another bundle, and only when it is imported: the layout engine is larger
 * than all the rest, and costs the other commands nothing.
 * @param module as it is imported. @param file bundle whose value is a function from `require` to the module.
 */
export function loadApart(module: string, file: string): Plugin {
  const contents = `
    const source = Buffer.from(require('node:sea').getRawAsset('${file}')).toString('latin1');
    module.exports = require('node:vm').runInThisContext(source, { filename: '${file}' })(require);
  `;
  return {
    name: 'load-apart',
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /./ }, ({ path }) => (path === module ? { path, namespace: 'apart' } : undefined));
      onLoad({ filter: /./, namespace: 'apart' }, () => ({ contents, loader: 'js' }));
    },
  };
}

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
