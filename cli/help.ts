/** What `--help` says, in parts from which completion and manual pages are made. */

import type { Argv } from 'yargs';

/** What `--help` says of a command. */
export interface Help {
  readonly usage: string;
  readonly description: string;
  /** Rows of two columns, by heading. */
  readonly sections: ReadonlyMap<string, [string, string][]>;
  /** Paragraphs after them. */
  readonly epilogue: string[];
}

const headings = ['Commands', 'Positionals', 'Options', 'Examples'];

/**
 * The help of the command that a command line names.
 * @param makeCommand makes the whole command.
 * @param words of the command line, without options; any words after the names of commands do no harm.
 */
export async function readHelp(makeCommand: () => Argv, words: readonly string[]): Promise<Help> {
  let help = '';
  await makeCommand()
    .wrap(null)
    .parseAsync([...words, '--help'], {}, (_error: unknown, _argv: unknown, output: string) => {
      help = output;
    });
  return parseHelp(help);
}

/** Parses what yargs prints when it does not wrap lines. */
function parseHelp(text: string): Help {
  const [usage = '', description = '', ...blocks] = text.trim().split(/\n{2,}/);
  const sections = new Map<string, [string, string][]>();
  const epilogue: string[] = [];
  for (const block of blocks) {
    const [first = '', ...rows] = block.split('\n');
    const heading = headings.find((one) => first === `${one}:`);
    if (heading) sections.set(heading, rows.map(splitRow));
    else epilogue.push(block);
  }
  return { usage, description, sections, epilogue };
}

function splitRow(row: string): [string, string] {
  const [, left = row.trim(), right = ''] = /^\s+(.*?\S)(?:\s{2,}(.*))?$/.exec(row) ?? [];
  return [left, right.replaceAll(/\s{2,}/g, ' ')];
}

/** The names of commands in a usage: "agent" and "status" in "cni agent status <x>". */
export function commandWords(usage: string): string[] {
  return usage
    .split(' ')
    .slice(1)
    .filter((word) => /^[a-z]/.test(word));
}
