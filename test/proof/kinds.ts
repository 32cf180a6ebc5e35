/** The kinds of faults, each with its cases and how one is tried. */

import { FailureBench, failureCases } from './failures.ts';
import { killCases, tryKill, type Verdict } from './kills.ts';
import { RefusalBench, refusalCases } from './refusals.ts';
import { Scene } from './scene.ts';
import { StopBench, stopCases } from './stops.ts';
import type { Subject } from './subjects.ts';

/** A case: `name` is what `--only` takes. */
export interface Case {
  readonly name: string;
}

/** Where cases are tried one after the other. */
export interface Bench<C extends Case> {
  /** Tries a case. Once one has a problem, the bench is not to be used any further. */
  attempt(one: C): Promise<Verdict>;
  close(): Promise<void>;
}

/** A kind of fault. */
export interface Kind<C extends Case = Case> {
  /** What `--kind` takes. */
  readonly name: string;
  /** What the record calls it. */
  readonly part: string;
  readonly unit: string;
  /** @param only name of the case that is wanted, or its beginning; others may be left out. */
  casesOf(subject: Subject, only?: string): Promise<C[]>;
  open(subject: Subject): Promise<Bench<C>>;
}

function kindOf<C extends Case>(kind: Kind<C>): Kind {
  return kind as unknown as Kind;
}

/** Every kind by the name that `--kind` takes. */
export const kinds: Readonly<Record<string, Kind>> = {
  kill: kindOf({
    name: 'kill',
    part: 'Plugins killed at every change they make',
    unit: 'kills',
    casesOf: killCases,
    async open(subject) {
      const scene = await Scene.open(subject);
      return { attempt: (one) => tryKill(scene, one), close: () => scene.close() };
    },
  }),
  fail: kindOf({
    name: 'fail',
    part: 'System calls of plugins that fail',
    unit: 'failures',
    casesOf: failureCases,
    open: (subject) => FailureBench.open(subject),
  }),
  refuse: kindOf({
    name: 'refuse',
    part: 'Requests of plugins that the kernel refuses',
    unit: 'refusals',
    casesOf: refusalCases,
    open: async (subject) => new RefusalBench(subject),
  }),
  stop: kindOf({
    name: 'stop',
    part: 'The agent killed at everything that it waits for',
    unit: 'kills',
    casesOf: stopCases,
    open: (subject) => StopBench.open(subject),
  }),
};
