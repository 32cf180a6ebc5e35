/** Checks that refuse a call before any plugin is asked. The runner decides their order. */

import { type Stats, statSync } from 'node:fs';
import { CniError, ErrorCode } from '../errors.ts';
import { eachTime, type Once } from '../kernel/sharing.ts';
import { type CallContext, warnOf } from './call.ts';
import { type Invocation, isValidName } from './invocation.ts';
import type { Plugin } from './plugin.ts';
import { atLeast } from './version.ts';

/** How deep delegation may go: no plugin needs more than three levels. */
const deepestDelegation = 8;

/** Refuses a network name that the specification does not allow. @throws CniError InvalidNetworkConfig */
export function checkName(name: string): void {
  if (name === '')
    throw new CniError(
      ErrorCode.InvalidNetworkConfig,
      'The network configuration has no "name". Give the network a name',
    );
  if (!isValidName(name))
    throw new CniError(
      ErrorCode.InvalidNetworkConfig,
      'The network\'s "name" is not valid: it must begin with a letter or digit and continue with letters, digits, "_", "." or "-"',
      name.slice(0, 300),
    );
}

/** Refuses a verb that the specification does not have. @throws CniError InvalidEnvironment */
export function checkCommand(command: string): void {
  if (!['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'].includes(command))
    throw new CniError(
      ErrorCode.InvalidEnvironment,
      `CNI_COMMAND is "${command.slice(0, 80)}", but it must be ADD, DEL, CHECK, STATUS, GC or VERSION`,
    );
}

/** A configuration in which plugins delegate in a circle would otherwise run until memory is used up. */
export function checkDepth({ depth }: CallContext, { name }: Plugin<never>): void {
  if (depth > deepestDelegation)
    throw new CniError(
      ErrorCode.InvalidNetworkConfig,
      `Plugins delegate to one another more than ${deepestDelegation} times, the last one to "${name}". ` +
        'Correct "ipam.type" or "delegate.type", which lead in a circle',
    );
}

/**
 * Refuses a version of the specification that lacks the verb, or that the plugin does not support.
 * @param command the verb. @param version "cniVersion" of the configuration.
 * @throws CniError IncompatibleVersion
 */
export function checkVersion({ name, versions }: Plugin<never>, command: string, version: string): void {
  const since = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' }[command];
  if (since && !atLeast(version, since))
    throw new CniError(
      ErrorCode.IncompatibleVersion,
      `"cniVersion" is "${version}", which has no ${command}. Set it to "${since}" or newer`,
    );
  // An unusual spelling such as "1.0" counts as an unknown version: runtimes compare strings.
  if (!versions.includes(version))
    throw new CniError(
      ErrorCode.IncompatibleVersion,
      `"cniVersion" is "${version}", which plugin "${name}" does not support. Set it to one that it does`,
      `config is "${version}", plugin supports ${versions.join(', ')}`,
    );
}

/**
 * Refuses the host's own namespace in place of a container's.
 * @throws CniError InvalidNetns
 */
export function refuseOwnNetns(invocation: Invocation, look: Once): void {
  if (isOwnNetns(invocation, look))
    throw new CniError(
      ErrorCode.InvalidNetns,
      `CNI_NETNS "${invocation.netns}" is the namespace that the plugin itself runs in. Pass the container's own namespace, ` +
        'or set CNI_NETNS_OVERRIDE=1 if the host itself is to be attached',
    );
}

/**
 * On DEL, treats the host's own namespace as a sandbox that is gone. What the container left on the host must
 * still be removed, since the runtime retries until DEL succeeds.
 * @returns the context without the namespace; unchanged for other verbs and namespaces.
 */
export function withoutOwnNetns(context: CallContext): CallContext {
  const { invocation, environment, sharing } = context;
  if (invocation.command !== 'DEL' || !isOwnNetns(invocation, sharing?.once ?? eachTime)) return context;
  const message = `CNI_NETNS "${invocation.netns}" is the namespace that the plugin itself runs in: going on as without the container's`;
  warnOf(context, message);
  return {
    ...context,
    invocation: { ...invocation, netns: '' },
    environment: { ...environment, CNI_NETNS: '' },
  };
}

/** Whether CNI_NETNS names the host's own namespace by mistake, say because a process ID was reused. */
function isOwnNetns({ netns, netnsOverride }: Invocation, look: Once): boolean {
  if (netns === '' || netnsOverride) return false;
  return look(`own network namespace ${netns}`, () => isSameNetns(netns, look));
}

/** False for a namespace that is gone or out of reach: each verb deals with that itself. */
function isSameNetns(netns: string, look: Once): boolean {
  let sandbox: Stats;
  try {
    sandbox = statSync(netns);
  } catch {
    return false;
  }
  const own = look('own network namespace', () => statSync('/proc/self/ns/net'));
  return sandbox.dev === own.dev && sandbox.ino === own.ino;
}
