/**
 * The agent stopped anywhere: it is killed at each wait of a verb, and each way of cleaning up removes what
 * is left.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { privatePrefix } from '../../launcher/launch.ts';
import type { Attachment } from '../support/chain.ts';
import { binDir } from '../support/host.ts';
import { succeeded } from '../support/plugin.ts';
import { cleanEnv } from '../support/run.ts';
import {
  bringTo,
  type ChangingVerb,
  changingVerbs,
  cleanUp,
  type Verdict,
  type WayOut,
  waysOutOf,
} from './kills.ts';
import { Scene } from './scene.ts';
import { type Subject, toTry } from './subjects.ts';

const compileCache = join(import.meta.dirname, '../../build/compile-cache');

/** One stop and one way of cleaning up. */
export interface StopCase {
  /** What `--only` takes. */
  readonly name: string;
  readonly verb: ChangingVerb;
  /** Of the plugin in the chain. */
  readonly index: number;
  /** The number of the wait at which the agent is killed. */
  readonly nth: number;
  readonly way: WayOut;
}

/** Lists every case of a subject, by having an agent count. */
export async function stopCases(subject: Subject): Promise<StopCase[]> {
  const bench = await StopBench.open(subject);
  const cases: StopCase[] = [];
  try {
    for (const verb of changingVerbs)
      for (const [index, { type }] of subject.network.plugins.entries()) {
        const total = await bench.countWaits(verb, index);
        for (let nth = 1; nth <= total; nth++)
          for (const way of toTry(subject, waysOutOf(verb), nth))
            cases.push({ name: [verb, `${index}-${type}`, nth, way].join('/'), verb, index, nth, way });
      }
    return cases;
  } finally {
    await bench.close();
  }
}

/** Tries one case after the other on a host. */
export class StopBench {
  private readonly scene: Scene;
  private agent: StoppingAgent | undefined;

  private constructor(scene: Scene) {
    this.scene = scene;
  }

  static async open(subject: Subject): Promise<StopBench> {
    return new StopBench(await Scene.open(subject, { hasAgent: false }));
  }

  async close(): Promise<void> {
    await this.agent?.end();
    await this.scene.close();
  }

  /** Counts the waits of a verb, by doing and undoing it. */
  async countWaits(verb: ChangingVerb, index: number): Promise<number> {
    const { attachment, outcome, total } = await this.run(verb, index, 0);
    succeeded(outcome);
    await cleanUp(this.scene, attachment, 'del');
    return total ?? 0;
  }

  /** Tries a case. @returns what went wrong; the bench is not to be used any further then. */
  async attempt({ verb, index, nth, way }: StopCase): Promise<Verdict> {
    const { scene } = this;
    const { attachment, outcome, total } = await this.run(verb, index, nth);
    const isReached = total === undefined;
    if (isReached) this.agent = undefined;
    // A call that had been answered has a result, whatever became of the agent.
    if (verb === 'ADD') attachment.result = outcome.exit === 0 ? outcome.result : undefined;
    await this.ensureAgent();
    const failure = await cleanUp(scene, attachment, way);
    const difference = await scene.difference();
    return {
      isReached,
      problem: [
        outcome.exit !== 0 && !outcome.error && `No CNI error: ${outcome.stdout}${outcome.stderr}`,
        failure && `Cleaning up failed: ${failure}`,
        difference && `This was left or lost:\n${difference}`,
      ]
        .filter(Boolean)
        .join('\n'),
    };
  }

  /** Runs a verb after all that comes before it. @param last as {@link StoppingAgent.count}. */
  private async run(verb: ChangingVerb, index: number, last: number) {
    const agent = await this.ensureAgent();
    const attachment: Attachment = await bringTo(this.scene, verb, index);
    await agent.count(last);
    const outcome = await this.scene.run(verb, index, attachment);
    return { attachment, outcome, total: await agent.endCount() };
  }

  private async ensureAgent(): Promise<StoppingAgent> {
    this.agent ??= await StoppingAgent.start(this.scene);
    return this.agent;
  }
}

/** An agent of stopping-agent.ts, at the socket where launchers look for one. */
class StoppingAgent {
  private readonly child: ChildProcess;
  private readonly answers: AsyncIterator<string>;
  private readonly exited: Promise<unknown>;

  private constructor(child: ChildProcess) {
    this.child = child;
    this.answers = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    this.exited = once(child, 'exit');
  }

  static async start({ host }: Scene): Promise<StoppingAgent> {
    const build = readdirSync(binDir)
      .find((name) => name.startsWith(privatePrefix))!
      .slice(privatePrefix.length);
    const argv = [
      ...[...host.enter, process.execPath, '--no-warnings', join(import.meta.dirname, 'stopping-agent.ts')],
      ...[join(binDir, 'cni'), build],
    ];
    // It is started for each case, and loads all sources.
    const env = { ...cleanEnv, NODE_COMPILE_CACHE: compileCache };
    const child = spawn(argv[0]!, argv.slice(1), { env, stdio: ['pipe', 'pipe', 'inherit'] });
    child.stdin!.on('error', () => {});
    const agent = new StoppingAgent(child);
    if ((await agent.answer()) === undefined) throw new Error('The agent did not start');
    return agent;
  }

  /** Has it count from now on. @param last number of the wait at which it kills itself; 0 for none. */
  async count(last: number): Promise<void> {
    this.child.stdin!.write(`${last}\n`);
    await this.answer();
  }

  /** @returns how many there were; undefined when it has killed itself at one. */
  async endCount(): Promise<number | undefined> {
    this.child.stdin!.write('end\n');
    const count = await this.answer();
    if (count === undefined) await this.exited;
    return count === undefined ? undefined : Number(count);
  }

  async end(): Promise<void> {
    this.child.stdin!.end();
    await this.exited;
  }

  /** @returns undefined when it has ended. */
  private async answer(): Promise<string | undefined> {
    const { value, done } = await this.answers.next();
    return done ? undefined : value;
  }
}
