/** The life of a pod: it comes, waits for an address, is looked at, and goes or is lost. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../random.ts';
import type { SoakNetwork } from './networks.ts';
import type { Observed, Observer } from './observer.ts';
import { Pod } from './pod.ts';

/** How likely it is that the DEL of a pod is lost. */
const lossProbability = 0.05;
/** How likely it is that the runtime is restarted once a pod is gone. */
const restartProbability = 0.015;
/** How likely GC of one network is then, which does not run while its own pods come or go. */
const sweepProbability = 0.015;
/** How long a pod lives at most, and waits for an address before it tries again, in milliseconds. */
const [longestLife, longestPause] = [1500, 1500];
/** After how many failed attempts the runtime is restarted, and after how many it is a violation. */
const [attemptsBeforeRestart, attemptsAtMost] = [10, 150];

/** What a life needs. */
export interface World extends Observed {
  readonly observer: Observer;
}

/** Lives one life. @param random decides everything in it. */
export async function live(world: World, life: number, random: Random): Promise<void> {
  const { runtime, observer, findings, networks } = world;
  const [first, second] = networks as [SoakNetwork, SoakNetwork];
  const pod = new Pod(life, random.chance(first.share) ? first : second);
  await pod.create();
  if (await attach(world, pod, random)) {
    pod.serve();
    await observer.examine(pod);
    await sleep(random.below(longestLife));
    await observer.examine(pod);
    await pod.stop();
    if (random.chance(lossProbability)) {
      findings.count('lost DEL');
      await runtime.forget(pod);
    } else {
      await runtime.detach(pod, random);
      await pod.remove();
    }
  } else await pod.remove();
  if (random.chance(restartProbability)) await runtime.restart(random);
  if (random.chance(sweepProbability)) await runtime.sweep(random.pick(networks), random);
}

/** Attaches a pod, which may have to wait until another one leaves. */
async function attach({ runtime, findings }: World, pod: Pod, random: Random): Promise<boolean> {
  for (let attempt = 1; attempt <= attemptsAtMost; attempt++) {
    const outcome = await runtime.attach(pod, random);
    if (outcome === 'attached') return true;
    if (outcome === 'full') {
      findings.count('wait for an address');
      if (attempt % attemptsBeforeRestart === 0) await runtime.restart(random);
    }
    await sleep(random.between(longestPause / 3, longestPause));
  }
  findings.violation(`${pod.name} got no address in ${attemptsAtMost} attempts`);
  return false;
}
