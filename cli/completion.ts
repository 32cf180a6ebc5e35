/** `cni completion`: has a shell complete this command, with this host's networks, namespaces and pods. */

import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import type { Argv } from 'yargs';
import { type Shell, scripts } from './completion/scripts.ts';
import { CommandError, ExitCode } from './errors.ts';
import { commandWords, type Help, readHelp } from './help.ts';
import { displayName, podOf, shortId } from './inventory.ts';
import type { CachedAttachment } from './libcni/cache.ts';
import { isLoopback, networkFiles, networkFromCache, readNetworkFile } from './libcni/conflist.ts';
import { listRecords } from './records.ts';
import { cacheDir, configDir } from './settings.ts';
import type { Subcommand } from './subcommand.ts';

const shells = Object.keys(scripts) as Shell[];

export const completion: Subcommand<{ shell: Shell | undefined }> = {
  builder: (yargs) =>
    yargs
      .positional('shell', { choices: shells, describe: 'Which shell; that of $SHELL when left out' })
      .example('source <(cni completion bash)', 'In this bash; the packages install it for all')
      .example('$0 completion fish > ~/.config/fish/completions/cni.fish', 'In every fish from now on'),
  handler: ({ shell = ownShell() }) => void process.stdout.write(scripts[shell]),
};

function ownShell(): Shell {
  const name = basename(process.env.SHELL ?? '');
  const shell = shells.find((one) => one === name);
  if (shell) return shell;
  throw new CommandError(
    `$SHELL is "${process.env.SHELL ?? ''}", for which there is no completion. Name one of ${shells.join(', ')}`,
    { exitCode: ExitCode.Usage },
  );
}

/**
 * Candidates for the last word: lines with a value and, after a tab, its description. ":files" and
 * ":directories" stand for those of the file system, which the shell itself completes.
 * @param words of the command line, without the name of the program, up to the cursor.
 * @param makeCommand makes the whole command anew.
 */
export async function complete(words: readonly string[], makeCommand: () => Argv): Promise<string[]> {
  const [, option, assigned] = /^(--[^=]+=)(.*)$/s.exec(words.at(-1) ?? '') ?? [];
  const split = option === undefined ? [...words] : [...words.slice(0, -1), option.slice(0, -1), assigned!];
  const current = split.at(-1) ?? '';
  const before = split.slice(0, -1);
  const help = await readHelp(
    makeCommand,
    before.filter((word) => !word.startsWith('-')),
  );
  return candidates(help, before, current)
    .filter((value) => value.startsWith(':') || value.startsWith(current))
    .map((value) => (option === undefined || value.startsWith(':') ? value : option + value));
}

function candidates(help: Help, before: readonly string[], current: string): string[] {
  const options = rowsOf(help, 'Options').map(([names, text]) => [/--\S+/.exec(names)![0], text] as const);
  const takesValue = (word: string | undefined) =>
    options.find(([name, text]) => name === word && /\[(?:string|number|array|choices)\b/.test(text));
  const last = takesValue(before.at(-1));
  if (last) return valuesOf(...last);
  if (current.startsWith('-'))
    return options
      .filter(([name]) => !before.includes(name))
      .map(([name, text]) => `${name}\t${text.replace(/ ?\[.*/, '')}`);
  const given = before.filter((word, i) => !word.startsWith('-') && !takesValue(before[i - 1]));
  const index = given.length - commandWords(help.usage).length;
  if (index < 0) return [];
  const positionals = [...help.usage.matchAll(/[<[](\w+)(?:\.\.)?[>\]]/g)].map(([text, name]) => ({
    text,
    name: name!,
  }));
  const variadic = positionals.find(({ text }) => text.includes('..'));
  const { name } = positionals[index] ?? variadic ?? {};
  const text = rowsOf(help, 'Positionals').find(([left]) => left === name)?.[1];
  const commands = index > 0 ? [] : rowsOf(help, 'Commands');
  return [
    ...commands.map(([usage, what]) => `${commandWords(usage).at(-1)}\t${what}`),
    ...(name ? valuesOf(name, text) : []),
  ];
}

const rowsOf = (help: Help, heading: string) => help.sections.get(heading) ?? [];

/**
 * Candidates for an argument: the choices that its help lists, or whatever this host has of the kind that the
 * argument is named after.
 */
function valuesOf(argument: string, text = ''): string[] {
  const [, choices] = /\[choices: ([^\]]+)\]/.exec(text) ?? [];
  if (choices) return [...choices.matchAll(/"([^"]*)"/g)].map(([, choice]) => choice!);
  switch (argument.replace(/^-+/, '')) {
    case 'network':
    case 'networks':
      return networks();
    case 'names':
    case 'target':
      return [...networks(), ...pods()];
    case 'configuration':
      return [...networks(), ':files'];
    case 'netns':
      return namespaces();
    case 'pod':
    case 'container':
      return pods();
    case 'file':
    case 'files':
    case 'path':
    case 'paths':
    case 'svg':
    case 'html':
    case 'socket':
      return [':files'];
    case 'bin-dir':
    case 'directory':
      return [':directories'];
    default:
      return [];
  }
}

function networks(): string[] {
  const known = new Map(attachments().map(({ network }) => [network, 'no longer configured']));
  const files = orNone(() => networkFiles(configDir()));
  for (const file of files)
    for (const { name } of orNone(() => [readNetworkFile(file)])) known.set(name, basename(file));
  return [...known].map(([name, origin]) => `${name}\t${origin}`);
}

/** Source: ip-netns(8). */
function namespaces(): string[] {
  const directory = '/run/netns';
  return orNone(() => readdirSync(directory)).map((name) => `${directory}/${name}\tnetwork namespace`);
}

function pods(): string[] {
  const known = new Map<string, string>();
  for (const attachment of attachments()) {
    const short = shortId(attachment.containerId);
    const name = displayName({ ...attachment, pod: podOf(attachment) });
    if (name !== short) known.set(name, `pod on ${attachment.network}`);
    known.set(short, name === short ? `container on ${attachment.network}` : name);
  }
  return [...known].map(([name, what]) => `${name}\t${what}`);
}

function attachments(): CachedAttachment[] {
  return orNone(() => listRecords(cacheDir())).flatMap(({ attachment }) => {
    const network = attachment && networkFromCache(attachment);
    return attachment && !(network && isLoopback(network)) ? attachment : [];
  });
}

/** Offers nothing where nothing can be read, as without root: completion cannot report errors. */
function orNone<T>(read: () => T[]): T[] {
  try {
    return read();
  } catch {
    return [];
  }
}
