/** The documents in the packages: the manual, its samples and the licence. */

import { cpSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');

/** Files and directories, relative to the root of the tree. */
const documents = [
  'README.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'LICENSE',
  'bench/NOTES.md',
  'bench/results.md',
  'bench/results.svg',
  'conf',
  'docs',
];

/** Copies them into a directory. They keep their relative places, so that links between them work. */
export function copyDocuments(directory: string): void {
  for (const document of documents)
    cpSync(join(root, document), join(directory, document), { recursive: true });
}
