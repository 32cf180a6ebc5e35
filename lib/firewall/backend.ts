/** Which firewall a host has. */

import type { Programs } from '../kernel/programs.ts';

/** Names of the backends in configurations. */
export const backendNames = ['iptables', 'nftables'] as const;
export type BackendName = (typeof backendNames)[number];

/** Registers how to take back what has just been done, should ADD fail later. */
export type RegisterUndo = (what: string, step: () => Promise<void> | void) => void;

/**
 * The backend to use where the configuration names none: iptables, as in the reference plugins, unless it is
 * not installed.
 */
export function defaultBackend(programs: Programs): BackendName {
  try {
    programs.find('iptables-restore');
    return 'iptables';
  } catch {
    return 'nftables';
  }
}
