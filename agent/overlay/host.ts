/** The interface between an overlay and the process that runs it. */

import type { Sharing } from '../../lib/kernel/sharing.ts';

/** What an overlay needs from the process that runs it. */
export interface OverlayHost {
  readonly sharing: Sharing;
  readonly environment: Readonly<Record<string, string | undefined>>;
  print(message: string): void;
  warn(message: string): void;
  /** The text for an error. */
  describe(error: unknown): string;
}

/** What an overlay reports about itself. */
export interface OverlayStatus {
  /** Undefined when the node has its lease, is told of changes, and can carry them out. */
  readonly problem: string | undefined;
  readonly backend: string | undefined;
  /** Subnets of this node. */
  readonly subnets: readonly string[];
  /** How many other nodes packets are sent to. */
  readonly nodes: number;
}
