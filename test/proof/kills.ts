/** Killed anywhere: each way of cleaning up removes whatever a killed verb has left. */

import type { Attachment } from '../support/chain.ts';
import type { Host } from '../support/host.ts';
import { type Outcome, succeeded } from '../support/plugin.ts';
import type { Output } from '../support/run.ts';
import { findPoints, kill, type Point, type Start } from './injection.ts';
import { Scene } from './scene.ts';
import { type Subject, toTry } from './subjects.ts';

/** The verbs that change anything. */
export const changingVerbs = ['ADD', 'DEL', 'GC'] as const;
export type ChangingVerb = (typeof changingVerbs)[number];

/** The verbs that only look; CHECK-LOST is CHECK after DEL of the same plugin, which must fail. */
export const lookingVerbs = ['CHECK', 'CHECK-LOST', 'STATUS'] as const;
export type CalledVerb = ChangingVerb | (typeof lookingVerbs)[number];

/**
 * How a runtime may clean up: DEL; DEL once the namespace is gone; DEL that knows neither namespace nor
 * result; no DEL at all, but GC.
 */
const waysOut = ['del', 'gone', 'bare', 'gc'] as const;
export type WayOut = (typeof waysOut)[number];

/** The ways after a verb: GC comes when the namespace is gone anyway. */
export function waysOutOf(verb: ChangingVerb): WayOut[] {
  return waysOut.filter((way) => verb !== 'GC' || way !== 'gone');
}

/** One kill and one way of cleaning up. */
export interface KillCase {
  /** What `--only` takes. */
  readonly name: string;
  readonly verb: ChangingVerb;
  /** Of the plugin in the chain. */
  readonly index: number;
  readonly point: Point;
  readonly children: 'killed' | 'left';
  readonly way: WayOut;
}

/** What came of a case. */
export interface Verdict {
  /** Whether the call with the fault was reached; a process does not do quite the same in every run. */
  readonly isReached: boolean;
  /** What went wrong; "" when nothing did. */
  readonly problem: string;
}

/**
 * Lists the cases of a subject, by running each verb once under observation.
 * @param only see {@link pointsOf}.
 */
export async function killCases(subject: Subject, only = ''): Promise<KillCase[]> {
  const cases: KillCase[] = [];
  for (const { verb, index, points } of await pointsOf(
    await Scene.open(subject),
    only,
    changingVerbs,
    findPoints,
  )) {
    const { type } = subject.network.plugins[index]!;
    for (const [nth, point] of points.filter(changesSomething).entries())
      for (const children of point.hasChild ? (['killed', 'left'] as const) : (['killed'] as const))
        for (const way of toTry(subject, waysOutOf(verb), nth))
          cases.push({
            name: [verb, `${index}-${type}`, point.call, point.nth, children, way].join('/'),
            ...{ verb, index, point, children, way },
          });
  }
  return cases;
}

/**
 * The points of each verb of each plugin of a chain.
 * @param scene which is closed after that.
 * @param only name of a case, or its beginning, that leaves out the other verbs and plugins; "" for all.
 * @param verbs the verbs to call.
 * @param find runs a verb and lists its points.
 */
export async function pointsOf<V extends CalledVerb, P>(
  scene: Scene,
  only: string,
  verbs: readonly V[],
  find: (host: Host, start: Start) => Promise<{ points: P[]; output: Output }>,
): Promise<{ verb: V; index: number; points: P[] }[]> {
  const { subject } = scene;
  try {
    const found = [];
    for (const verb of verbs)
      for (const [index, { type }] of subject.network.plugins.entries()) {
        const own = `${verb}/${index}-${type}/`;
        if (only && !own.startsWith(`${only}/`) && !`${only}/`.startsWith(own)) continue;
        const attachment = await bringTo(scene, verb, index);
        const call = verb === 'CHECK-LOST' ? 'CHECK' : (verb as Exclude<V, 'CHECK-LOST'>);
        const { points, output } = await find(scene.host, scene.start(call, index, attachment));
        // Some plugins have nothing that CHECK could miss.
        if (verb !== 'CHECK-LOST') succeeded(output);
        if (verb !== 'CHECK-LOST' || output.exit !== 0) found.push({ verb, index, points });
        await cleanUp(scene, attachment, 'del');
      }
    return found;
  } finally {
    await scene.close();
  }
}

