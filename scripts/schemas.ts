/** Writes the JSON Schemas of conf/schema from the schemas that the plugins decode with: npm run schemas. */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { schemaFiles } from '../cli/schema.ts';
import { sourceSuite } from './suite.ts';

const directory = join(import.meta.dirname, '../conf/schema');
rmSync(directory, { recursive: true, force: true });
mkdirSync(directory, { recursive: true });
for (const [name, text] of await schemaFiles(sourceSuite())) writeFileSync(join(directory, name), text);
