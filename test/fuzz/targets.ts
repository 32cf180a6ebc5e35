/** Everything that is fuzzed. */

import { diskTargets } from './disk-targets.ts';
import { inputTargets } from './input-targets.ts';
import type { Target } from './target.ts';
import { wireTargets } from './wire-targets.ts';

export const targets: readonly Target[] = [...inputTargets, ...diskTargets, ...wireTargets];
