/** Whether networks have addresses left. */

import { isFull } from '../reservations.ts';
import { count } from '../terminal.ts';
import type { Check } from './check.ts';
import { collectFix } from './records.ts';

export const ranges: Check = {
  id: 'ranges',
  title: 'Address ranges',
  run({ inventory: { ranges, attachments, networks } }) {
    const findings = ranges.filter(isFull).map(({ network, range, used }) => {
      const orphans = attachments.filter((one) => one.network === network && one.orphaned.length > 0).length;
      return {
        severity: 'error' as const,
        subject: `network "${network}"`,
        message: `All ${used} addresses of ${range} are given away, so that the next ADD fails`,
        cause:
          orphans > 0
            ? `${count(orphans, 'attachment')} of containers that are gone ${orphans === 1 ? 'holds' : 'hold'} addresses`
            : 'As many containers run as the range has addresses',
        fix:
          orphans > 0
            ? collectFix(network, networks.find(({ name }) => name === network)?.disableGC)
            : 'Make the range larger in the configuration of the network',
      };
    });
    return { findings, seen: `${count(ranges.length, 'range')} with addresses left` };
  },
};
