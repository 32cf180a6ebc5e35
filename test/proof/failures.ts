/**
 * Failing anywhere: a verb whose system call fails answers with a CNI error and has undone what it did, or
 * succeeds and has done its work. A living attachment of the same network is not hurt. CHECK and STATUS
 * change nothing, and CHECK never succeeds for a plugin whose DEL has been done.
 */

import type { Attachment } from '../support/chain.ts';
import type { Host, Pod } from '../support/host.ts';
import { networkSnapshot } from '../support/observe.ts';
import { answerProblem } from './answers.ts';
import { fail, findPoints, type Injected, type Point, type Start } from './injection.ts';
import {
  bringTo,
  type CalledVerb,
  type ChangingVerb,
  changingVerbs,
  cleanUp,
  describeFailure,
  hasAgentFor,
  lookingVerbs,
  pointsOf,
  type Verdict,
} from './kills.ts';
import type { Picture } from './observer.ts';
import { differences, Scene } from './scene.ts';
import { type Subject, toTry } from './subjects.ts';

const renameErrors = ['ENOSPC', 'EROFS', 'EPERM', 'EBUSY', 'ENOMEM'];
const linkErrors = ['ENOSPC', 'EROFS', 'EDQUOT', 'EACCES'];
const unlinkErrors = ['EROFS', 'EPERM', 'EBUSY', 'ENOMEM'];
const mkdirErrors = ['ENOSPC', 'EROFS', 'EPERM', 'ENOMEM'];

/** The errors that are tried for each system call. */
const errors: Readonly<Record<string, readonly string[]>> = {
  sendto: ['ENOBUFS', 'ENOMEM', 'EPERM', 'EINTR'],
  sendmsg: ['ENOBUFS', 'ENOMEM', 'EPERM', 'EINTR'],
  recvfrom: ['ENOBUFS', 'ENOMEM', 'EINTR'],
  recvmsg: ['ENOBUFS', 'ENOMEM', 'EINTR'],
  socket: ['EMFILE', 'ENOBUFS', 'ENOMEM', 'EPERM'],
  bind: ['ENOMEM', 'EPERM'],
  setns: ['EPERM', 'ENOMEM'],
  unshare: ['EPERM', 'ENOMEM', 'ENOSPC'],
  ioctl: ['EPERM', 'EBUSY', 'ENOMEM', 'EINTR'],
  flock: ['EINTR', 'ENOMEM'],
  openat: ['EMFILE', 'ENOMEM', 'EPERM', 'ENOSPC', 'EROFS', 'EINTR'],
  write: ['ENOSPC', 'EPERM', 'EINTR', 'EBUSY'],
  pwrite64: ['ENOSPC', 'EPERM', 'EINTR'],
  rename: renameErrors,
  renameat: renameErrors,
  renameat2: renameErrors,
  link: linkErrors,
  linkat: linkErrors,
  unlink: unlinkErrors,
  unlinkat: unlinkErrors,
  rmdir: ['EROFS', 'EPERM', 'EBUSY'],
  mkdir: mkdirErrors,
  mkdirat: mkdirErrors,
  fchmod: ['EROFS', 'EPERM'],
  fsync: ['ENOSPC', 'EROFS', 'EINTR'],
  fdatasync: ['ENOSPC', 'EROFS', 'EINTR'],
  ftruncate: ['EINTR', 'EPERM', 'EROFS'],
  utimensat: ['EROFS', 'EPERM', 'ENOMEM'],
  memfd_create: ['EMFILE', 'ENOMEM'],
  pipe2: ['EMFILE'],
  clone: ['ENOMEM', 'EPERM'],
  clone3: ['ENOMEM', 'EPERM'],
  vfork: ['ENOMEM', 'EPERM'],
  execve: ['EACCES', 'ENOENT', 'ENOMEM'],
  wait4: ['EINTR'],
};

/** Errors of opening a file just to read it, which needs no write access and no space. */
const lookingErrors = ['EMFILE', 'ENOMEM', 'EPERM', 'EINTR'];

/** Files without which everything works, and which the next verb or GC puts in order. */
const hints = /^\/(?:var\/lib\/cni\/networks\/\.owners|run\/cni\/portmap)\//;

/** Locks that their holders remove, or GC, where they could not be locked or removed. */
const locks = /^\/run\/cni\/networks\//;

