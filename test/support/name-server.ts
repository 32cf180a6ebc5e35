/** The dnsmasq of a network on a host of a test, as the plugin dnsname leaves it there. */

import { readFileSync } from 'node:fs';
import type { Host, Teardown } from './host.ts';

const usualParent = '/run/containers/cni/dnsname';

/** Where its files are. @param parent directory with those of all networks. */
export function nameDirectory(network: string, parent = usualParent): string {
  return `${parent}/${network}`;
}

/** Its process; undefined when it does not run. */
export function nameServer(host: Host, network: string, parent = usualParent): number | undefined {
  const directory = nameDirectory(network, parent);
  try {
    const pid = Number(readFileSync(host.file(`${directory}/pidfile`), 'utf8'));
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(directory) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** Ends it with the test: it outlives what started it. */
export function endNameServer(t: Teardown, host: Host, network: string, parent = usualParent): void {
  t.teardown(() => {
    const pid = nameServer(host, network, parent);
    if (pid !== undefined) process.kill(pid, 'SIGKILL');
  });
}
