/** The configuration of masquerading. It is loaded even when masquerading is not asked for. */

import { backendNames } from '../firewall/backend.ts';
import { boolean, type InferShape, string } from './schema.ts';

/** Keys of plugins that masquerade. */
export const masqueradeShape = {
  ipMasq: boolean({ description: 'Give packets that leave the subnet the address of the host.' }),
  ipMasqBackend: string({
    values: backendNames,
    description: 'What to masquerade with; by default iptables where it can be used, else nftables.',
  }),
};

export type MasqueradeConfig = InferShape<typeof masqueradeShape>;
