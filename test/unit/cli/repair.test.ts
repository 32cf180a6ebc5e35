import test from 'ava';
import type { HostAttachment } from '../../../cli/inventory.ts';
import { type RepairOptions, repairAttachments } from '../../../cli/repair/attachment.ts';

test('a repair that is to end begins with no further attachment', async (t) => {
  const attachments = ['a', 'b', 'c'].map((containerId) => ({ containerId, ifname: 'eth0' }));
  const ending = new AbortController();
  const options: Partial<RepairOptions> = {
    signal: ending.signal,
    async inTurn({ containerId }, work) {
      if (containerId === 'b') ending.abort();
      return await work();
    },
  };
  const repaired = await repairAttachments(
    attachments as HostAttachment[],
    { records: new Map() },
    options as RepairOptions,
  );
  t.deepEqual(
    repaired.map(({ attachment }) => attachment.containerId),
    ['a', 'b'],
  );
});
