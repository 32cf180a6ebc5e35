/** Modules that are in bundles of their own, which are loaded only when they are imported. */

import type { Plugin } from 'esbuild';

/**
 * Bundles by the module that they contain: a layout engine larger than all the rest, and parsers that most
 * calls do not need. The code of a bundle costs every call that loads it, even if it is not run.
 */
export const apart: Readonly<Record<string, string>> = {
  'elkjs/lib/elk.bundled.js': 'elk.js',
  'js-yaml': 'js-yaml.js',
  re2js: 're2js.js',
};

/** Has a bundle load these modules from their own bundles, each a function that takes `require`. */
export const loadApart: Plugin = {
  name: 'load-apart',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /./ }, ({ path }) =>
      Object.hasOwn(apart, path) ? { path, namespace: 'apart' } : undefined,
    );
    onLoad({ filter: /./, namespace: 'apart' }, ({ path }) => ({
      contents: `
        const source = Buffer.from(require('node:sea').getRawAsset('${apart[path]}')).toString('latin1');
        module.exports = require('node:vm').runInThisContext(source, { filename: '${apart[path]}' })(require);
      `,
      loader: 'js',
    }));
  },
};