/** One failure. */
export interface FailureCase {
  /** What `--only` takes. */
  readonly name: string;
  readonly verb: CalledVerb;
  /** Of the plugin in the chain. */
  readonly index: number;
  readonly error: string;
  /** Runs the verb with the failure in it. */
  inject(host: Host, start: Start): Promise<Injected>;
}

/**
 * Lists the cases of a subject, by running each verb once under observation.
 * @param only see {@link pointsOf}.
 */
export async function failureCases(subject: Subject, only = ''): Promise<FailureCase[]> {
  const verbs = [...changingVerbs, ...lookingVerbs];
  return (await pointsOf(await Scene.open(subject), only, verbs, findPoints)).flatMap(
    ({ verb, index, points }) =>
      points.flatMap((point, nth) =>
        // Whichever call of a verb that only looks fails, the verb fails: one error for each is enough.
        toTry(isLooking(verb) ? { ...subject, isSampled: true } : subject, errorsOf(point), nth).map(
          (error) => ({
            name: [
              verb,
              `${index}-${subject.network.plugins[index]!.type}`,
              point.call,
              point.nth,
              error,
            ].join('/'),
            ...{ verb, index, error },
            inject: (host: Host, start: Start) => fail(host, start, point, error),
          }),
        ),
      ),
  );
}

function errorsOf({ call, text }: Point): readonly string[] {
  if (call === 'openat' && !/O_CREAT|O_WRONLY|O_RDWR/.test(text)) return lookingErrors;
  return errors[call] ?? [];
}

/** An attachment at the plugin that is to fail, and what everything looks like there. */
interface Standing {
  /** What was done for it, see {@link FailureBench.standAt}. */
  readonly place: string;
  readonly attachment: Attachment;
  readonly picture: Picture;
}

/** Tries one case after the other on a host. ADDs of one plugin share what comes before it. */
export class FailureBench {
  private readonly scene: Scene;
  private standing: Standing | undefined;
  /** What a pod looks like that has never been attached. */
  private emptyPod: Picture | undefined;

  private constructor(scene: Scene) {
    this.scene = scene;
  }

  static async open(subject: Subject): Promise<FailureBench> {
    return new FailureBench(await Scene.open(subject));
  }

  close(): Promise<void> {
    return this.scene.close();
  }

  /** Tries a case. @returns what went wrong; the bench is not to be used any further then. */
  attempt(one: FailureCase): Promise<Verdict> {
    const { verb } = one;
    if (verb === 'ADD') return this.attemptAdd(one);
    return isLooking(verb) ? this.attemptLook(one, verb) : this.attemptRemoval(one, verb);
  }

  private async attemptLook(
    { index, inject }: FailureCase,
    verb: (typeof lookingVerbs)[number],
  ): Promise<Verdict> {
    const { scene } = this;
    const { attachment, picture } = await this.standAt(verb, index);
    // The kernel forgets a connection by itself in time.
    await scene.sendPackets();
    const call = verb === 'STATUS' ? verb : 'CHECK';
    const outcome = await inject(scene.host, scene.start(call, index, attachment));
    const difference = await scene.differenceFrom(picture, attachment.pod);
    return {
      isReached: outcome.isReached,
      problem: join([
        problemOf({ ...outcome, verb }),
        verb === 'CHECK-LOST' && outcome.exit === 0 ? 'It finds in order what is not there' : '',
        difference && `Looking has changed:\n${difference}`,
      ]),
    };
  }

  private async attemptAdd(one: FailureCase): Promise<Verdict> {
    const { scene } = this;
    const { index } = one;
    const { attachment, picture } = await this.standAt('ADD', index);
    const outcome = await one.inject(scene.host, scene.start('ADD', index, attachment));
    const { isReached } = outcome;
    if (isMisfired(outcome)) return { isReached, problem: await this.leave() };
    const problem = answerProblem(outcome);
    if (outcome.exit !== 0 || problem !== '') {
      const difference = await scene.differenceFrom(picture, attachment.pod);
      return { isReached, problem: join([problem, difference && `Not undone:\n${difference}`]) };
    }
    attachment.result = JSON.parse(outcome.stdout);
    const failure = describeFailure(await scene.run('CHECK', index, attachment));
    scene.useAgent(hasAgentFor(one));
    const left = await this.leave();
    scene.useAgent(true);
    // What DEL may leave to the end of the sandbox is gone with it.
    return { isReached, problem: join([failure, left]) };
  }

