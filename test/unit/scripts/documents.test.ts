/** The documents in the packages: no link in them is dead. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { copyDocuments } from '../../../scripts/documents.ts';
import { deadLinks, markdownIn } from '../../support/links.ts';

function directory(t: ExecutionContext, files: Readonly<Record<string, string>> = {}): string {
  const path = mkdtempSync(join(tmpdir(), 'cni-documents-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(dirname(join(path, file)), { recursive: true });
    writeFileSync(join(path, file), text);
  }
  return path;
}

test('the links of the packaged documents lead to packaged documents', (t) => {
  const packaged = directory(t);
  copyDocuments(packaged);
  t.true(markdownIn(packaged).includes('docs/cni.md'));
  t.deepEqual(deadLinks(packaged), []);
});

test('a link that leads nowhere is found', (t) => {
  const found = (link: string) =>
    deadLinks(
      directory(t, {
        'a.md': `# Title\n\n[text](${link})\n`,
        'docs/b.md': '# What is "b": `b`?\n\n```\n# no heading\n```\n',
      }),
    );
  for (const link of ['docs/b.md', 'docs', '#title', 'docs/b.md#what-is-b-b', 'https://example.org/a'])
    t.deepEqual(found(link), [], link);
  for (const link of ['b.md', '../a.md', '#b', 'docs/b.md#no-heading', 'docs#title'])
    t.deepEqual(found(link), [`a.md: ${link}`], link);
  t.deepEqual(found('a.md)\n\n`[text](b.md)`\n\n```\n[text](b.md)\n```\n\n[text](a.md'), [], 'code');
});
