/** Commands and messages in the documents: `cni` accepts the former, and the plugins print the latter. */

import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { makeCommand } from '../../../cli/main.ts';
import { sourceSuite } from '../../../scripts/suite.ts';

const root = join(import.meta.dirname, '../../..');

/** What runtimes print themselves. */
const messagesOfRuntimes = [
  'cni plugin not initialized',
  'No CNI configuration',
  'failed to find plugin "…" in path',
  'incompatible CNI versions',
  'unsupported … version',
];

/** Thrown instead of doing what a command line asks for. */
class Taken extends Error {}

/** Why the command line is refused; undefined when it is accepted. */
async function refusalOf(words: readonly string[]): Promise<string | undefined> {
  const command = makeCommand(sourceSuite()).middleware(() => {
    throw new Taken();
  });
  try {
    await command.parseAsync([...words]);
    return 'It is taken for another one';
  } catch (error) {
    return error instanceof Taken ? undefined : (error as Error).message;
  }
}

/** The command lines that a notation such as "add|del NETWORK [NETNS]" is short for. */
function spelledOut(notation: string): string[][] {
  const words = notation
    .replaceAll(/[[\]…]/g, '')
    .replace('ADDRESS', '127.0.0.1:9464')
    .split(/\s+/);
  return words.reduce<string[][]>(
    (lines, word) => lines.flatMap((line) => word.split('|').map((one) => [...line, one])),
    [[]],
  );
}

/** What follows "cni" in code within a text. */
function inlineCommands(text: string): string[] {
  return [...text.matchAll(/`(?:\/\S*\/)?cni ([^`]+)`/g)]
    .filter(([code]) => !messagesOfRuntimes.includes(code.slice(1, -1)) && !code.includes('--help'))
    .map(([, words]) => words!);
}

/** The same in blocks of commands. */
function blockCommands(document: string): string[] {
  return [...document.matchAll(/^ *```(?:sh|console)\n(.*?)^ *```/gms)]
    .flatMap(([, block]) => block!.split('\n'))
    .flatMap((line) => /^(?:\S+[#$] |> | *)(?:\S*\/)?cni (.*)$/.exec(line)?.[1] ?? [])
    .map((line) => line.replace(/\s*(?:[#|&].*)?$/, ''));
}

/** The rows of the tables of a text, each with its cells. */
function rowsOf(text: string): string[][] {
  return text
    .split('\n')
    .filter((line) => /^\| .* \|$/.test(line))
    .map((line) => line.slice(2, -2).split(' | '));
}

test('the command takes the command lines of the documents', async (t) => {
  const refused: string[] = [];
  let count = 0;
  for (const file of globSync(['*.md', 'docs/*.md'], { cwd: root })) {
    const document = readFileSync(join(root, file), 'utf8').replaceAll('\\|', '|');
    const prose = document.replaceAll(/^ *```.*?^ *```/gms, '');
    const remedies = file === 'docs/runtimes.md' ? rowsOf(prose).map((cells) => cells.at(-1)!) : [];
    const toTry = [...blockCommands(document), ...remedies.flatMap(inlineCommands)];
    for (const line of [...toTry, ...inlineCommands(prose)])
      for (const words of spelledOut(line)) {
        count++;
        const refusal = await refusalOf(words);
        // Elsewhere in a text, this may be the name of the command.
        const mayBeName = !toTry.includes(line) && /^[a-z -]+$/.test(line);
        if (!mayBeName || !/^(?:Arguments are missing|Option "[^"]*" needs a value)/.test(refusal ?? ''))
          if (refusal) refused.push(`${file}: cni ${line}: ${refusal}`);
      }
  }
  t.deepEqual(refused, []);
  t.true(count > 100, `${count} command lines`);
});

test('messages that the troubleshooting of docs/runtimes.md is about are printed', (t) => {
  const sources = globSync(['{agent,ipam,lib,plugins}/**/*.ts', 'launcher/*.c'], { cwd: root })
    .map((file) => readFileSync(join(root, file), 'utf8'))
    .join('\n');
  const document = readFileSync(join(root, 'docs/runtimes.md'), 'utf8');
  const [, section] = /^### Pods stay in ContainerCreating\n(.*?)^### /ms.exec(document)!;
  const messages = rowsOf(section!).flatMap(([first]) =>
    [...first!.matchAll(/`([^`]+)`/g)].map(([, one]) => one!),
  );
  t.true(messages.length > 10);
  for (const message of messages.filter((one) => !messagesOfRuntimes.includes(one))) {
    const parts = message.split('…').map((part) => part.replaceAll(/[^\w\s"]/g, '\\$&'));
    t.true(new RegExp(parts.join('[^\\n]*')).test(sources), message);
  }
});
