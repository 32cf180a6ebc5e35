/** What the suites take: memory while they run, and space on disk. */

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  addNamespace,
  type Contender,
  directories,
  environment,
  prepareFor,
  removeNamespace,
} from './call.ts';

/** A process's memory in bytes: its peak, and how much is not shared with other processes. */
interface Memory {
  peak: number;
  own: number;
}

/** What the suites take, in bytes. */
export interface Footprint {
  launcher: { size: number; peak: number };
  alone: Memory;
  reference: Memory;
  disk: { ours: number; reference: number };
}

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
  const of = async (contender: Contender) => ({
    peak: peakMemory(contender),
    own: await memoryWhileWaiting(contender, 'RssAnon'),
  });
  return {
    launcher: {
      size: statSync(join(directories.agent, 'bridge')).size,
      peak: await memoryWhileWaiting('agent', 'VmHWM'),
    },
    alone: await of('alone'),
    reference: await of('reference'),
    disk: { ours: diskUsage(directories.alone), reference: diskUsage(directories.reference) },
  };
}

/**
 * Has the page cache hold the executables as if they had just been copied, whatever happened to them before:
 * read from beginning to end, and thus in large pieces. In small ones, as page faults read them after a boot,
 * a start of ours takes 1.5 ms more.
 */
export function settleExecutables(): void {
  for (const contender of ['alone', 'reference'] as const)
    for (const file of filesBelow(directories[contender])) {
      forget(file);
      execFileSync('cat', [file], { stdio: 'ignore' });
    }
}

/** Every file in a directory and in those below it. */
function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

/** Drops a file from the page cache. */
function forget(file: string): void {
  execFileSync('sync', [file]);
  execFileSync('dd', [`if=${file}`, 'iflag=nocache', 'count=0', 'status=none']);
}

/**
 * The peak resident set of ADD or DEL, as time(1) reports it, of an executable that is read from disk as it
 * runs, as after a boot. Otherwise, it would include the rest of the larger pieces that the page cache maps
 * along with what is used.
 */
function peakMemory(contender: Contender): number {
  for (const file of filesBelow(directories[contender])) forget(file);
  const { name, netns } = addNamespace();
  prepareFor(contender);
  let peak = 0;
  for (const command of ['ADD', 'DEL']) {
    const { stderr } = spawnSync('time', ['-f', '%M', join(directories[contender], 'bridge')], {
      input: JSON.stringify(config),
      encoding: 'utf8',
      env: environment({ contender, command, containerId: 'memory', netns }),
    });
    peak = Math.max(peak, 1024 * Number(stderr.trim().split('\n').at(-1)));
  }
  removeNamespace(name);
  return peak;
}

/** A line of /proc/PID/status, in bytes, of a process that waits for its configuration. */
async function memoryWhileWaiting(contender: Contender, key: 'RssAnon' | 'VmHWM'): Promise<number> {
  prepareFor(contender);
  const child = spawn(join(directories[contender], 'bridge'), [], {
    stdio: ['pipe', 'ignore', 'ignore'],
    env: environment({ contender, command: 'ADD', containerId: 'memory', netns: '/unused' }),
  });
  await sleep(300);
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
  child.stdin.end();
  await once(child, 'exit');
  return 1024 * Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
}

/** Bytes; hard links count once. */
function diskUsage(directory: string): number {
  const seen = new Map(
    filesBelow(directory).map((file) => {
      const { ino, size } = statSync(file);
      return [ino, size];
    }),
  );
  return [...seen.values()].reduce((total, size) => total + size, 0);
}
