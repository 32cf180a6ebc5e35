/**
 * An agent that kills itself at one of its waits. It runs the agent from source, and nothing of this is in
 * the shipped executable.
 *
 * A promise hook reports every promise that is chained to another: each `await`, and each `then`. They are
 * counted from when a line on standard input gives the number of the one at which the agent is to kill
 * itself, or 0 for none. The line "end" stops that, and is answered on standard output with how many there
 * were.
 */

import { globSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promiseHooks } from 'node:v8';
import { Agent, defaultSocket } from '../../agent/agent.ts';
import { sourceSuite } from '../../scripts/suite.ts';

const root = join(import.meta.dirname, '../..');
const [program = '', build = ''] = process.argv.slice(2);
const { plugins, ipam } = sourceSuite();

let isCounting = false;
let count = 0;
let last = 0;

promiseHooks.onInit((_promise, parent) => {
  if (!isCounting || parent === undefined) return;
  count++;
  if (count === last) process.kill(process.pid, 'SIGKILL');
});

const agent = new Agent({
  socket: defaultSocket,
  plugins: new Map([...plugins, ...ipam]),
  program,
  build,
  concurrency: 16,
  idleTimeoutMs: 0,
});
// All modules are loaded now, so that the waits of a verb do not depend on what ran before.
for (const load of [...plugins.values(), ...ipam.values()]) await load();
for (const file of globSync('lib/{cni,firewall}/**/*.ts', { cwd: root })) await import(join(root, file));
await agent.listen();
console.log('ready');

createInterface({ input: process.stdin })
  .on('line', (line) => {
    if (line === 'end') {
      isCounting = false;
      console.log(String(count));
      return;
    }
    count = 0;
    last = Number(line);
    isCounting = true;
    console.log('counting');
  })
  .on('close', () => process.exit());
