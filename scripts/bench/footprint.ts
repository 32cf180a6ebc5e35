/** What the suites take: memory while they run, and room on disk. */

import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { addNamespace, bothSuites, removeNamespace, type Suite, suites } from './call.ts';

/** Peak memory of a bridge ADD, the largest of the verbs, and the size of all executables. */
export function footprint(): { memory: string; disk: string } {
  const text = (figure: (suite: Suite) => string) =>
    bothSuites.map((suite) => `${suite} ${figure(suite)}`).join(', ');
  return {
    memory: text((suite) => `${(peakMemory(suite) / 1024).toFixed(0)} MiB`),
    disk: text((suite) => `${(diskUsage(suites[suite]) / 1e6).toFixed(0)} MB`),
  };
}

/** KiB, as time(1) reports them. */
function peakMemory(suite: Suite): number {
  const { name, netns } = addNamespace();
  let peak = 0;
  for (const command of ['ADD', 'DEL']) {
    const { stderr } = spawnSync('time', ['-f', '%M', join(suites[suite], 'bridge')], {
      input: JSON.stringify({
        cniVersion: '1.0.0',
        name: 'bench',
        type: 'bridge',
        isGateway: true,
        ipMasq: true,
        ipam: { type: 'host-local', subnet: '10.66.0.0/16' },
      }),
      encoding: 'utf8',
      env: {
        PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
        CNI_COMMAND: command,
        CNI_CONTAINERID: 'memory',
        CNI_NETNS: netns,
        CNI_IFNAME: 'eth0',
        CNI_PATH: suites[suite],
      },
    });
    peak = Math.max(peak, Number(stderr.trim().split('\n').at(-1)));
  }
  removeNamespace(name);
  return peak;
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
