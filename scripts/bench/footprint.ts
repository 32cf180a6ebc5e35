/** What the suites take: memory while they run, and room on disk. */

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { addNamespace, environment, removeNamespace, type Suite, suites } from './call.ts';

/** What each suite takes, in bytes. */
export type Footprint = Record<Suite, { peak: number; own: number; disk: number }>;

const config = {
  cniVersion: '1.0.0',
  name: 'bench',
  type: 'bridge',
  isGateway: true,
  ipMasq: true,
  ipam: { type: 'host-local', subnet: '10.66.0.0/16' },
};

/** Memory of bridge, the largest of the plugins, and the size of all executables. */
export async function footprint(): Promise<Footprint> {
  const of = async (suite: Suite) => ({
    peak: peakMemory(suite),
    own: await ownMemory(suite),
    disk: diskUsage(suites[suite]),
  });
  return { ours: await of('ours'), reference: await of('reference') };
}

/**
 * The resident set of ADD or DEL at its largest, as time(1) reports it. It counts what the page cache maps along, which is more
 * when the executable has just been written in large pieces: it is read from disk anew, as after a boot.
 */
function peakMemory(suite: Suite): number {
  execFileSync('dd', [`if=${join(suites[suite], 'bridge')}`, 'iflag=nocache', 'count=0', 'status=none']);
  const { name, netns } = addNamespace();
  let peak = 0;
  for (const command of ['ADD', 'DEL']) {
    const { stderr } = spawnSync('time', ['-f', '%M', join(suites[suite], 'bridge')], {
      input: JSON.stringify(config),
      encoding: 'utf8',
      env: environment({ suite, command, containerId: 'memory', netns }),
    });
    peak = Math.max(peak, 1024 * Number(stderr.trim().split('\n').at(-1)));
  }
  removeNamespace(name);
  return peak;
}

/** What of it no other process shares, of a process that waits for its configuration. */
async function ownMemory(suite: Suite): Promise<number> {
  const child = spawn(join(suites[suite], 'bridge'), [], {
    stdio: ['pipe', 'ignore', 'ignore'],
    env: environment({ suite, command: 'ADD', containerId: 'memory', netns: '/unused' }),
  });
  await sleep(300);
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
  child.stdin.end();
  await once(child, 'exit');
  return 1024 * Number(/^RssAnon:\s+(\d+)/m.exec(status)?.[1]);
}

/** Bytes; hard links count once. */
function diskUsage(directory: string): number {
  const seen = new Map(
    readdirSync(directory).map((name) => {
      const { ino, size } = statSync(join(directory, name));
      return [ino, size];
    }),
  );
  return [...seen.values()].reduce((total, size) => total + size, 0);
}
