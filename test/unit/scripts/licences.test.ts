/** The licences of all that is shipped are in the tree, and in the packages that are made of it. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { privatePrefix } from '../../../launcher/launch.ts';
import packageJson from '../../../package.json' with { type: 'json' };
import { type Sbom, sbomFile } from '../../../scripts/build/sbom.ts';
import { binDir } from '../../support/host.ts';

const hidden = join(binDir, readdirSync(binDir).find((name) => name.startsWith(privatePrefix))!);
const bill = JSON.parse(readFileSync(join(hidden, sbomFile), 'utf8')) as Sbom;
const text = (name: string) => readFileSync(join(hidden, 'licences', name), 'utf8');

test('every part of the bill of materials has its licence beside it, and nothing else has', (t) => {
  const parts = bill.components.map(({ name }) => name.replace('/', '-'));
  t.deepEqual(
    readdirSync(join(hidden, 'licences')).sort(),
    [...new Set([...parts, packageJson.name])].sort(),
  );
});

test("the Debian package's copyright file names every npm package under its licence, and no other", (t) => {
  const file = readFileSync(join(import.meta.dirname, '../../../packaging/debian/copyright'), 'utf8');
  const short: Record<string, string> = { MIT: 'Expat', 'EPL-2.0 OR GPL-3.0-or-later': 'EPL-2.0' };
  const named = [...file.matchAll(/^ (Apache-2\.0|Expat|ISC|EPL-2\.0): ([^:]+?)\n \.$/gm)].flatMap(
    ([, licence, names]) => names!.split(/,\s+/).map((name) => `${name}: ${licence}`),
  );
  const billed = bill.components
    .filter(({ purl }) => purl?.startsWith('pkg:npm/') && !purl.startsWith('pkg:npm/node-linux'))
    .map(({ name, licenses }) => {
      const [{ expression }] = licenses as [{ expression: string }];
      return `${name}: ${short[expression] ?? expression}`;
    });
  t.deepEqual(named.sort(), [...new Set(billed)].sort());
});

test('each is the text of the licence that the bill names', (t) => {
  const words: Record<string, RegExp> = {
    MIT: /Permission is hereby granted, free of charge|MIT License/i,
    ISC: /Permission to use, copy, modify, and\/or distribute|ISC License/i,
    'Apache-2.0': /Apache License/,
    'EPL-2.0 OR GPL-3.0-or-later': /Eclipse Public License - v 2\.0/,
  };
  for (const { name, purl, licenses } of bill.components.filter((one) => one.purl?.startsWith('pkg:npm/'))) {
    const [{ expression }] = licenses as [{ expression: string }];
    t.regex(text(name.replace('/', '-')), words[expression] ?? /never/, `${purl} ${expression}`);
  }
  t.regex(text(packageJson.name), words['Apache-2.0']!);
  t.regex(text('libc6'), /Lesser General Public License/i);
  for (const name of ['libstdc++6', 'libgcc-s1', 'libatomic1'])
    t.regex(text(name), /GCC RUNTIME LIBRARY EXCEPTION|Runtime Library Exception/i, name);
  t.regex(text('musl-dev'), /MIT/);
});

test('Node.js passes on the licences of what it brings along', (t) => {
  for (const name of ['V8', 'OpenSSL', 'libuv', 'ICU', 'zlib']) t.regex(text('node'), new RegExp(name, 'i'));
});
