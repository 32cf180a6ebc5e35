/** Start-up: what a process takes before it runs any code of a plugin. */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, rmSync, write, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { bothSuites, environment, suites } from './call.ts';
import { emptySamples, type Scenario, warmUp } from './scenario.ts';

const pipe = '/run/bench-pipe';
/** What a pipe holds. */
const pipeSize = 64 * 1024;

/** Of a version that neither suite takes. */
const refused = Buffer.from('{"cniVersion": "9.9.9", "name": "bench", "type": "bridge"}');

/**
 * An ADD that is refused, split where the plugin reads its configuration. Its standard input is a pipe that
 * is full of blanks: one more byte fits only when the plugin begins to read.
 */
export function startUp(rounds: number): Scenario {
  return {
    name: 'start',
    async measure() {
      execFileSync('mkfifo', [pipe]);
      const [before, after] = [emptySamples(), emptySamples()];
      for (let round = -warmUp; round < rounds; round++)
        for (const suite of bothSuites) {
          // Opened both ways first, as neither end can be opened alone.
          const both = openSync(pipe, constants.O_RDWR);
          const [input, output] = [openSync(pipe, constants.O_RDONLY), openSync(pipe, constants.O_WRONLY)];
          closeSync(both);
          writeSync(output, ' '.repeat(pipeSize));
          const start = performance.now();
          const child = spawn(join(suites[suite], 'bridge'), [], {
            stdio: [input, 'ignore', 'inherit'],
            env: environment({ suite, command: 'ADD', containerId: 'bench', netns: '/unused' }),
          });
          closeSync(input);
          const ended = once(child, 'exit');
          await promisify(write)(output, refused);
          const reading = performance.now();
          closeSync(output);
          await ended;
          if (round < 0) continue;
          before[suite].push(reading - start);
          after[suite].push(performance.now() - reading);
        }
      rmSync(pipe);
      return [
        { name: 'start: until it reads its configuration', unit: 'ms', ...before },
        { name: 'start: from there to its end', unit: 'ms', ...after },
      ];
    },
  };
}
