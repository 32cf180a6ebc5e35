/**
 * Tests on another kernel. Where the running kernel may lack a kind of interface (VLAN, VRF, ipvlan, dummy,
 * bridge VLAN filtering), User Mode Linux has it: Debian's package of a kernel that runs as an ordinary
 * process.
 *
 * A test file that uses {@link guestTest} is run twice. Under AVA it boots one guest, which sees the same
 * file system, and reports what the guest tells. Within the guest, Node runs it without AVA, and its tests
 * are carried out one by one.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Teardown } from './host.ts';
import { cleanEnv } from './run.ts';

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

/** Directory that the guest reports to, set only within the guest. */
const guestDirectory = process.env.GUEST_DIR;
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
  const directory = mkdtempSync(join(tmpdir(), 'guest-'));
  const inDirectory = (name: string) => join(directory, name);
  const read = (name: string) =>
    existsSync(inDirectory(name)) ? readFileSync(inDirectory(name), 'utf8') : '';
  try {
    writeFileSync(
      inDirectory('command'),
      ['env', 'CNI_TEST_AGENT=1', process.execPath, '--no-warnings', file].map((arg) => `${arg}\0`).join(''),
    );
    await boot(directory);
    const lines = read('outcomes').split('\n').slice(0, -1);
    const list = lines.map((line) => JSON.parse(line) as Outcome);
    if (list.length === 0)
      throw new Error(`The guest reported nothing.\n${read('output')}\n${read('console').slice(-2000)}`);
    return new Map(list.map((outcome) => [outcome.title, outcome]));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Runs the kernel from start to power-off, for ten minutes at most. */
async function boot(directory: string): Promise<void> {
  const child = spawn(
    'timeout',
    [
      ...['--kill-after=5', '600', kernel()],
      ...['rootfstype=hostfs', 'rootflags=/', 'rw', 'mem=1G', 'quiet'],
      ...[`init=${join(import.meta.dirname, 'uml-init')}`, `GUEST_DIR=${directory}`],
      ...[`uml_dir=${directory}`, 'umid=guest', 'con=null', 'con0=null,fd:1'],
    ],
    { env: cleanEnv, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => appendFileSync(join(directory, 'console'), chunk));
  await new Promise((resolve, reject) => child.on('close', resolve).on('error', reject));
}

/**
 * The kernel, ready for this machine's processor. Debian's hands exactly 2,696 bytes of registers to
 * ptrace(2), which refuses them where the processor has more (AMX: 11,008). It takes no more than it needs
 * from a buffer that is said to be longer, so the length in the one instruction that matters is raised.
 * @returns the path of a copy below build/.
 */
function kernel(): string {
  const copy = join(import.meta.dirname, '../../build/linux.uml');
  if (existsSync(copy)) return copy;
  const image = readFileSync('/usr/bin/linux.uml');
  // movq $2696, -8(%rbp); mov $PTRACE_SETREGSET, %edi
  const instructions = Buffer.from('48c745f8880a0000bf05420000', 'hex');
  const at = image.indexOf(instructions);
  if (at >= 0) image.writeUInt32LE(16384, at + 4);
  writeFileSync(`${copy}.${process.pid}`, image, { mode: 0o755 });
  renameSync(`${copy}.${process.pid}`, copy);
  return copy;
}
