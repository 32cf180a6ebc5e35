/** What a target of the fuzzing is, how inputs are made for it, and how it is tried. */

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { watch } from './watchdog.ts';

/** Something that takes input which anybody may have made. */
export interface Target {
  readonly name: string;
  /** Valid inputs, which are mutated. */
  readonly samples: readonly (string | Uint8Array)[];
  /**
   * Takes one input.
   * @param directory an empty one, removed afterwards.
   * @throws Error when the input was not answered as it should be.
   */
  run(input: Buffer, directory: string): Promise<void> | void;
}

/** How much of a target is tried, and from where. */
export interface Extent {
  /** How many are made beside the samples, each of which is tried as it is. */
  readonly inputs: number;
  readonly seed: number;
  /** Where fast-check stopped, as it printed it: tries that input alone. */
  readonly path?: string | undefined;
}

/** What was found in a target. */
export interface Finding {
  /** The smallest input that fails. */
  readonly input: Buffer;
  readonly error: string;
  /** For `--path`; undefined for a case of the corpus. */
  readonly path: string | undefined;
}

/** In how many milliseconds every input must be answered. */
const longestAnswer = 1000;

/** For how many milliseconds a smaller input is looked for that fails too. */
const longestShrinking = 10_000;

const corpus = join(import.meta.dirname, 'corpus');

/** Tries a target: first the inputs that were once found to fail, then new ones. */
export async function tryTarget(
  target: Target,
  { inputs, seed, path }: Extent,
): Promise<Finding | undefined> {
  for (const input of path === undefined ? corpusOf(target) : []) {
    const error = await tryInput(target, input);
    if (error) return { input, error: error.message, path: undefined };
  }
  let shrinkUntil = Number.POSITIVE_INFINITY;
  const property = fc.asyncProperty(inputsFor(target), async (bytes) => {
    // What is left untried counts as no failure, which ends the search for a smaller input.
    if (performance.now() > shrinkUntil) return;
    const error = await tryInput(target, Buffer.from(bytes));
    if (!error) return;
    shrinkUntil = Math.min(shrinkUntil, performance.now() + longestShrinking);
    throw error;
  });
  const details = await fc.check(property, {
    numRuns: target.samples.length + inputs,
    seed,
    // They come first: what is planted, one kind each, or what is missing.
    examples: target.samples.map((sample) => [Buffer.from(sample as Uint8Array)]),
    ...(path !== undefined && { path }),
  });
  if (!details.failed) return undefined;
  const { counterexample, counterexamplePath, errorInstance } = details;
  return {
    input: Buffer.from(counterexample?.[0] ?? []),
    error: (errorInstance as Error | undefined)?.message ?? 'It was interrupted',
    path: counterexamplePath ?? undefined,
  };
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

async function tryInput(target: Target, input: Buffer): Promise<Error | undefined> {
  const parent = mkdtempSync(join(tmpdir(), 'cni-fuzz-'));
  const directory = join(parent, 'own');
  mkdirSync(directory);
  const start = performance.now();
  const processor = process.cpuUsage();
  watch(`${target.name}, input ${input.toString('base64')} (in base64)`);
  try {
    await target.run(input, directory);
    const { user, system } = process.cpuUsage(processor);
    // Both, so that a busy machine does not count as slow code.
    if (performance.now() - start > longestAnswer && (user + system) / 1000 > longestAnswer)
      return new Error(`It took ${Math.round(performance.now() - start)} ms`);
    return undefined;
  } catch (error) {
    return error as Error;
  } finally {
    watch(undefined);
    rmSync(parent, { recursive: true, force: true });
  }
}

/** Samples with a few changes, whatever JSON, and whatever bytes. */
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
      // In place of a value of JSON.
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

/** @throws Error for what only a defect throws. */
export function requireRefusal(error: unknown): void {
  const isDefect =
    !(error instanceof Error) ||
    error instanceof TypeError ||
    error instanceof ReferenceError ||
    /Maximum call stack|Invalid (?:array|string) length|outside the bounds|^Offset/.test(error.message);
  if (isDefect) throw new Error(`Not a refusal but a defect: ${String(error)}`, { cause: error });
}

/** Writes a file, and the directories above it. */
export function place(file: string, data: string | Uint8Array): void {
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(file, data);
}
