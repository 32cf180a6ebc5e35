/** How full the conntrack table is. Source: nf_conntrack-sysctl.rst of the kernel's documentation. */

import { readSysctl } from '../../lib/kernel/sysctl.ts';
import type { Check } from './check.ts';

/** From this share on, new connections fail before long. */
const nearlyFull = 0.9;
const filling = 0.75;

export const conntrack: Check = {
  id: 'conntrack',
  title: 'Connection tracking',
  run() {
    const [used, max] = ['nf_conntrack_count', 'nf_conntrack_max'].map((name) =>
      Number(readSysctl(['netfilter', name]) ?? Number.NaN),
    ) as [number, number];
    if (Number.isNaN(used) || Number.isNaN(max) || max === 0)
      return { findings: [], seen: 'the kernel tracks no connections, or without a limit' };
    const share = used / max;
    const seen = `${used} of ${max} entries in use`;
    if (share < filling) return { findings: [], seen };
    return {
      seen,
      findings: [
        {
          severity: share >= nearlyFull ? 'error' : 'warning',
          subject: 'net/netfilter/nf_conntrack_max',
          message: `The table of connections is ${Math.floor(share * 100)} % full (${seen}); once it is full, new connections are dropped`,
          cause:
            'More connections are open, or were not closed, than the table is made for; "conntrack -S" and "conntrack -L" show them',
          fix: `sysctl -w net/netfilter/nf_conntrack_max=${used * 2}`,
        },
      ],
    };
  },
};
