/** `cni`, the operators' command. Each subcommand is a file beside this one. */

import yargs, { type Argv } from 'yargs';
import { errnoOf } from '../lib/file.ts';
import type { Suite } from '../main.ts';
import packageJson from '../package.json' with { type: 'json' };
import { subcommands } from './commands.ts';
import { CommandError, describeError, ExitCode } from './errors.ts';
import { setOwnPlugins } from './own-plugins.ts';
import { standardInput } from './settings.ts';
import { note, paintError, print } from './terminal.ts';

const epilogue = `Exit codes:
  0  done, and nothing found amiss
  1  it could not be done, or problems were found
  2  the command line is wrong

Colours are left out when the output is not a terminal, or NO_COLOR is set.`;

/** The option with which a shell's completion script calls the command, before the words to complete. */
const completionOption = '--complete';

/** The whole command. @param suite every plugin in the executable. */
export function makeCommand(suite: Suite): Argv {
  return yargs()
    .scriptName('cni')
    .locale('en')
    .updateStrings({
      // The keys are yargs' own.
      'Not enough non-option arguments: got %s, need at least %s': {
        one: 'Arguments are missing: %s is given, %s are needed. "--help" tells which',
        other: 'Arguments are missing: %s are given, %s are needed. "--help" tells which',
      } as never,
      'Not enough arguments following: %s': 'Option "--%s" needs a value',
      'Did you mean %s?': 'There is no such command. Did you mean "%s"?',
    })
    .usage('$0 COMMAND\n\nSets up, checks and shows the container networks of this host.')
    .command(subcommands(suite))
    .version(`${packageJson.name} ${packageJson.version}`)
    .alias({ h: 'help' })
    .demandCommand(1, 'Which command? See "cni --help"')
    .recommendCommands()
    .strict()
    .middleware(requireRoot)
    .exitProcess(false)
    .wrap(Math.min(100, process.stdout.columns || 100))
    .epilogue(epilogue)
    .fail(fail);
}

/**
 * Runs the command and sets the exit code.
 * @param args without the name of the program.
 * @param suite every plugin in the executable.
 */
export async function main(args: readonly string[], suite: Suite): Promise<void> {
  setOwnPlugins(suite);
  outliveReaders(args[0]);
  try {
    if (args[0] === completionOption) {
      const { complete } = await import('./completion.ts');
      const lines = await complete(args.slice(1), () => makeCommand(suite));
      if (lines.length > 0) print(lines.join('\n'));
      return;
    }
    // yargs drops an argument "-", but not the name that replaces it here.
    const named = args[0] === 'validate' ? args.map((arg) => (arg === '-' ? standardInput : arg)) : args;
    await makeCommand(suite).parseAsync([...named]);
  } catch (error) {
    note(`${paintError('red', 'Error:')} ${describeError(error)}`);
    process.exitCode = exitCodeOf(error);
  }
}

/** Commands that only look, and print more the longer they run. */
const printing = ['list', 'validate', 'explain'];

/**
 * Whoever reads the output may stop early, as "head" does, and a disk may be full: a command that changes the
 * host must finish what it does all the same.
 */
function outliveReaders(command: string | undefined): void {
  let isTold = false;
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error) => {
      if (errnoOf(error) !== 'EPIPE' && !isTold) {
        isTold = true;
        process.exitCode = ExitCode.Failure;
        note(`${paintError('red', 'Error:')} Cannot write the output: ${describeError(error)}`);
      }
      if (stream === process.stdout && printing.includes(`${command}`)) process.exit(ExitCode.Failure);
    });
}

/** Commands that work on files alone, or find out themselves whether they have the permissions they need. */
const forAnybody = ['install', 'validate', 'explain', 'completion', 'agent'];

/**
 * Refuses to run without root: the command would report what it may not see as missing.
 * @throws CommandError
 */
function requireRoot({ _: [name] }: { _: (string | number)[] }): void {
  if (name === undefined || forAnybody.includes(`${name}`) || process.getuid?.() === 0) return;
  throw new CommandError(
    `"cni ${name}" looks at namespaces and rules of this host, which takes root. Run it as root, for example with "sudo"`,
  );
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommandError) return error.exitCode;
  // yargs throws this about the command line; for lazily loaded subcommands it bypasses fail().
  return error instanceof Error && error.name === 'YError' ? ExitCode.Usage : ExitCode.Failure;
}

/** yargs calls this with a message of its own about the command line, or with what a command threw. */
function fail(message: string, error: Error | undefined): never {
  if (error) throw error;
  throw new CommandError(message || 'The command line is not valid', { exitCode: ExitCode.Usage });
}
