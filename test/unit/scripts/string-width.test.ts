/** The stand-in for string-width says what string-width says, and does not load it for ASCII. */

import { runInThisContext } from 'node:vm';
import test from 'ava';
import { build } from 'esbuild';
import { lazyStringWidth } from '../../../scripts/build/string-width.ts';

const { outputFiles } = await build({
  stdin: { contents: "module.exports = require('string-width').default", resolveDir: import.meta.dirname },
  ...{ bundle: true, platform: 'node', format: 'cjs', target: 'node26', write: false },
  ...{ plugins: [lazyStringWidth], banner: { js: '(function (module, Intl) {' }, footer: { js: '})' } },
});
type Width = (text: unknown, options?: object) => number;
/** Loads it anew. @param intl what it has for Intl. */
function load(intl: unknown): Width {
  const module: { exports?: Width } = {};
  (runInThisContext(outputFiles[0]!.text) as (...args: unknown[]) => void)(module, intl);
  return module.exports!;
}

test('a text of ASCII is as wide as it is long, and takes no tables of Unicode', (t) => {
  const width = load(undefined);
  t.is(width('--output  Where it goes'), 23);
  t.is(width(''), 0);
  t.throws(() => width('é'), { instanceOf: TypeError });
});

test('of others, string-width is asked', (t) => {
  const width = load(Intl);
  t.is(width('日本'), 4);
  t.is(width('\u001B[31mred\u001B[39m'), 3);
  t.is(width('\u001B[31mred', { countAnsiEscapeCodes: true }), 7);
  t.is(width('\t'), 0);
  t.is(width(undefined), 0);
});
