/** Links between Markdown files. */

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

/**
 * Links of Markdown files that lead nowhere: to a file that is missing or lies outside of the directory, or to
 * a heading that the file does not have.
 * @param directory with the files, at any depth.
 * @returns a line for each, such as `docs/cni.md: ../bench/notes.md`.
 */
export function deadLinks(directory: string): string[] {
  return markdownIn(directory).flatMap((file) =>
    linksOf(readFileSync(join(directory, file), 'utf8'))
      .filter((link) => !leadsSomewhere(directory, file, link))
      .map((link) => `${file}: ${link}`),
  );
}

/** Markdown files of a directory, relative to it. */
export function markdownIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.md'))
    .sort();
}

/** Targets of the links and pictures of a text, without those on the Web. */
function linksOf(markdown: string): string[] {
  return [...withoutCode(markdown).matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target]) => target!)
    .filter((target) => !/^[a-z]+:/.test(target));
}

function leadsSomewhere(directory: string, file: string, link: string): boolean {
  const [path, heading] = link.split('#') as [string, string?];
  const target = path === '' ? join(directory, file) : join(directory, dirname(file), path);
  if (relative(directory, target).startsWith('..') || !existsSync(target)) return false;
  if (heading === undefined) return true;
  return statSync(target).isFile() && headingsOf(readFileSync(target, 'utf8')).includes(heading);
}

/** The anchors of headings, as GitHub makes them. */
function headingsOf(markdown: string): string[] {
  return [...markdown.replace(/^ *```[\s\S]*?^ *```$/gm, '').matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
    title!
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_ -]/gu, '')
      .replaceAll(' ', '-'),
  );
}

function withoutCode(markdown: string): string {
  return markdown.replace(/^ *```[\s\S]*?^ *```$/gm, '').replace(/`[^`\n]*`/g, 'code');
}
