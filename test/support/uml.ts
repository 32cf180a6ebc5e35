/**
 * Tests on the kernel of a {@link Guest}.
 *
 * A test file that uses {@link guestTest} is run twice. Under AVA it boots one guest, which sees the same
 * file system, and reports what the guest tells. Within the guest, Node runs it without AVA, and its tests
 * are carried out one by one.
 */

import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Guest, guestDirectory } from './guest.ts';
import type { Teardown } from './host.ts';

/** What a test in the guest gets: the part of AVA's `t` that it needs. */
export interface GuestContext extends Teardown {
  is(actual: unknown, expected: unknown): void;
  deepEqual(actual: unknown, expected: unknown): void;
  true(actual: unknown): void;
  false(actual: unknown): void;
  truthy(actual: unknown): void;
  falsy(actual: unknown): void;
  regex(text: string, pattern: RegExp): void;
}

/** How a test in the guest ended: its error in full, or none. */
interface Outcome {
  title: string;
  error?: string;
}

type Body = (t: GuestContext) => Promise<void>;

const ava = guestDirectory ? undefined : (await import('ava')).default;
const bodies = new Map<string, Body>();
let outcomes: Promise<Map<string, Outcome>> | undefined;

/** Declares a test that runs on User Mode Linux. Its file may hold only such tests. */
export function guestTest(title: string, body: Body): void {
  if (ava) {
    ava(title, async (t) => {
      outcomes ??= runGuest(fileURLToPath(ava.meta.file));
      const outcome = (await outcomes).get(title);
      if (!outcome) t.fail('The guest ended before this test did');
      else if (outcome.error) t.fail(outcome.error);
      else t.pass();
    });
    return;
  }
  if (bodies.size === 0) setImmediate(runAll);
  bodies.set(title, body);
}

/** Within the guest: runs the tests, and reports each as soon as it has ended. */
async function runAll(): Promise<void> {
  for (const [title, body] of bodies) {
    const outcome = await runOne(title, body);
    appendFileSync(join(guestDirectory!, 'outcomes'), `${JSON.stringify(outcome)}\n`);
  }
  process.exit();
}

async function runOne(title: string, body: Body): Promise<Outcome> {
  const cleanups: (() => void | Promise<void>)[] = [];
  try {
    await body({
      is: assert.equal,
      deepEqual: assert.deepEqual,
      true: (actual) => assert.equal(actual, true),
      false: (actual) => assert.equal(actual, false),
      truthy: assert.ok,
      falsy: (actual) => assert.ok(!actual),
      regex: assert.match,
      teardown: (step) => void cleanups.push(step),
    });
    return { title };
  } catch (error) {
    return { title, error: (error as Error).stack ?? String(error) };
  } finally {
    for (const step of cleanups.reverse()) await step();
  }
}

/**
 * Boots a guest that runs a test file.
 * @throws Error with what the guest said when it reported nothing.
 */
async function runGuest(file: string): Promise<Map<string, Outcome>> {
  const guest = new Guest();
  try {
    await guest.run(['env', 'CNI_TEST_AGENT=1', process.execPath, '--no-warnings', file], 1800);
    const lines = guest.read('outcomes').split('\n').slice(0, -1);
    const list = lines.map((line) => JSON.parse(line) as Outcome);
    if (list.length === 0)
      throw new Error(
        `The guest reported nothing.\n${guest.read('output')}\n${guest.read('console').slice(-2000)}`,
      );
    return new Map(list.map((outcome) => [outcome.title, outcome]));
  } finally {
    guest.remove();
  }
}
