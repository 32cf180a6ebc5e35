import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { LeaseFiles } from '../../../ipam/dhcp/lease-files.ts';
import { Netns } from '../../../lib/kernel/netns.ts';

const directory = mkdtempSync(join(tmpdir(), 'cni-leases-'));
test.after.always(() => rmSync(directory, { recursive: true, force: true }));

test('a lease stays when its namespace cannot be opened just then, and goes when it is torn', (t) => {
  const told: string[] = [];
  const restore = (text: string) => {
    JSON.parse(text);
    // The kernel refuses the path, as it does any when there are too many open files.
    Netns.open(`/${'x'.repeat(300)}`).close();
    return true;
  };
  for (const [name, text] of Object.entries({ 'kept.json': '{}', 'torn.json': '{' }))
    writeFileSync(join(directory, name), text);
  new LeaseFiles(directory).restoreAll(restore, (message) => void told.push(message));
  t.deepEqual(readdirSync(directory), ['kept.json']);
  t.regex(told.join('\n'), /kept\.json", so it is left alone: Cannot open network namespace/);
  t.regex(told.join('\n'), /torn\.json", so it is forgotten/);
});
