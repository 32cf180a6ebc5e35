/** What the backends of the firewall have in common. */

import type { Address } from '../ip.ts';

/** Names of the backends in configurations. */
export const backendNames = ['iptables', 'nftables'] as const;
export type BackendName = (typeof backendNames)[number];

/** Registers how to undo what has just been done, should ADD fail later. */
export type RegisterUndo = (what: string, step: () => Promise<void> | void) => void;

/**
 * The addresses of the container's other interfaces, which may be on the same network: their rules are not
 * the attachment's, even if they bear the container's name. Looked up when needed.
 */
export type Neighbours = () => readonly Address[];

/**
 * CHECK of what a backend has made.
 * @param missing what the backend says it would add.
 * @param consequence a sentence without its full stop.
 * @throws Error when anything is missing.
 */
export function requireComplete(missing: readonly string[], consequence: string): void {
  if (missing.length > 0) throw new Error(`${consequence}. Missing: ${missing.join(', ')}. Run "cni repair"`);
}

/**
 * Names the rules that a chain has lost.
 * @param table as in 'table "nat" of iptables'.
 * @returns a text, or none when it has lost none.
 */
export function describeLost(chain: string, count: number, table: string): string[] {
  return count === 0 ? [] : [`${count} ${count === 1 ? 'rule' : 'rules'} of chain "${chain}" in ${table}`];
}