  private async attemptRemoval(one: FailureCase, verb: ChangingVerb): Promise<Verdict> {
    const { scene } = this;
    const { index } = one;
    const remains = await this.leave();
    const attachment = await bringTo(scene, verb, index);
    const outcome = await one.inject(scene.host, scene.start(verb, index, attachment));
    scene.useAgent(hasAgentFor(one));
    // Nobody repeats a call that has succeeded.
    const left = outcome.exit === 0 ? await this.finish(one, attachment, outcome) : '';
    const failure = await cleanUp(scene, attachment, verb === 'GC' || outcome.exit === 0 ? 'gc' : 'del');
    scene.useAgent(true);
    const difference = await scene.difference();
    return {
      isReached: outcome.isReached,
      problem: join([
        ...[remains, problemOf(outcome), failure],
        left && `It succeeded, but has left or lost:\n${left}`,
        difference && `Left or lost for ever:\n${difference}`,
      ]),
    };
  }

  /**
   * Does what comes after a verb of one plugin of the chain. GC may leave a file that it cannot read to the
   * next GC, if it says so, and so may DEL on a read-only file system.
   * @param outcome of the verb.
   * @returns what is left of the attachment.
   */
  private async finish(
    { verb, index, error }: FailureCase,
    attachment: Attachment,
    { stderr: warnings, failed = '' }: Injected,
  ): Promise<string> {
    const { scene } = this;
    const { length } = scene.subject.network.plugins;
    const failures = [];
    if (verb === 'DEL')
      for (let i = index - 1; i >= 0; i--)
        failures.push(describeFailure(await scene.run('DEL', i, attachment)));
    else
      for (let i = index + 1; i < length; i++)
        failures.push(describeFailure(await scene.run('GC', i, attachment)));
    if (verb === 'DEL') failures.push(await this.leftIn(attachment.pod));
    await scene.remove(attachment.pod);
    const mayLeave = verb === 'GC' || error === 'EROFS';
    const isExcused = (path: string) =>
      hints.test(path) ||
      (locks.test(path) && failed.includes(path)) ||
      (mayLeave && warnings.includes(`"${path}"`));
    return join([...failures, await scene.difference(isExcused)]);
  }

  /** What DEL has left in a sandbox that still exists. */
  private async leftIn(pod: Pod): Promise<string> {
    if (!this.emptyPod) {
      const { pod: other } = await this.scene.attachment();
      this.emptyPod = await networkSnapshot(other);
      await other.remove();
    }
    return differences(this.emptyPod, await networkSnapshot(pod)).join('\n');
  }

  /** Brings an attachment to where a verb of a plugin is called, unless it is there already. */
  private async standAt(verb: CalledVerb, index: number): Promise<Standing> {
    const place = verb === 'ADD' || verb === 'CHECK-LOST' ? `${verb} ${index}` : 'whole';
    if (this.standing?.place === place) return this.standing;
    await this.leave();
    const attachment = await bringTo(this.scene, verb, index);
    // What the first ADD of a plugin makes for all attachments is there already, from the neighbour.
    this.standing = { place, attachment, picture: await this.scene.settledPicture(attachment.pod) };
    return this.standing;
  }

  /** Detaches the standing attachment. @returns what is left of it; "" when nothing is. */
  private async leave(): Promise<string> {
    if (!this.standing) return '';
    const failure = await cleanUp(this.scene, this.standing.attachment, 'del');
    const difference = await this.scene.difference();
    this.standing = undefined;
    return join([failure, difference && `Left or lost:\n${difference}`]);
  }
}

/** Whether the fault hit another call, as runs differ: Node.js aborts when waking up a thread fails. */
function isMisfired({ isReached, exit }: Injected): boolean {
  return !isReached && exit === 'SIGABRT';
}

function problemOf(outcome: Injected): string {
  return isMisfired(outcome) ? '' : answerProblem(outcome);
}

export function isLooking(verb: CalledVerb): verb is (typeof lookingVerbs)[number] {
  return (lookingVerbs as readonly string[]).includes(verb);
}

function join(problems: readonly string[]): string {
  return problems.filter(Boolean).join('\n');
}
