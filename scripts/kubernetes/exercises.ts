/** What people do with a cluster, each judged by what programs in it see. */

import type { Teardown } from '../../test/support/host.ts';
import type { Claims } from '../claims.ts';
import type { Cluster } from './cluster.ts';
import { nodes, pods } from './exercises/basics.ts';
import { leftovers, withoutAgent } from './exercises/endings.ts';
import { genie } from './exercises/genie.ts';
import { networks } from './exercises/networks.ts';
import { hostPorts, ingress, nodePorts } from './exercises/ports.ts';
import { changes, names, services } from './exercises/services.ts';

type Exercise = (cluster: Cluster, claims: Claims, t: Teardown) => Promise<void>;

/** In order: later ones build on what earlier ones deployed. */
export const exercises: readonly Exercise[] = [
  nodes,
  pods,
  services,
  names,
  nodePorts,
  hostPorts,
  ingress,
  changes,
  networks,
  genie,
  withoutAgent,
  leftovers,
];
