/** What a target of the fuzzing is, how inputs are made for it, and how it is tried. */

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { idleTime, stopwatch } from './waiting.ts';
import { watch } from './watchdog.ts';

/** Something that takes input which anybody may have written. */
export interface Target {
  readonly name: string;
  /** Valid inputs, which are mutated. */
  readonly samples: readonly (string | Uint8Array)[];
  /** Milliseconds within which each input must be answered; {@link longestAnswer} when left out. */
  readonly longest?: number;
  /** Prepares what each input finds, outside of the time that is measured. */
  begin?(): void;
  /**
   * Takes one input.
   * @param directory an empty one, removed afterwards.
   * @throws Error when the input was not answered as it should be.
   */
  run(input: Buffer, directory: string): Promise<void> | void;
}

/** How much of a target is tried, and from where. */
export interface Extent {
  /** How many inputs are made beside the samples, which are all tried as they are. */
  readonly inputs: number;
  /** One in so many samples is tried, beside the first two; 1 for all of them. */
  readonly every?: number;
  readonly seed: number;
  /** Where fast-check stopped, as it printed it: tries that input alone. */
  readonly path?: string | undefined;
}

/** How a target was tried. */
export interface Trial {
  /** How many inputs, those of the corpus and the samples included. */
  readonly tried: number;
  readonly finding: Finding | undefined;
}

/** What was found in a target. */
export interface Finding {
  /** The smallest input that fails. */
  readonly input: Buffer;
  readonly error: string;
  /** For `--path`; undefined for a case of the corpus. */
  readonly path: string | undefined;
}

/** Milliseconds within which an input must be answered, unless its target has more. */
const longestAnswer = 1000;
/** How often an input must take longer than that, by the clock, to count as slow. */
const slowTries = 3;

/** For how many milliseconds to look for a smaller input that fails too. */
const longestShrinking = 10_000;

const corpus = join(import.meta.dirname, 'corpus');

/** Tries a target: first the inputs that were once found to fail, then new ones. */
export async function tryTarget(target: Target, { inputs, every = 1, seed, path }: Extent): Promise<Trial> {
  let tried = 0;
  for (const input of path === undefined ? corpusOf(target) : []) {
    tried++;
    const error = await tryInput(target, input);
    if (error) return { tried, finding: { input, error: error.message, path: undefined } };
  }
  let shrinkUntil = Number.POSITIVE_INFINITY;
  const samples = target.samples.filter((_, i) => i < 2 || (i + seed) % every === 0);
  const property = fc.asyncProperty(inputsFor(target), async (bytes) => {
    // Inputs that are skipped count as passed, which ends the search for a smaller one.
    if (performance.now() > shrinkUntil) return;
    if (shrinkUntil === Number.POSITIVE_INFINITY) tried++;
    const error = await tryInput(target, Buffer.from(bytes));
    if (!error) return;
    shrinkUntil = Math.min(shrinkUntil, performance.now() + longestShrinking);
    throw error;
  });
  const details = await fc.check(property, {
    numRuns: samples.length + inputs,
    seed,
    // Samples come first: one for each kind of thing that is planted, or missing.
    examples: samples.map((sample) => [Buffer.from(sample as Uint8Array)]),
    ...(path !== undefined && { path }),
  });
  if (!details.failed) return { tried, finding: undefined };
  const { counterexample, counterexamplePath, errorInstance } = details;
  const finding = {
    input: Buffer.from(counterexample?.[0] ?? []),
    error: (errorInstance as Error | undefined)?.message ?? 'It was interrupted',
    path: counterexamplePath ?? undefined,
  };
  return { tried, finding };
}

/** Inputs of earlier findings. */
function corpusOf({ name }: Target): Buffer[] {
  try {
    const directory = join(corpus, name);
    return readdirSync(directory).map((file) => readFileSync(join(directory, file)));
  } catch {
    return [];
  }
}

/** Tries an input, and again if it took long, as that may happen once for reasons of the machine. */
async function tryInput(target: Target, input: Buffer): Promise<Error | undefined> {
  const durations: number[] = [];
  while (durations.length < slowTries) {
    const { error, clock, isSlow } = await tryOnce(target, input);
    if (error || !isSlow) return error;
    durations.push(Math.round(clock));
  }
  return new Error(`It took ${durations.join(', ')} ms`);
}

/**
 * Tries an input once. It may take a second of CPU time, or what its target allows, and as long again waiting
 * for anything but processors and disks.
 */
