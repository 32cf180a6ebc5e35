/** A shell in which a person looks around in what a program has set up. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cleanEnv } from '../test/support/run.ts';

/** What there is in the shell. */
export interface ShellSetup {
  /** For the prompt. */
  readonly name: string;
  /** Commands, and what they run, followed by the person's arguments. */
  readonly commands: ReadonlyMap<string, readonly string[]>;
  /** Files of its directory, which is also HOME, by name. */
  readonly files?: Readonly<Record<string, string>>;
  /** Additional environment variables. @param directory of the files. */
  env?(directory: string): Record<string, string>;
}

/** Runs a shell until the person leaves it. Then its directory is removed. */
export async function openShell({ name, commands, files = {}, env }: ShellSetup): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), `${name}-`));
  try {
    for (const [file, text] of Object.entries(files))
      writeFileSync(join(directory, file), text, { mode: 0o600 });
    for (const [command, argv] of commands)
      writeFileSync(join(directory, command), `#!/bin/sh\nexec ${argv.join(' ')} "$@"\n`, { mode: 0o755 });
    const variables = {
      ...cleanEnv,
      TERM: process.env.TERM,
      HOME: directory,
      PATH: `${directory}:${cleanEnv.PATH}`,
      PS1: `${name}$ `,
      ...env?.(directory),
    };
    await once(spawn('bash', ['--norc'], { env: variables, stdio: 'inherit' }), 'exit');
  } finally {
    rmSync(directory, { recursive: true });
  }
}
