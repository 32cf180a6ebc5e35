/**
 * Refused on a host that has had no attachment yet: what the first one makes for all, such as a bridge and
 * its addresses, is made completely or not at all.
 */

import type { Attachment } from '../support/chain.ts';
import { answerProblem } from './answers.ts';
import type { FailureCase } from './failures.ts';
import { bringTo, cleanUp, describeFailure, type Verdict } from './kills.ts';
import type { Picture } from './observer.ts';
import { differences, Scene } from './scene.ts';
import type { Subject } from './subjects.ts';

/** Opens a host without anything of the network. */
export function openFirst(subject: Subject): Promise<Scene> {
  return Scene.open(subject, { isUsed: false, hasAgent: false });
}

/** Tries each case on a host of its own. */
export class FirstBench {
  private readonly subject: Subject;
  /** What attachments leave by design. */
  private usual: Picture | undefined;

  constructor(subject: Subject) {
    this.subject = subject;
  }

  /** Tries the first ADD of a plugin, and another attachment after it. @returns what went wrong. */
  async attempt({ index, inject }: FailureCase): Promise<Verdict> {
    this.usual ??= await this.inScene((scene) => liveOn(scene));
    const { usual } = this;
    return await this.inScene(async (scene) => {
      const attachment = await bringTo(scene, 'ADD', index);
      const before = await scene.settledPicture(attachment.pod);
      const outcome = await inject(scene.host, scene.start('ADD', index, attachment));
      const problems = [answerProblem(outcome)];
      if (outcome.exit === 0) {
        attachment.result = JSON.parse(outcome.stdout);
        problems.push(describeFailure(await scene.run('CHECK', index, attachment)));
      } else {
        const after = await scene.settledPicture(attachment.pod);
        const made = added(before, after).filter((line) => !added({}, usual).includes(line));
        if (made.length > 0) problems.push(`Not undone:\n${made.join('\n')}`);
      }
      problems.push(await cleanUp(scene, attachment, 'del'));
      const difference = differences(masked(usual), masked(await liveOn(scene)));
      if (difference.length > 0) problems.push(`Otherwise than usual for ever:\n${difference.join('\n')}`);
      return { isReached: outcome.isReached, problem: problems.filter(Boolean).join('\n') };
    });
  }

  private async inScene<T>(work: (scene: Scene) => Promise<T>): Promise<T> {
    const scene = await openFirst(this.subject);
    try {
      return await work(scene);
    } finally {
      await scene.close();
    }
  }
}

/** Attaches and detaches another pod. @returns what the host looks like then. */
async function liveOn(scene: Scene): Promise<Picture> {
  const attachment: Attachment = await scene.attachment();
  await attachment.add();
  await attachment.check();
  await attachment.del();
  await scene.removeWholly(attachment.pod);
  return await scene.settledPicture();
}

function added(before: Picture, now: Picture): string[] {
  return differences(masked(before), masked(now)).filter((line) => line.startsWith('+'));
}

/** A picture without MAC addresses and names of pods, which are random. */
function masked(picture: Picture): Picture {
  const random = /(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|\bpod-[0-9a-f]{8}/g;
  return JSON.parse(JSON.stringify(picture).replace(random, 'any')) as Picture;
}
