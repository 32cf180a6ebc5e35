import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { schemaFiles } from '../../../cli/schema.ts';
import { sourceSuite } from '../../../scripts/suite.ts';

const directory = join(import.meta.dirname, '../../../conf/schema');

test('the schemas in conf/schema are those of the plugins; "npm run schemas" brings them into step', async (t) => {
  const wanted = Object.fromEntries(await schemaFiles(sourceSuite()));
  const present = Object.fromEntries(
    readdirSync(directory).map((name) => [name, readFileSync(join(directory, name), 'utf8')]),
  );
  t.deepEqual(present, wanted);
});

test('every key is described, so that editors can say what it is for', async (t) => {
  const suite = sourceSuite();
  for (const name of suite.plugins.keys()) {
    const schema = JSON.parse(readFileSync(join(directory, `${name}.json`), 'utf8')) as {
      properties: Record<string, { description?: string; const?: string; $ref?: string; type?: string }>;
    };
    for (const [key, value] of Object.entries(schema.properties))
      if (!['args', 'runtimeConfig', 'ipam', 'type'].includes(key))
        t.truthy(value.description, `${name}: ${key}`);
  }
});
