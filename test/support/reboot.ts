/** Reboots of a stand-in for a host, see host.ts. */

import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { type Host, makeHost, startAgent, type Teardown } from './host.ts';
import { run } from './run.ts';

const bootIdFile = '/proc/sys/kernel/random/boot_id';

/**
 * A host after a reboot: /var/lib/cni and /etc/cni are as they were, modification times included; /run, the
 * namespaces and all state of the kernel are gone, and the boot ID is another.
 * @param options.bootId what the kernel gives as the boot ID.
 * @param options.mayHaveAgent as for makeHost().
 */
export async function reboot(
  t: Teardown,
  before: Host,
  { bootId = randomUUID() as string, mayHaveAgent = true } = {},
): Promise<Host> {
  const after = await makeHost(t, { mayHaveAgent: false });
  for (const directory of ['/var/lib/cni', '/etc/cni'])
    await run(['cp', '--archive', `${before.file(directory)}/.`, after.file(directory)]);
  writeFileSync(after.file('/run/boot_id'), `${bootId}\n`);
  await after.run(['mount', '--bind', '/run/boot_id', bootIdFile]);
  if (mayHaveAgent && process.env.CNI_TEST_AGENT) await startAgent(t, after);
  return after;
}
