/** Everything that is fuzzed. */

import { clusterTargets } from './cluster-targets.ts';
import { commandTargets } from './command-targets.ts';
import { diskTargets } from './disk-targets.ts';
import { hostTargets } from './host-targets.ts';
import { inputTargets } from './input-targets.ts';
import { netlinkTargets } from './netlink-targets.ts';
import { plantedTargets } from './planted-targets.ts';
import { podTargets } from './pod-targets.ts';
import { replyTargets } from './reply-targets.ts';
import { socketTargets } from './socket-targets.ts';
import type { Target } from './target.ts';
import { wireTargets } from './wire-targets.ts';

export const targets: readonly Target[] = [
  ...inputTargets,
  ...diskTargets,
  ...commandTargets,
  ...plantedTargets,
  ...wireTargets,
  ...netlinkTargets,
  ...socketTargets,
  ...replyTargets,
  ...podTargets,
  ...clusterTargets,
  ...hostTargets,
];
