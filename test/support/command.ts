/** `cni`, the operators' command, run outside any host, on directories of its own. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Namespace } from './host.ts';
import { suites } from './plugin.ts';
import { installPatience, type Output } from './run.ts';

/** The machine itself. */
export const here = new Namespace([]);
export const command = join(suites.ours, 'cni');

/** Runs `cni …`, of which `cni install` takes longest. */
export const cni = (...args: string[]): Promise<Output> =>
  here.tryRun([command, ...args], { timeout: installPatience });

/** Makes a directory, removed with the test. @param files by name: strings as they are, objects as JSON. */
export function directory(t: ExecutionContext, files: Record<string, string | object> = {}): string {
  const dir = mkdtempSync(join(tmpdir(), 'cni-command-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  for (const [name, content] of Object.entries(files))
    writeFileSync(join(dir, name), typeof content === 'string' ? content : JSON.stringify(content, null, 2));
  return dir;
}
