/** `cni draw`: a picture of the host's container networks. */

import { writeFileSync } from 'node:fs';
import { survey } from './draw/survey.ts';
import { asText } from './draw/text.ts';
import { CommandError, ExitCode } from './errors.ts';
import type { Subcommand } from './subcommand.ts';
import { note, print, warn } from './terminal.ts';

interface DrawArguments {
  svg: string | undefined;
  html: string | undefined;
}

export const draw: Subcommand<DrawArguments> = {
  builder: (yargs) =>
    yargs
      .option('svg', { type: 'string', requiresArg: true, describe: 'Write an SVG picture to this file' })
      .option('html', {
        type: 'string',
        requiresArg: true,
        describe: 'Write a page to this file: the picture to zoom, search and hover',
      })
      .example('$0 draw', 'In the terminal')
      .example('$0 draw --html host.html', 'For a browser')
      .example('$0 draw --svg - | ssh desk "cat > host.svg"', '"-" is standard output')
      .epilogue(
        'The state of each attachment is what CHECK of its network says now. A place with more than 12 attachments shows them as a list, and so do others where there would be more than 24 boxes of pods. The exit code is 1 if an attachment is broken or orphaned, or a file cannot be read.',
      ),
  handler: async ({ svg, html }) => {
    const { graph, problems, isBad } = await survey();
    for (const problem of problems) warn(problem);
    if (problems.length > 0 || isBad) process.exitCode = ExitCode.Failure;
    if (svg === undefined && html === undefined) {
      if (graph.nodes.length === 0) return print('This host has no container networks.');
      return print(asText(graph, process.stdout.columns || Number(process.env.COLUMNS) || 100));
    }
    const { asSvg } = await import('./draw/svg.ts');
    const picture = await asSvg(graph);
    if (svg !== undefined) write(svg, picture);
    if (html !== undefined) {
      const { asPage } = await import('./draw/html.ts');
      write(html, asPage(graph, picture));
    }
  },
};

/** Writes to a file, or to standard output if that is "-". @throws CommandError */
function write(file: string, content: string): void {
  if (file === '-') {
    process.stdout.write(content);
    return;
  }
  try {
    writeFileSync(file, content);
  } catch (cause) {
    throw new CommandError(`Cannot write the picture to "${file}"`, { cause });
  }
  note(`Written to ${file}`);
}
