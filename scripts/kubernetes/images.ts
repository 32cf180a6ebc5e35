/** The images of the cluster, which has no registry. */

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { makeImage } from '../../test/runtimes/support/image.ts';
import { binDir } from '../../test/support/host.ts';
import { programPath } from './build.ts';
import type { Machine } from './machine.ts';

/** Busybox and what the pods of manifests/ run; by itself it does nothing, to serve as each pod's sandbox. */
export const toolsImage = 'localhost/tools:1';

/** The image of conf/kubernetes/daemonset.yaml, under its name as completed by containerd. */
const suiteImage = 'docker.io/library/cni-plugins-ts:1.0.0';

const debianPrograms = [
  '/usr/bin/curl',
  '/usr/bin/nslookup',
  '/usr/bin/nsenter',
  '/usr/sbin/dnsmasq',
  '/usr/sbin/nginx',
];

const accounts = {
  'etc/passwd': 'root:x:0:0:root:/:/bin/sh\n',
  'etc/group': 'root:x:0:\n',
};

/**
 * Makes the images on a machine, in a directory that all machines see.
 * @returns the archives, for `ctr images import`.
 */
export async function makeImages({ node }: Machine, directory: string): Promise<string[]> {
  const tools = join(directory, 'tools.tar');
  const suite = join(directory, 'suite.tar');
  const idle = ['/bin/sleep', 'infinity'];
  await makeImage(node, tools, toolsImage, idle, accounts, {
    ...Object.fromEntries(debianPrograms.map((program) => [program, program])),
    '/usr/bin/kubectl': programPath('kubectl'),
  });
  await makeImage(node, suite, suiteImage, idle, accounts, {
    '/usr/bin/nsenter': '/usr/bin/nsenter',
    '/usr/lib/cni': binDir,
  });
  for (const archive of [tools, suite]) rmSync(`${archive}.build`, { recursive: true });
  return [tools, suite];
}
