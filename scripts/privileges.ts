/**
 * Finds out which capabilities each verb of each plugin needs, by leaving out each of them, and writes
 * docs/privileges.json and the table in docs/privileges.md:
 *
 *     npm run privileges                  every row, except those of a guest
 *     npm run privileges -- ROW...        only these rows
 *     npm run privileges -- --guest       ipvlan, vlan, vrf and dummy, in User Mode Linux
 *
 * test/network/privileges.test.ts verifies the table, except the rows of a guest.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { guestSubjects, Privileged, type Privileges, subjects, verbs } from '../test/support/privileges.ts';
import { isInGuest, runInGuest } from './own-guest.ts';

const root = join(import.meta.dirname, '..');
const [dataFile, page] = ['json', 'md'].map((ending) => join(root, `docs/privileges.${ending}`)) as [
  string,
  string,
];
/** Where the page has the table. */
const generated = /(<!-- npm run privileges writes from here -->\n)[\s\S]*(<!-- to here -->)/;

/** Most verbs need one of these sets. */
const guesses = [
  [],
  ['CAP_NET_ADMIN'],
  ['CAP_NET_ADMIN', 'CAP_SYS_ADMIN'],
  ['CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_SYS_ADMIN'],
];
const { values, positionals: rows } = parseArgs({
  options: { guest: { type: 'boolean', default: false } },
  allowPositionals: true,
});
if (values.guest && !isInGuest) process.exit((await runInGuest()).exit);

const found = JSON.parse(readFileSync(dataFile, 'utf8')) as Privileges;
const chosen = values.guest ? guestSubjects : subjects;
for (const subject of chosen.filter(({ name }) => rows.length === 0 || rows.includes(name))) {
  const cleanups: (() => void | Promise<void>)[] = [];
  try {
    const t = { teardown: (step: () => void | Promise<void>) => void cleanups.push(step) };
    const one = await Privileged.prepare(t, subject);
    const own: Privileges[string] = {};
    for (const verb of verbs) own[verb] = await one.find(verb, guesses);
    found[subject.name] = own;
    console.log(`${subject.name}: ${JSON.stringify(own)}`);
  } finally {
    for (const step of cleanups.reverse()) await step();
  }
}
const known = [...subjects, ...guestSubjects].flatMap(({ name }) =>
  found[name] ? [[name, found[name]]] : [],
);
const sorted = Object.fromEntries(known) as Privileges;
// Formatted as by biome, which does not run in a guest.
const data = JSON.stringify(sorted, null, 2).replace(
  /\[\s+("[^\]]*")\s+\]/g,
  (_, list: string) => `[${list.replace(/\s+/g, ' ')}]`,
);
writeFileSync(dataFile, `${data}\n`);
const text = readFileSync(page, 'utf8');
writeFileSync(
  page,
  text.replace(generated, (_, from: string, to: string) => from + table(sorted) + to),
);
console.log(`Written to "${dataFile}" and "${page}"`);

function table(privileges: Privileges): string {
  const cell = (names: readonly string[] | undefined) =>
    names ? names.map((name) => name.replace('CAP_', '')).join(' ') || 'none' : 'not tried';
  const lines = Object.entries(privileges).map(
    ([name, own]) => `| ${name} | ${verbs.map((verb) => cell(own[verb])).join(' | ')} |`,
  );
  return ['', `| | ${verbs.join(' | ')} |`, `|---|${'---|'.repeat(verbs.length)}`, ...lines, '', ''].join(
    '\n',
  );
}
