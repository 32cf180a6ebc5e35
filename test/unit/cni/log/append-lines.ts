/** Appends numbered lines to a log file: FILE NAME COUNT MAX-SIZE KEEP. Started by file.test.ts, many at once. */

import { appendLine } from '../../../../lib/cni/log/file.ts';

const [file = '', name = '', count = '', maxSize = '', keep = ''] = process.argv.slice(2);
const rotation = { maxSize: Number(maxSize), keep: Number(keep) };
for (let number = 0; number < Number(count); number++) {
  const padding = 'x'.repeat((number * 37) % 900);
  appendLine(file, `${JSON.stringify({ name, number, padding })}\n`, rotation);
}
