import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { copyLoader } from '../../../scripts/build/loader-copy.ts';

const name = '/etc/ld.so.preload';

test('a loader is copied without the path, and the same otherwise', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'loader-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  mkdirSync(join(directory, 'copy'));
  const copied = (text: string) => {
    writeFileSync(join(directory, 'ld.so'), text);
    return readFileSync(copyLoader(join(directory, 'ld.so'), join(directory, 'copy')), 'latin1');
  };
  t.is(copied(`\x7fELF\0${name}\0end`), `\x7fELF\0${'\0'.repeat(name.length)}\0end`);
  const wrong = [
    '\x7fELF\0',
    `${name}\0${name}\0`,
    `${name}.d\0`,
    `${name}.d\0${name}\0`,
    `${name}\0${name}.d\0`,
  ];
  for (const text of wrong) t.throws(() => copied(text), { message: /exactly once/ }, JSON.stringify(text));
});
