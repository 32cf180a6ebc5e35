/** What pods left on the host, or removed from it. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Host } from '../../test/support/host.ts';
import { differences, type Picture, takePicture } from './picture.ts';
import { settlingTime } from './tools.ts';

/** What is there that was not there before, and what is missing, after waiting until everything is undone. */
export async function leftovers(host: Host, before: Picture): Promise<{ left: string[]; lost: string[] }> {
  for (const end = performance.now() + settlingTime; ; await sleep(500)) {
    const now = await takePicture(host);
    const found = differences(before, now);
    if (found.left.length + found.lost.length === 0 || performance.now() > end) return found;
  }
}
