/** Manual pages in troff, from the texts of `--help`: one for `cni`, and one for each of its commands. */

import type { Argv } from 'yargs';
import { commandWords, type Help, readHelp } from '../cli/help.ts';
import packageJson from '../package.json' with { type: 'json' };

/**
 * Writes the pages.
 * @param makeCommand makes the whole command.
 * @param date of the pages.
 * @returns each text by file name, such as "cni-install.1".
 */
export async function manPages(makeCommand: () => Argv, date: Date): Promise<Map<string, string>> {
  const pages = new Map<string, string>();
  const write = async (words: readonly string[], parent: string[]): Promise<void> => {
    const help = await readHelp(makeCommand, words);
    const children = (help.sections.get('Commands') ?? []).map(([usage]) => commandWords(usage));
    const seeAlso = [...parent, ...children.map((child) => pageName(child))].sort();
    pages.set(`${pageName(words)}.1`, page(words, help, seeAlso, date));
    for (const child of children) await write(child, [...parent, pageName(words)]);
  };
  await write([], []);
  return pages;
}

const pageName = (words: readonly string[]) => ['cni', ...words].join('-');

function page(words: readonly string[], help: Help, seeAlso: readonly string[], date: Date): string {
  const name = pageName(words);
  const { sections } = help;
  const lines = [
    '.\\" Written from the texts of "cni --help".',
    `.TH ${name.toUpperCase().replaceAll('-', '\\-')} 1 ${date.toISOString().slice(0, 10)} "${packageJson.name} ${packageJson.version}" "CNI plugins"`,
    '.SH NAME',
    `${escaped(name)} \\- ${escaped(nameLine(help.description))}`,
    '.SH SYNOPSIS',
    `.B ${escaped(help.usage)}`,
    '.SH DESCRIPTION',
    ...paragraph(help.description.endsWith('.') ? help.description : `${help.description}.`),
  ];
  const prose = help.epilogue.filter((block) => !headingOf(block));
  for (const block of prose) lines.push('.PP', ...paragraph(block));
  for (const [heading, title] of [
    ['Commands', 'COMMANDS'],
    ['Positionals', 'ARGUMENTS'],
    ['Options', 'OPTIONS'],
  ] as const) {
    const rows = sections.get(heading) ?? [];
    if (rows.length > 0) lines.push(`.SH ${title}`);
    for (const [left, right] of rows) lines.push('.TP', `.B ${escaped(left)}`, ...paragraph(right));
  }
  for (const block of help.epilogue) {
    const heading = headingOf(block);
    if (heading) lines.push(`.SH ${escaped(heading.toUpperCase())}`, ...verbatim(block.split('\n').slice(1)));
  }
  const examples = sections.get('Examples') ?? [];
  if (examples.length > 0) lines.push('.SH EXAMPLES');
  for (const [left, right] of examples) lines.push('.TP', `.B ${escaped(left)}`, ...paragraph(right));
  if (seeAlso.length > 0)
    lines.push(
      '.SH SEE ALSO',
      ...seeAlso.map((one, i) => `.BR ${escaped(one)} (1)${i < seeAlso.length - 1 ? ',' : ''}`),
    );
  return `${lines.join('\n')}\n`;
}

/** Entries in an index of manual pages have no full stop. */
const nameLine = (description: string) => description.replace(/\.$/, '');

/** "Environment" for a block whose first line is "Environment:" or "Environment, as with cnitool:". */
function headingOf(block: string): string | undefined {
  return /^([A-Z][a-z]+(?: [a-z]+)?)[^.\n]*:\n {2}/.exec(block)?.[1];
}

const paragraph = (text: string) => text.split('\n').map((line) => escaped(line.trim()));
const verbatim = (lines: readonly string[]) => ['.nf', ...lines.map((line) => escaped(line.slice(2))), '.fi'];

/** Source: groff_char(7), and groff(7) on lines that begin with a control character. */
function escaped(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('`', '\\(ga')
    .replaceAll('^', '\\(ha')
    .replaceAll('~', '\\(ti')
    .replaceAll(
      /[^ -~]/gu,
      (one) => `\\[u${one.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}]`,
    )
    .replace(/^\./, '\\&.');
}
