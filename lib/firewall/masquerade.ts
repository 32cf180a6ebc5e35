/** Masquerading: packets of a container that leave its subnet get the host's address. */

import type { Programs } from '../kernel/programs.ts';
import type { BackendName } from './backend.ts';
import type { MasqueradeBackend } from './masquerade-backend.ts';
import { iptablesMasquerade } from './masquerade-iptables.ts';
import { nftablesMasquerade } from './masquerade-nftables.ts';

/** A backend by its name. */
export function masqueradeBackend(name: BackendName, programs: Programs): MasqueradeBackend {
  return (name === 'nftables' ? nftablesMasquerade : iptablesMasquerade)(programs);
}
