/** What the checks of `cni doctor` look at, found out once for all of them. */

import type { Family } from '../../lib/ip.ts';
import type { Link } from '../../lib/kernel/link.ts';
import { Programs } from '../../lib/kernel/programs.ts';
import { seenLinks } from '../../lib/kernel/seen-links.ts';
import { lookOnce, type Once } from '../../lib/kernel/sharing.ts';
import type { Suite } from '../../main.ts';
import { CommandError } from '../errors.ts';
import { type RunningAttachment, runningAttachments, uplinksOf } from '../inventory/running.ts';
import { type Inventory, takeInventory } from '../inventory.ts';
import type { Environment } from '../libcni/chain.ts';
import { configFiles } from '../libcni/conflist.ts';
import { cacheDir, configDir, environment } from '../settings.ts';
import { type CheckedFile, checkFile } from '../validate/file.ts';
import { checkNetworks } from '../validate/networks.ts';
import { type SavedRules, savedRules } from './iptables.ts';

/** The host, as the checks see it. What could not be looked at throws the error whenever it is asked for. */
export interface Context {
  readonly suite: Suite;
  readonly environment: Environment;
  readonly programs: Programs;
  /** Shares what is seen of the host between the inventory and CHECK. */
  readonly once: Once;
  readonly inventory: Inventory;
  readonly running: readonly RunningAttachment[];
  /** Configuration files and what `cni validate` says of them, in the order in which runtimes read them. */
  readonly files: readonly CheckedFile[];
  /** The rules of both variants of iptables. */
  readonly rules: readonly SavedRules[];
  /** Interfaces that default routes lead to. */
  readonly uplinks: ReadonlyMap<Family, readonly Link[]>;
}

/**
 * Looks at the host. Nothing is changed.
 * @throws CommandError when this process cannot see the network namespaces of the host's containers.
 */
export async function lookAround(suite: Suite): Promise<Context> {
  const programs = new Programs({});
  const once = lookOnce();
  const [inventory, rules] = await Promise.all([
    attempt(takeInventory(configDir(), cacheDir(), once)),
    attempt(savedRules(programs)),
  ]);
  const own = environment();
  return {
    suite,
    environment: own,
    programs,
    once,
    get inventory() {
      return inventory();
    },
    get running() {
      return once('running attachments', () => runningAttachments(inventory()));
    },
    get rules() {
      return rules();
    },
    files: await checkFiles(suite, own.path),
    get uplinks() {
      const { all } = seenLinks(once);
      return new Map(([4, 6] as const).map((family) => [family, uplinksOf(family, all)]));
    },
  };
}

/** The outcome of a look at the host, for those who need it: one thing out of reach must hide no other. */
async function attempt<T>(look: Promise<T>): Promise<() => T> {
  try {
    const seen = await look;
    return () => seen;
  } catch (error) {
    if (error instanceof CommandError) throw error;
    return () => {
      throw error;
    };
  }
}

async function checkFiles(suite: Suite, hostPath: readonly string[]): Promise<CheckedFile[]> {
  let files: string[];
  try {
    files = configFiles(configDir(), ['.conf', '.conflist', '.json']);
  } catch {
    return []; // The inventory reports it.
  }
  const checked: CheckedFile[] = [];
  for (const file of files)
    checked.push(await checkFile(file, { suite, isInstalled: undefined, hostPath, looksAtUse: false }));
  checkNetworks(checked);
  return checked;
}
