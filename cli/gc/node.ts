/** `cni gc --node`: gives back what a node that is gone has left of ranges that nodes share. */

import { attachmentKey } from '../../lib/attachment.ts';
import type { RemoteHolding } from '../../lib/cni/plugin.ts';
import type { Suite } from '../../main.ts';
import { CommandError, describeError, ExitCode } from '../errors.ts';
import { type ConfiguredPlugin, ipamPluginsOf } from '../ipam-plugins.ts';
import type { NetworkList } from '../libcni/conflist.ts';
import { count, paint, print, warn } from '../terminal.ts';

/**
 * Collects what a node has left of some networks.
 * @param options.dryRun only tells what it would do.
 * @throws CommandError when none of the networks shares its ranges with other nodes.
 */
export async function collectNode(
  networks: readonly NetworkList[],
  node: string,
  { suite, dryRun }: { suite: Suite; dryRun: boolean },
): Promise<void> {
  let isShared = false;
  for (const network of networks)
    for (const one of await ipamPluginsOf(network, suite)) {
      if (!one.plugin.leftBehind) continue;
      isShared = true;
      try {
        await collectLeft(network, one, { node, dryRun });
      } catch (error) {
        warn(`Network "${network.name}": ${describeError(error)}`);
        process.exitCode = ExitCode.Failure;
      }
    }
  if (!isShared)
    throw new CommandError(
      `There is nothing to collect of node "${node}": no network that was looked at (${networks.map(({ name }) => `"${name}"`).join(', ') || 'there are none'}) has an IPAM plugin that shares ranges with other nodes, as whereabouts does`,
    );
}

async function collectLeft(
  { name, disableGC }: NetworkList,
  { plugin, config }: ConfiguredPlugin,
  { node, dryRun }: { node: string; dryRun: boolean },
): Promise<void> {
  if (disableGC) throw new CommandError('"disableGC" is set, so that nothing is collected');
  const ask = () => plugin.leftBehind!(config(), node, process.env);
  const left = await ask();
  if (dryRun) {
    for (const one of left) print(`Would remove ${describe(one)}`);
    print(`${name}: ${count(left.length, 'attachment')} of node "${node}" would be removed.`);
    return;
  }
  const released: RemoteHolding[] = [];
  let still: Set<string>;
  try {
    for (const one of left) if (await one.release()) released.push(one);
    still = new Set((await ask()).map(({ owner }) => attachmentKey(owner)));
  } catch (error) {
    for (const one of released) print(`Removed ${describe(one)}`);
    print(
      `${name}: ${released.length} of ${count(left.length, 'attachment')} of node "${node}" removed so far.`,
    );
    throw error;
  }
  for (const one of left)
    print(
      still.has(attachmentKey(one.owner))
        ? `${paint('red', 'Still there:')} ${describe(one)}`
        : `Removed ${describe(one)}`,
    );
  print(`${name}: ${count(left.length - still.size, 'attachment')} of node "${node}" removed.`);
  if (still.size > 0) process.exitCode = ExitCode.Failure;
}

function describe({ owner, ips }: RemoteHolding): string {
  return `${owner.containerId} ${owner.ifname}: ${ips.join(', ') || 'no address'}`;
}
