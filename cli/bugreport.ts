/** `cni bugreport`: an archive of all that is known about the networks of this host, without secrets. */

import { writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { errnoOf } from '../lib/file.ts';
import type { Suite } from '../main.ts';
import packageJson from '../package.json' with { type: 'json' };
import { collect, type Entry, json } from './bugreport/collect.ts';
import { runChecks } from './doctor/checks.ts';
import { lookAround } from './doctor/context.ts';
import { resultsAsJson } from './doctor/report.ts';
import { CommandError } from './errors.ts';
import { environmentHelp } from './settings.ts';
import type { Subcommand } from './subcommand.ts';
import { count, print } from './terminal.ts';

interface BugreportArguments {
  file: string | undefined;
}

/** The subcommand. @param suite whose plugins say what the networks need. */
export function bugreport(suite: Suite): Subcommand<BugreportArguments> {
  return {
    builder: (yargs) =>
      yargs
        .option('file', {
          alias: 'f',
          type: 'string',
          requiresArg: true,
          describe: 'The archive to write; one named after the host and the time without it',
        })
        .example('$0 bugreport', 'Write cni-bugreport-HOST-TIME.tar.gz')
        .epilogue(
          'The archive holds what "cni doctor" and "cni list" say, configurations, the result cache, reservations, rules of the ' +
            'firewalls, interfaces and routes of the host and of each pod, kernel settings, and the state of the agent. Passwords, ' +
            'tokens and private keys are left out; names, addresses and CNI_ARGS are in it. Look through it before you send it.' +
            `\n\n${environmentHelp}`,
        ),
    handler: async ({ file: wanted }) => {
      const time = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '');
      const name = `cni-bugreport-${hostname().replaceAll(/[^\w.-]/g, '_')}-${time}`;
      const file = resolve(wanted ?? `${name}.tar.gz`);
      const context = await lookAround(suite);
      const doctor = json(resultsAsJson(await runChecks(context), []));
      const about = json({
        suite: packageJson.name,
        version: packageJson.version,
        node: process.version,
        time,
      });
      const entries = [
        { name: 'about.json', data: about },
        { name: 'doctor.json', data: doctor },
        ...(await collect(context)),
      ];
      const archive = await pack(entries, name.slice(0, 30));
      write(file, archive);
      print(
        `${count(entries.length, 'file')} in "${file}", ${Math.ceil(archive.length / 1024)} KiB, which only you can read. ` +
          'Passwords, tokens and private keys that could be told by their names or forms are left out; look through it before you send it.',
      );
    },
  };
}

/** @param directory top-level directory of the archive. */
async function pack(entries: readonly Entry[], directory: string): Promise<Uint8Array> {
  const { createTarGzip } = await import('nanotar');
  const files = entries.map(({ name, data }) => ({ name: `${directory}/${name}`, data: Buffer.from(data) }));
  return await createTarGzip(files, { attrs: { mode: '600', uid: 0, gid: 0 } });
}

/** Writes a new file, and never overwrites one. */
function write(file: string, data: Uint8Array): void {
  try {
    writeFileSync(file, data, { flag: 'wx', mode: 0o600 });
  } catch (cause) {
    const exists = errnoOf(cause) === 'EEXIST';
    throw new CommandError(
      exists
        ? `"${file}" exists already. Remove it, or give another --file`
        : `Cannot write "${file}". Give another --file`,
      { cause: exists ? undefined : cause },
    );
  }
}
