/** Packets as tcpdump(8) sees them. */

import type { Host, Pod, Teardown } from './host.ts';
import { until } from './observe.ts';

/**
 * Starts to capture what arrives at a pod's eth0.
 * @param filter see pcap-filter(7). @returns a function that reads the lines that tcpdump has printed so far.
 */
export async function capture(
  t: Teardown,
  host: Host,
  pod: Pod,
  filter: string,
): Promise<() => Promise<string>> {
  const script =
    'exec 3>&1 > /run/dump 2> /run/dump.err; echo started >&3; exec tcpdump -lnnei eth0 "$1" 3>&-';
  await pod.start(t, ['sh', '-c', script, 'sh', filter]);
  await until('tcpdump listens', async () =>
    (await host.run(['cat', '/run/dump.err'])).includes('listening on eth0'),
  );
  return () => host.run(['cat', '/run/dump']);
}
