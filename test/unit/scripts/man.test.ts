/** The manual pages: one for each command, in troff that two formatters accept. */

import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { makeCommand } from '../../../cli/main.ts';
import { manPages } from '../../../scripts/man.ts';
import { sourceSuite } from '../../../scripts/suite.ts';
import { run, tryRun } from '../../support/run.ts';

const pages = await manPages(() => makeCommand(sourceSuite()), new Date('2026-01-02T12:00:00Z'));
const directory = mkdtempSync(join(tmpdir(), 'cni-man-'));
for (const [name, text] of pages) writeFileSync(join(directory, name), text);
test.after.always(() => rmSync(directory, { recursive: true }));

/** A page as a reader sees it, without the backspaces that stand for bold type. */
async function shown(name: string): Promise<string> {
  const text = await run(['mandoc', '-T', 'ascii', join(directory, name)]);
  const parts = text.split('\b');
  return parts.map((part, i) => (i < parts.length - 1 ? part.slice(0, -1) : part)).join('');
}

test('every command has a page, also one below another', (t) => {
  for (const name of ['cni', 'cni-install', 'cni-add', 'cni-agent', 'cni-agent-status', 'cni-completion'])
    t.true(pages.has(`${name}.1`), name);
});

test('mandoc and groff have nothing to say against them', async (t) => {
  const files = readdirSync(directory).map((name) => join(directory, name));
  t.is((await tryRun(['mandoc', '-T', 'lint', '-W', 'warning', ...files])).stdout, '');
  for (const file of files) {
    const { exit, stderr } = await tryRun(['groff', '-ww', '-man', '-Tutf8', file]);
    t.deepEqual([exit, stderr], [0, ''], file);
  }
});

test('a page has all that the help has', async (t) => {
  const text = await shown('cni-install.1');
  for (const part of [
    /^NAME\n +cni-install - Install the plugins, go back/m,
    /^SYNOPSIS\n +cni install$/m,
    /--bin-dir\n +Directory where the runtime looks for plugins/,
    /cni install --bin-dir \/host\/opt\/cni\/bin\n +Install on the host, from a container/,
    /^SEE ALSO\n +cni\(1\)/m,
  ])
    t.regex(text, part);
  const main = await shown('cni.1');
  t.regex(main, /2 +the command line is wrong/);
  t.regex(main, /cni-install\(1\)/);
  t.regex(main, /cni add <network> <netns>\n +Attach a namespace/);
  t.regex(await shown('cni-add.1'), /^ENVIRONMENT\n +NETCONFPATH/m);
});
