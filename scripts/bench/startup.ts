/** Start-up: how long a process takes before it runs any code of a plugin. */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, rmSync, write, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { directories, environment, prepareFor } from './call.ts';
import { alternate, emptySamples, type Scenario } from './scenario.ts';

const pipe = '/run/bench-pipe';
/** How much a pipe holds, in bytes. */
const pipeSize = 64 * 1024;

/** A configuration of a version that nobody supports. */
const refused = Buffer.from('{"cniVersion": "9.9.9", "name": "bench", "type": "bridge"}');

/**
 * An ADD that is refused, timed in two parts: before and after the plugin reads its configuration. Its
 * standard input is a pipe that is full of blanks: one more byte fits only when the plugin begins to read.
 */
export function startUp(rounds: number): Scenario {
  return {
    name: 'start',
    async measure() {
      execFileSync('mkfifo', [pipe]);
      const [before, after] = [emptySamples(), emptySamples()];
      await alternate(rounds, async (contender, _, counts) => {
        // Opened for both first, as opening just one end would wait for the other.
        const both = openSync(pipe, constants.O_RDWR);
        const [input, output] = [openSync(pipe, constants.O_RDONLY), openSync(pipe, constants.O_WRONLY)];
        closeSync(both);
        writeSync(output, ' '.repeat(pipeSize));
        prepareFor(contender);
        const start = performance.now();
        const child = spawn(join(directories[contender], 'bridge'), [], {
          stdio: [input, 'ignore', 'inherit'],
          env: environment({ contender, command: 'ADD', containerId: 'bench', netns: '/unused' }),
        });
        closeSync(input);
        const ended = once(child, 'exit');
        await promisify(write)(output, refused);
        const reading = performance.now();
        closeSync(output);
        await ended;
        if (!counts) return;
        before[contender].push(reading - start);
        after[contender].push(performance.now() - reading);
      });
      rmSync(pipe);
      return [
        { name: 'start: until it reads its configuration', unit: 'ms', samples: before },
        { name: 'start: from there to its end', unit: 'ms', samples: after },
      ];
    },
  };
}