async function tryOnce(
  target: Target,
  input: Buffer,
): Promise<{ error: Error | undefined; clock: number; isSlow: boolean }> {
  const parent = mkdtempSync(join(tmpdir(), 'cni-fuzz-'));
  const directory = join(parent, 'own');
  mkdirSync(directory);
  target.begin?.();
  const elapsed = stopwatch();
  let error: Error | undefined;
  watch(`${target.name}, input ${input.toString('base64')} (in base64)`);
  try {
    await target.run(input, directory);
  } catch (thrown) {
    error = thrown as Error;
  }
  const duration = elapsed();
  watch(undefined);
  rmSync(parent, { recursive: true, force: true });
  const { clock, processor } = duration;
  const { longest = longestAnswer } = target;
  return { error, clock, isSlow: processor > longest || idleTime(duration) > longest };
}

/** Samples with a few changes, arbitrary JSON, and arbitrary bytes. */
function inputsFor({ samples }: Target): fc.Arbitrary<Uint8Array> {
  const change = fc.record({
    kind: fc.constantFrom('set', 'insert', 'remove', 'repeat', 'cut', 'number'),
    at: fc.nat(),
    length: fc.nat(16),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }),
    number: fc.constantFrom(...strangeNumbers),
  });
  const mutated = fc
    .tuple(fc.constantFrom(...samples), fc.array(change, { maxLength: 6 }))
    .map(([sample, changes]) => changes.reduce(apply, Buffer.from(sample as Uint8Array)));
  return fc.oneof(
    { weight: 6, arbitrary: mutated },
    { weight: 1, arbitrary: fc.json().map((text) => Buffer.from(text)) },
    { weight: 2, arbitrary: fc.uint8Array({ maxLength: 600 }) },
  );
}

const strangeNumbers = ['-1', '0', '4294967296', '1e309', '99999999999999999999', 'null', '[]', '{}', '""'];

interface Change {
  readonly kind: string;
  readonly at: number;
  readonly length: number;
  readonly bytes: Uint8Array;
  readonly number: string;
}

function apply(input: Buffer, { kind, at: anywhere, length, bytes, number }: Change): Buffer {
  const at = anywhere % (input.length + 1);
  const [before, after] = [input.subarray(0, at), input.subarray(at)];
  switch (kind) {
    case 'set':
      return Buffer.concat([before, bytes, after.subarray(bytes.length)]);
    case 'insert':
      return Buffer.concat([before, bytes, after]);
    case 'remove':
      return Buffer.concat([before, after.subarray(length)]);
    case 'repeat':
      return Buffer.concat([before, ...Array<Buffer>(length).fill(after.subarray(0, 64)), after]);
    case 'cut':
      return before;
    default: {
      // The number replaces a JSON value.
      const text = input.toString('latin1');
      const colon = text.indexOf(':', at);
      if (colon < 0) return input;
      const rest = text.slice(colon + 1).replace(/^\s*("[^"]*"|[\w.-]+|\[[^\]]*\]|\{[^}]*\})/, number);
      return Buffer.from(text.slice(0, colon + 1) + rest, 'latin1');
    }
  }
}

/**
 * Does something that may refuse its input.
 * @throws Error when what it throws is a defect of ours and not a refusal.
 */
export function mayRefuse(work: () => unknown): void {
  try {
    work();
  } catch (error) {
    requireRefusal(error);
  }
}

/** As {@link mayRefuse}, for asynchronous work. */
export async function mayRefuseLater(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    requireRefusal(error);
  }
}

/** @throws Error for what only a defect throws, also when it is the cause of a refusal. */
export function requireRefusal(error: unknown): void {
  if (isDefect(error)) throw new Error(`Not a refusal but a defect: ${String(error)}`, { cause: error });
  const { cause } = error as Error;
  if (cause instanceof Error) requireRefusal(cause);
}

/** Messages that only defects have. */
export const defectWords =
  /Cannot (?:read|set) prop|Cannot (?:convert (?:undefined|object)|destructure prop)|is not a function|is not iterable|Maximum call stack|Invalid regular/;

function isDefect(error: unknown): boolean {
  if (!(error instanceof Error)) return true;
  const { message, details = '' } = error as Error & { details?: unknown };
  if (defectWords.test(`${message} ${details}`)) return true;
  // What Node.js itself refuses, such as paths, has a code.
  return (
    (!('code' in error) && (error instanceof TypeError || error instanceof ReferenceError)) ||
    /Invalid (?:array|string) length|outside the bounds|^Offset/.test(message)
  );
}

/** Writes a file, and the directories above it. */
export function place(file: string, data: string | Uint8Array): void {
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(file, data);
}
