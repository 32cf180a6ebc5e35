/**
 * File systems with something wrong with them, each in a mount namespace of its own that ends with the test.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Namespace, type Teardown } from './host.ts';
import { cleanEnv } from './run.ts';

/** A place with a file system of its own. */
export interface Disk {
  /** Runs programs that see it. */
  readonly inside: Namespace;
  /** Where it is mounted. */
  readonly path: string;
  /** Path of a file in it, as seen from outside. */
  file(path: string): string;
}

/**
 * Mounts a tmpfs.
 * @param options of the mount, such as "size=64k" or "nr_inodes=20".
 */
export async function mountDisk(t: Teardown, options: string): Promise<Disk> {
  const path = '/mnt';
  const script = `set -e; mount -t tmpfs -o ${options} tmpfs ${path}; echo ready; exec cat > /dev/null`;
  const child = spawn('unshare', ['--mount', 'sh', '-c', script], {
    env: cleanEnv,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => void child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  return {
    inside: new Namespace(['nsenter', `--mount=/proc/${child.pid}/ns/mnt`, '--']),
    path,
    file: (name) => `/proc/${child.pid}/root${path}/${name}`,
  };
}

/** Writes until nothing more fits: neither bytes nor, when `inodes` is set, another file. */
export async function fill({ inside, path }: Disk, { inodes = false } = {}): Promise<void> {
  await inside.run(['sh', '-c', `cat /dev/zero > ${path}/filler 2> /dev/null || true`]);
  if (inodes)
    await inside.run([
      'sh',
      '-c',
      `i=0; while touch ${path}/filler-$i; do i=$((i + 1)); done 2> /dev/null || true`,
    ]);
}
