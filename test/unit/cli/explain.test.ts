import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { explain } from '../../../cli/explain.ts';
import { sourceSuite } from '../../../scripts/suite.ts';

const samples = join(import.meta.dirname, '../../../conf');

/** What is written to standard output meanwhile; nothing else of this process writes there. */
async function written(work: () => void | Promise<void>): Promise<string> {
  const { write } = process.stdout;
  let text = '';
  process.stdout.write = (chunk: string | Uint8Array) => {
    text += chunk;
    return true;
  };
  try {
    await work();
  } finally {
    process.stdout.write = write;
  }
  return text;
}

test('explain knows what each plugin of each sample would do', async (t) => {
  const { handler } = explain(sourceSuite());
  const names = readdirSync(samples).filter((file) => /\.conf(list)?$/.test(file));
  t.true(names.length > 0);
  for (const name of names) {
    const text = await written(() => handler({ configuration: join(samples, name), _: [], $0: 'cni' }));
    t.regex(text, /^\S*ADD of network [\s\S]*1\. [\s\S]* - /, name);
    t.notRegex(text, /undefined|not of this suite|\[object/, name);
  }
});
