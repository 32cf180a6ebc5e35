/** The record of what was tried: docs/reliability.md shows what docs/reliability.json has. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import packageJson from '../../../package.json' with { type: 'json' };
import { recorded, withTable } from '../../../scripts/reliability/page.ts';

const page = readFileSync(join(import.meta.dirname, '../../../docs/reliability.md'), 'utf8');

test('the table shows the rows, each with its date and commit, by commands that exist', (t) => {
  const rows = recorded();
  t.is(withTable(page, rows), page);
  for (const { part, date, commit, command } of rows) {
    t.regex(`${date}, ${commit}`, /^\d{4}-\d\d-\d\d, [0-9a-f]{7,}\+?$/, part);
    t.true(/^npm run (\S+)/.exec(command)![1]! in packageJson.scripts, command);
    t.true(page.includes(`| ${date}, ${commit} |`), part);
  }
});

test('what was added by hand is shown as such', (t) => {
  const [row] = recorded();
  const text = withTable(page, [{ ...row!, note: 'the command', remark: 'somebody' }]);
  t.true(text.includes('| the command. Added by hand: somebody |'));
});
