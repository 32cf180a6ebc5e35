/**
 * Rules that the source tree follows, checked on the text of its files. Each check returns one line for every
 * violation.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';

/** Contents by path, relative to the root of the tree. */
export type SourceTree = ReadonlyMap<string, string>;

/** Reads what the rules are about: everything but the tests. @param root of the repository. */
export function readSourceTree(root: string): SourceTree {
  const files = ['lib', 'plugins', 'ipam', 'agent', 'launcher', 'cli', 'scripts'].flatMap((directory) =>
    readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' }).map((file) =>
      posix.join(directory, file),
    ),
  );
  return new Map(
    ['main.ts', ...files]
      .filter((file) => file.endsWith('.ts'))
      .sort()
      .map((file) => [file, readFileSync(join(root, file), 'utf8')]),
  );
}

/** One import statement. */
interface Import {
  readonly statement: string;
  /** Path of the imported file. */
  readonly file: string;
  /** The imported names; undefined when all of them may be meant, as with `import()`. */
  readonly names: readonly string[] | undefined;
}

/** Imports of other files of the tree: of values and of types, static and dynamic. */
function importsOf(file: string, text: string): Import[] {
  const statements = [
    ...text.matchAll(/^(?:import|export)\s+(?:type\s+)?([^;'"]*?)\s*from\s+'(?<from>\.[^']*)'/gm),
    ...text.matchAll(/^import\s+(?<from>'\.[^']*')/gm),
    ...text.matchAll(/\bimport\(\s*'(?<from>\.[^']*)'/g),
  ];
  return statements.map(({ 0: statement, 1: clause = '', groups }) => {
    const from = groups!.from!.replaceAll("'", '');
    const braces = /^\{([^}]*)\}$/s.exec(clause)?.[1];
    return {
      statement,
      file: posix.normalize(posix.join(posix.dirname(file), from)),
      names: braces
        ?.split(',')
        .map(
          (name) =>
            name
              .trim()
              .replace(/^type\s+/, '')
              .split(/\s+as\s+/)[0]!,
        )
        .filter((name) => name !== ''),
    };
  });
}

/** Circles of imports, type imports included: each as the path from a file back to itself. */
export function importCircles(tree: SourceTree): string[] {
  const edges = new Map(
    [...tree].map(([file, text]) => [file, importsOf(file, text).map((one) => one.file)]),
  );
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]) => {
    const start = path.indexOf(file);
    if (start >= 0) circles.push([...path.slice(start), file].join(' -> '));
    if (start >= 0 || done.has(file)) return;
    for (const next of edges.get(file) ?? []) if (tree.has(next)) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of tree.keys()) visit(file, []);
  return circles;
}

/** The files that are loaded along with a file, sorted by path, without type-only and dynamic imports. */
export function loadedBy(tree: SourceTree, file: string): string[] {
  const loaded = new Set<string>();
  const visit = (one: string) => {
    for (const { statement, file: next } of importsOf(one, tree.get(one) ?? '')) {
      if (/^(?:import\(|(?:import|export)\s+type\s)/.test(statement) || loaded.has(next)) continue;
      loaded.add(next);
      visit(next);
    }
  };
  visit(file);
  return [...loaded].sort();
}

/** The folders of lib/, each of which may import those before it. */
const layers = ['netlink', 'kernel', 'firewall', 'ovsdb', 'etcd', 'kubernetes', 'cni', 'networks'];
/** Files of lib/ that every folder may import, and that import only one another. */
const common = [
  'attachment',
  'directory',
  'errors',
  'file',
  'group-commit',
  'http',
  'ip',
  'object',
  'result-cache',
  'state-file',
  'turns',
].map((name) => `lib/${name}.ts`);

/**
 * Imports that go against the layers of lib/, files that belong to no layer, and imports of lib/ from outside
 * of it.
 */
export function layerViolations(tree: SourceTree): string[] {
  const layerOf = (file: string) => (common.includes(file) ? -1 : layers.indexOf(file.split('/')[1]!));
  return [...tree].flatMap(([file, text]) => {
    if (!file.startsWith('lib/')) return [];
    const own = layerOf(file);
    if (own < 0 && !common.includes(file)) return [`${file} belongs to none of ${layers.join(', ')}`];
    return importsOf(file, text)
      .filter((one) => !one.file.startsWith('lib/') || layerOf(one.file) > own)
      .map((one) => `${file} imports ${one.file}`);
  });
}

/** Plugins that import another plugin, or the operators' command. */
export function pluginViolations(tree: SourceTree): string[] {
  return [...tree].flatMap(([file, text]) => {
    const own = /^(?:plugins|ipam)\/[^/.]+/.exec(file)?.[0];
    if (!own) return [];
    return importsOf(file, text)
      .filter((one) => !one.file.startsWith('lib/') && !one.file.startsWith(`${own}/`))
      .map((one) => `${file} imports ${one.file}`);
  });
}

/** Files of more than a number of lines. */
export function longFiles(tree: SourceTree, most: number): string[] {
  return [...tree].flatMap(([file, text]) => {
    const lines = text.trimEnd().split('\n').length;
    return lines > most ? [`${file} has ${lines} lines`] : [];
  });
}

/** Lines of comment that are wider than a number of columns. */
export function wideComments(tree: SourceTree, most: number): string[] {
  return [...tree].flatMap(([file, text]) =>
    text.split('\n').flatMap((line, i) => {
      const isComment = /^\s*(?:\/\/|\/?\*)/.test(line);
      return isComment && line.length > most ? [`${file}:${i + 1} has ${line.length} columns`] : [];
    }),
  );
}

/**
 * Uses of the process's own environment, streams and exit code in code that may serve many calls at once.
 * @param allowed files that belong to a process of their own.
 */
export function processUses(tree: SourceTree, allowed: readonly string[]): string[] {
  return [...tree].flatMap(([file, text]) => {
    if (!/^(?:lib|plugins|ipam)\//.test(file) || allowed.includes(file)) return [];
    const code = withoutComments(text).split('\n');
    return code.flatMap((line, i) => {
      const use = /\bprocess\.(?:env|exit|exitCode|stderr|stdout)\b/.exec(line)?.[0];
      return use ? [`${file}:${i + 1} uses ${use}`] : [];
    });
  });
}

/**
 * Names that a file exports and no other file of the tree imports. A type or class may also be exported for a
 * signature of its own file.
 * @param allowed as `file: name`, or `file: *`.
 */
export function deadExports(tree: SourceTree, allowed: readonly string[]): string[] {
  const imports = [...tree].flatMap(([file, text]) =>
    importsOf(file, text).map((one) => ({
      ...one,
      by: file,
      isReexport: one.statement.startsWith('export *'),
    })),
  );
  const reexports = imports.filter(({ isReexport }) => isReexport);
  const used = new Set(
    imports
      .filter(({ isReexport }) => !isReexport)
      .flatMap(({ file, names, by }) => {
        const targets = [file, ...reexports.filter((one) => one.by === file).map((one) => one.file)];
        const words = names ?? wordsOf(tree.get(by)!);
        return targets.flatMap((target) => words.map((name) => `${target}: ${name}`));
      }),
  );
  return [...tree].flatMap(([file, text]) =>
    exportsOf(text)
      .filter((name) => !isTypeOfSignature(text, name))
      .map((name) => `${file}: ${name}`)
      .filter((name) => !used.has(name) && !allowed.includes(name)),
  );
}

function isTypeOfSignature(text: string, name: string): boolean {
  const isType = new RegExp(`^export (?:abstract )?(?:interface|type|class) ${name}\\b`, 'm').test(text);
  return isType && withoutComments(text).match(new RegExp(`\\b${name}\\b`, 'g'))!.length > 1;
}

function exportsOf(text: string): string[] {
  const declared = text.matchAll(
    /^export\s+(?:declare\s+|abstract\s+|async\s+)*(?:const|let|function\*?|class|interface|type|enum)\s+(\w+)/gm,
  );
  const listed = text.matchAll(/^export\s+(?:type\s+)?\{([^}]*)\}/gm);
  return [
    ...[...declared].map(([, name]) => name!),
    ...[...listed].flatMap(([, names]) =>
      names!
        .split(',')
        .map((name) =>
          name
            .trim()
            .split(/\s+as\s+/)
            .at(-1)!
            .replace(/^type\s+/, ''),
        )
        .filter((name) => name !== ''),
    ),
  ];
}

function wordsOf(text: string): string[] {
  return [...new Set(withoutComments(text).match(/\w+/g))];
}

/** Blanks comments, and keeps the lines. */
function withoutComments(text: string): string {
  return text
    .replace(/\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, ' '))
    .replace(/^\s*\/\/.*$|\s\/\/ .*$/gm, '');
}
