/** Lives of pods in which two builds take part: the tests' suite "reference" is the older build here. */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describeFailure, type WayOut, waysOutOf } from '../../test/proof/kills.ts';
import type { Picture } from '../../test/proof/observer.ts';
import { Scene } from '../../test/proof/scene.ts';
import type { Subject } from '../../test/proof/subjects.ts';
import { type Attachment, runNetworkVerb } from '../../test/support/chain.ts';
import { type Suite, suites } from '../../test/support/plugin.ts';

/** The older build adds a pod and this one goes on, or the other way round. */
export const directions = ['upgrade', 'downgrade'] as const;
export type Direction = (typeof directions)[number];

/** What came of the lives on one network. */
export interface Mixed {
  readonly lives: number;
  /** Whether the older build does not have all plugins of the network yet. */
  readonly isUnknown: boolean;
  readonly problems: readonly string[];
}

/** Has a pod live for each way of cleaning up, next to one of this build that stays. */
export async function mix(subject: Subject, direction: Direction): Promise<Mixed> {
  const isUnknown = subject.network.plugins.some(({ type }) => !existsSync(join(suites.reference, type)));
  if (isUnknown) return { lives: 0, isUnknown, problems: [] };
  const pair: readonly [Suite, Suite] =
    direction === 'upgrade' ? ['reference', 'ours'] : ['ours', 'reference'];
  const problems: string[] = [];
  const ways = waysOutOf('ADD');
  let stage: Stage | undefined;
  for (const way of ways) {
    const problem = await (async () => {
      stage ??= await Stage.open(subject, pair);
      return await stage.live(way);
    })().catch((error: Error) => error.message);
    if (problem === '') continue;
    problems.push(`${way}: ${problem}`);
    await stage?.close();
    stage = undefined;
  }
  await stage?.close();
  return { lives: ways.length, isUnknown, problems };
}

/** The file that tells which boot the index beside it is from, which older builds do not record. */
const isHint = (path: string) => /^\/var\/lib\/cni\/networks\/\.owners\/[^/]+\/stamp$/.test(path);

/** A host with a pod that stays. */
class Stage {
  private readonly scene: Scene;
  private readonly adder: Suite;
  private readonly other: Suite;
  private readonly before: Picture;

  private constructor(scene: Scene, [adder, other]: readonly [Suite, Suite], before: Picture) {
    this.scene = scene;
    this.adder = adder;
    this.other = other;
    this.before = before;
  }

  static async open(subject: Subject, pair: readonly [Suite, Suite]): Promise<Stage> {
    const scene = await Scene.open(subject, { hasAgent: false });
    // What stays by design after the last DEL may differ between the builds.
    for (const suite of pair) {
      const one = await scene.attachment();
      await one.add({ suite });
      await one.del({ suite });
      await scene.remove(one.pod);
    }
    return new Stage(scene, pair, await scene.settledPicture());
  }

  close(): Promise<void> {
    return this.scene.close();
  }

  /** @returns what went wrong; then the stage must not be used any further. */
  async live(way: WayOut): Promise<string> {
    const { scene, adder, other, before } = this;
    const { neighbourAttachment: neighbour } = scene;
    const one = await scene.attachment();
    await one.add({ suite: adder });
    const failures = [
      describeFailure(await one.tryCheck({ suite: other })),
      describeFailure(await this.collect(neighbour, one)),
      // GC must have kept both.
      describeFailure(await one.tryCheck({ suite: adder })),
    ];
    // DEL does not find a device in a namespace that it is not told, and nobody calls it again.
    const isGone = way === 'gone' || way === 'gc' || (way === 'bare' && scene.subject.isDevice === true);
    if (isGone) await scene.removeWholly(one.pod);
    if (way === 'bare') one.result = undefined;
    const netns = way === 'bare' ? { netns: '' } : {};
    failures.push(
      describeFailure(
        await (way === 'gc' ? this.collect(neighbour) : one.tryDel({ suite: other, ...netns })),
      ),
    );
    await scene.remove(one.pod);
    const difference = await scene.differenceFrom(before, undefined, isHint);
    failures.push(difference && `Left or lost:\n${difference}`);
    if (neighbour) failures.push(describeFailure(await neighbour.tryCheck({ suite: other })));
    return failures.filter(Boolean).join('\n');
  }

  /** GC by the other build. */
  private collect(...kept: (Attachment | undefined)[]) {
    const valid = kept.flatMap((one) =>
      one ? [{ containerID: one.pod.containerId, ifname: one.options.ifname ?? 'eth0' }] : [],
    );
    return runNetworkVerb(this.scene.host, this.scene.subject.network, 'GC', { suite: this.other, valid });
  }
}
