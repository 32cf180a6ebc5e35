/**
 * Draws the pictures of docs/cni.md with `cni draw`, on hosts that the tests make.
 *
 *     npm run pictures        after npm run build, as root; takes about two minutes
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from '../test/support/host.ts';
import { cniIn, makeFullHost, makeVariedHost } from '../test/support/picture.ts';

const directory = join(import.meta.dirname, '../docs/images');
const steps: (() => void | Promise<void>)[] = [];
const ending = { teardown: (step: () => void | Promise<void>) => void steps.unshift(step) };

async function drawHost(name: string, host: Host): Promise<void> {
  const { exit, stdout, stderr } = await cniIn(host, ['draw', '--svg', '-']);
  // Each of the hosts has a broken pod.
  if (exit !== 1 || stdout === '') throw new Error(stderr);
  writeFileSync(join(directory, `${name}.svg`), stdout);
}

mkdirSync(directory, { recursive: true });
try {
  await drawHost('varied', (await makeVariedHost(ending)).host);
  await drawHost('full', await makeFullHost(ending, 60));
} finally {
  for (const step of steps) await step();
}
