/** What an overlay and the process that it is in tell each other. */

import type { Sharing } from '../../lib/kernel/sharing.ts';

/** What an overlay needs of the process it is in. */
export interface OverlayHost {
  readonly sharing: Sharing;
  readonly environment: Readonly<Record<string, string | undefined>>;
  print(message: string): void;
  warn(message: string): void;
  /** The text for an error. */
  describe(error: unknown): string;
}

/** What an overlay tells of itself. */
export interface OverlayStatus {
  /** Without problem, the node has its lease, and hears of changes. */
  readonly problem: string | undefined;
  readonly backend: string | undefined;
  /** Subnets of this node. */
  readonly subnets: readonly string[];
  /** How many other nodes packets are sent to. */
  readonly nodes: number;
}
