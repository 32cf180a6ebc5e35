/** `cni gc --node`: gives back what a node that is gone still holds of the ranges that nodes share. */

import { attachmentKey } from '../../lib/attachment.ts';
import { NodePresentError, NodesUnknownError, type RemoteHolding } from '../../lib/cni/plugin.ts';
import type { Suite } from '../../main.ts';
import { CommandError, describeError, ExitCode } from '../errors.ts';
import { takeInventory } from '../inventory.ts';
import { ipamsOf } from '../ipam.ts';
import type { NetworkList } from '../libcni/conflist.ts';
import { cacheDir, callerEnvironment, configDir } from '../settings.ts';
import { count, paint, print, warn } from '../terminal.ts';

/**
 * Collects what a node left behind of some networks. That the node lives is reported only if it left nothing
 * behind of any of them: a host that is gone may have had the same name, and attachments to one network only.
 * @param options.dryRun only tells what it would do.
 * @throws CommandError when none of the networks shares its ranges with other nodes.
 */
export async function collectNode(
  networks: readonly NetworkList[],
  node: string,
  { suite, dryRun }: { suite: Suite; dryRun: boolean },
): Promise<void> {
  const living = await livingHere();
  let isShared = false;
  let isAnswered = false;
  let hasLeft = false;
  const refused: (() => void)[] = [];
  const unknown: string[] = [];
  for (const network of networks)
    for (const { plugin, config } of await ipamsOf(network, suite)) {
      if (!plugin.leftBehind) continue;
      isShared = true;
      const fail = (error: unknown) => {
        warn(`Network "${network.name}": ${describeError(error)}`);
        process.exitCode = ExitCode.Failure;
      };
      try {
        if (network.disableGC) throw new CommandError('"disableGC" is set, so that nothing is collected');
        const left = await plugin.leftBehind(config(), node, callerEnvironment()).catch((error: unknown) => {
          if (!(error instanceof NodePresentError)) throw error;
          refused.push(() => fail(error));
        });
        if (!left) continue;
        isAnswered = true;
        hasLeft ||= left.length > 0;
        const isLiving = ({ owner }: RemoteHolding) => living.has(attachmentKey(owner));
        for (const one of left.filter(isLiving))
          print(`Kept ${describe(one)}, which lives on this host: "${node}" is a former name of its node.`);
        const gone = left.filter((one) => !isLiving(one));
        await collectLeft(network.name, gone, { node, dryRun });
      } catch (error) {
        if (error instanceof NodesUnknownError) unknown.push(`Network "${network.name}": ${error.message}`);
        else fail(error);
      }
    }
  if (!hasLeft) for (const tell of refused) tell();
  for (const message of unknown) warn(message);
  // whereabouts' reconciler collects there, so this is a failure only if no other network told anything.
  if (unknown.length > 0 && !isAnswered) process.exitCode = ExitCode.Failure;
  if (!isShared)
    throw new CommandError(
      `There is nothing to collect of node "${node}": no network that was looked at (${networks.map(({ name }) => `"${name}"`).join(', ') || 'there are none'}) has an IPAM plugin that shares ranges with other nodes, as whereabouts does`,
    );
}

/** The attachments that live on this host, whatever its node was called when they were added. */
async function livingHere(): Promise<ReadonlySet<string>> {
  const { attachments } = await takeInventory(configDir(), cacheDir());
  return new Set(attachments.filter(({ orphaned }) => orphaned.length === 0).map(attachmentKey));
}

/** Each holding checks the node again when it is released, and refuses if the node turns out to live. */
async function collectLeft(
  name: string,
  left: readonly RemoteHolding[],
  { node, dryRun }: { node: string; dryRun: boolean },
): Promise<void> {
  if (dryRun) {
    for (const one of left) print(`Would remove ${describe(one)}`);
    print(`${name}: ${count(left.length, 'attachment')} of node "${node}" would be removed.`);
    if (left.length > 0) process.exitCode = ExitCode.Failure;
    return;
  }
  let removed = 0;
  try {
    for (const one of left)
      if (await one.release()) {
        removed++;
        print(`Removed ${describe(one)}`);
      } else {
        print(`${paint('red', 'Still there:')} ${describe(one)}: it has changed meanwhile`);
        process.exitCode = ExitCode.Failure;
      }
  } catch (error) {
    print(`${name}: ${removed} of ${count(left.length, 'attachment')} of node "${node}" removed so far.`);
    throw error;
  }
  print(`${name}: ${count(removed, 'attachment')} of node "${node}" removed.`);
}

function describe({ owner, ips }: RemoteHolding): string {
  return `${owner.containerId} ${owner.ifname}: ${ips.join(', ') || 'no address'}`;
}
