/** Letting the containers of a network ask a name server on the host: what the backends are told. */

import type { Address, Prefix } from '../ip.ts';

/** Who may ask which server. */
export interface Queries {
  readonly network: string;
  /** The subnet that containers have their addresses in. */
  readonly from: Prefix;
  /** Address of the host, of the same family. */
  readonly to: Address;
}
