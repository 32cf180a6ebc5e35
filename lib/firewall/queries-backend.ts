/** Letting the containers of a network ask a name server on the host: what a way to do it is told. */

import type { Address, Prefix } from '../ip.ts';

/** Who may ask which server. */
export interface Queries {
  readonly network: string;
  /** Where containers have their addresses. */
  readonly from: Prefix;
  /** Address of the host, of the same family. */
  readonly to: Address;
}
