/** Makes the package string-width load only once there is a text whose width it has to work out. */

import { dirname } from 'node:path';
import type { Plugin } from 'esbuild';

/** Marks the question for the real module. */
const isAsked = Symbol('is asked');

/**
 * Has a bundle take the length of a printable ASCII text for its width. yargs needs the widths of such texts
 * only, but string-width builds tables of Unicode when it is loaded, which would cost every command 25 ms.
 */
export const lazyStringWidth: Plugin = {
  name: 'lazy-string-width',
  setup({ onResolve, onLoad, resolve }) {
    onResolve({ filter: /^string-width$/ }, async ({ path, importer, resolveDir, kind, pluginData }) => {
      if (pluginData === isAsked) return undefined;
      const real = await resolve(path, { importer, resolveDir, kind, pluginData: isAsked });
      return { path: real.path, namespace: 'string-width' };
    });
    onLoad({ filter: /./, namespace: 'string-width' }, ({ path }) => ({
      contents: `
        export default function stringWidth(text, options) {
          if (typeof text === 'string' && /^[\\x20-\\x7e]*$/.test(text)) return text.length;
          return require(${JSON.stringify(path)}).default(text, options);
        }
      `,
      loader: 'js',
      resolveDir: dirname(path),
    }));
  },
};