/**
 * Does a case.
 * @param scene which is clean, and can be used again if the case has no problem.
 */
export async function tryKill(scene: Scene, one: KillCase): Promise<Verdict> {
  const { verb, index, point, children, way } = one;
  const attachment = await bringTo(scene, verb, index);
  const { isReached, isLate } = await kill(scene.host, scene.start(verb, index, attachment), point, children);
  // A runtime has no result of an ADD that was killed.
  if (verb === 'ADD') attachment.result = undefined;
  await scene.sendPackets();
  scene.useAgent(hasAgentFor(one));
  const failure = await cleanUp(scene, attachment, way);
  scene.useAgent(true);
  const difference = await scene.difference();
  const problem = [
    isLate && 'It took too long',
    failure && `Cleaning up failed: ${failure}`,
    difference && `This was left or lost:\n${difference}`,
  ]
    .filter(Boolean)
    .join('\n');
  return { isReached, problem };
}

/** Whether an agent cleans up after a case: after half of them, always the same. */
export function hasAgentFor({ name }: { readonly name: string }): boolean {
  return [...name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % 2 === 0;
}

/** Does all that comes before a verb of one plugin of the chain. */
export async function bringTo(scene: Scene, verb: CalledVerb, index: number): Promise<Attachment> {
  const attachment = await scene.attachment();
  const count = verb === 'ADD' ? index : scene.subject.network.plugins.length;
  for (let i = 0; i < count; i++) attachment.result = succeeded(await scene.run('ADD', i, attachment)).result;
  if (verb !== 'ADD') await scene.sendPackets();
  if (verb === 'DEL')
    for (let i = count - 1; i > index; i--) succeeded(await scene.run('DEL', i, attachment));
  if (verb === 'CHECK-LOST') succeeded(await scene.run('DEL', index, attachment));
  // GC is for attachments for which nobody will call DEL.
  if (verb === 'GC') await scene.removeWholly(attachment.pod);
  if (verb === 'GC') for (let i = 0; i < index; i++) succeeded(await scene.run('GC', i, attachment));
  return attachment;
}

/**
 * Cleans up in one way, and takes the pod away.
 * @returns what failed; "" when nothing did.
 */
export async function cleanUp(scene: Scene, attachment: Attachment, way: WayOut): Promise<string> {
  const { pod } = attachment;
  // DEL without CNI_NETNS cannot find a device in the sandbox, and nobody calls it again.
  const isGone = way === 'gone' || way === 'gc' || (way === 'bare' && scene.subject.isDevice === true);
  if (isGone) await scene.removeWholly(pod);
  if (way === 'bare') attachment.result = undefined;
  const outcome = await (way === 'gc'
    ? scene.collect()
    : attachment.tryDel(way === 'bare' ? { netns: '' } : {}));
  await scene.remove(pod);
  return describeFailure(outcome);
}

/** What a plugin said; "" when it succeeded. */
export function describeFailure({ exit, argv, stdout, stderr }: Outcome): string {
  return exit === 0 ? '' : `${argv.at(-1)} ended with ${exit}: ${stdout}${stderr}`;
}

/** False for calls that only read: a verb killed there is in the same state as at the call before. */
function changesSomething({ call, text }: Point): boolean {
  if (call === 'openat') return /O_CREAT|O_WRONLY|O_RDWR/.test(text);
  return !['recvfrom', 'recvmsg', 'socket', 'bind', 'pipe2'].includes(call);
}
