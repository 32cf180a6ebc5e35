/** Which file decides what a setting of the kernel becomes at each start. Source: sysctl.d(5). */

import { namesIn } from '../../lib/directory.ts';
import { readRegularFile } from '../../lib/file.ts';

/** Directories with files; a file hides those of the same name in the directories behind its own. */
const directories = ['/etc/sysctl.d', '/run/sysctl.d', '/usr/local/lib/sysctl.d', '/usr/lib/sysctl.d'];

/** A line of a file. */
interface Assignment {
  readonly file: string;
  /** Path below /proc/sys, which may have wildcards. */
  readonly key: string;
  /** Undefined for a key that wildcards are not to match. */
  readonly value: string | undefined;
}

/**
 * The last line that sets a setting; one that names it goes before those that match it by wildcards.
 * @param names paths below /proc/sys, such as "net/ipv4/ip_forward"; several for a setting that has several.
 * @param root directory that has the files' directories, for tests.
 * @returns undefined when none does.
 */
export function decidingFile(
  names: readonly string[],
  root = '',
): { file: string; value: string } | undefined {
  const all = filesOf(root).flatMap(assignmentsIn);
  const named = all.findLast(({ key }) => names.includes(key));
  const isLike = ({ key, value }: Assignment) =>
    value !== undefined && names.some((name) => matches(key, name));
  const found = named ?? all.findLast(isLike);
  return found?.value === undefined ? undefined : { file: found.file, value: found.value };
}

/** In the order in which they are read: by name, and those of sysctl(8) itself at the end. */
function filesOf(root: string): string[] {
  const files = new Map<string, string>();
  for (const directory of directories)
    for (const name of namesIn(`${root}${directory}`))
      if (name.endsWith('.conf') && !files.has(name)) files.set(name, `${root}${directory}/${name}`);
  const byName = [...files].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, file]) => file);
  return [...byName, `${root}/etc/sysctl.conf`];
}

function assignmentsIn(file: string): Assignment[] {
  let text: string;
  try {
    text = readRegularFile(file, { followLink: true });
  } catch {
    return []; // It does not exist, hides another one by leading to /dev/null, or is too large to be one.
  }
  return text.split('\n').flatMap((line) => {
    // A "-" has errors ignored; without a value, it keeps wildcards away.
    const [, isLenient, key, value] = /^\s*(-)?([^#;=\s][^=]*?)\s*(?:=\s*(.*?)\s*)?$/.exec(line) ?? [];
    if (key === undefined || (value === undefined && !isLenient)) return [];
    return [{ file, key: asPath(key), value }];
  });
}

/** Only where the first separator is a dot, dots and slashes trade places. */
function asPath(key: string): string {
  return /^[^./]*\./.test(key) ? key.replace(/[./]/g, (one) => (one === '.' ? '/' : '.')) : key;
}

function matches(pattern: string, name: string): boolean {
  if (!/[*?]/.test(pattern)) return false;
  const source = pattern
    .replace(/[^*?/\w]/g, String.raw`\$&`)
    .replaceAll('*', '[^/]*')
    .replaceAll('?', '[^/]');
  return new RegExp(`^${source}$`).test(name);
}
