/** docs/privileges.json is true of the plugins that another kernel is needed for. */

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeHostWithDevices } from '../support/host.ts';
import { guestSubjects, Privileged, type Privileges } from '../support/privileges.ts';
import { guestTest as test } from '../support/uml.ts';

const root = join(import.meta.dirname, '../..');
/** What was found, for scripts/privileges.ts. */
const foundFile = join(root, 'build/privileges-guest.json');
const found: Privileges = {};

for (const subject of guestSubjects)
  test(`${subject.name}: ADD takes what is written, and no less`, async (t) => {
    const host = await makeHostWithDevices(t, { mayHaveAgent: false });
    const one = new Privileged(host, subject);
    await one.prepare();
    const own = { ADD: await one.find('ADD', [['CAP_NET_ADMIN', 'CAP_SYS_ADMIN']]) };
    found[subject.name] = own;
    mkdirSync(join(root, 'build'), { recursive: true });
    rmSync(foundFile, { force: true });
    writeFileSync(foundFile, JSON.stringify(found));
    const written = JSON.parse(readFileSync(join(root, 'docs/privileges.json'), 'utf8')) as Privileges;
    t.deepEqual(own, written[subject.name]);
  });
