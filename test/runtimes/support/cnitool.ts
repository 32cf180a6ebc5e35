/**
 * cnitool, libcni's own client. No Debian package has the program, but the source package of libcni does, and
 * Debian's Go compiler builds it without further modules.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from '../../support/host.ts';
import { suites } from '../../support/plugin.ts';
import { type Output, run } from '../../support/run.ts';
import { downloadSource, goEnvironment } from './source-package.ts';

const sourcePackage = 'golang-github-appc-cni';
const importPath = 'github.com/containernetworking/cni';
const directory = join(import.meta.dirname, '../../../build/cnitool');

/**
 * Builds cnitool unless that was done before; test files that need it at the same time wait for one of them.
 * @returns its path.
 */
export async function buildCnitool(): Promise<string> {
  const executable = join(directory, 'cnitool');
  if (existsSync(executable)) return executable;
  mkdirSync(directory, { recursive: true });
  const unlock = await lock(join(directory, 'lock'));
  try {
    if (!existsSync(executable)) await build(executable);
  } finally {
    unlock();
  }
  return executable;
}

/** Waits for the lock of a file. @returns a function that releases it. */
async function lock(file: string): Promise<() => void> {
  // It holds the lock until its standard input ends, at the latest with this process.
  const holder = spawn('flock', [file, 'sh', '-c', 'echo locked; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(holder.stdout, 'data');
  return () => void holder.stdin.end();
}

async function build(executable: string): Promise<void> {
  const env = goEnvironment(directory);
  const source = join(env.GOPATH!, 'src', importPath);
  mkdirSync(source, { recursive: true });
  await downloadSource(sourcePackage, directory);
  const archive = readdirSync(directory).find((file) => file.includes('.orig.tar.'));
  await run(['tar', '--strip-components=1', '-C', source, '-xf', join(directory, archive!)]);
  const compile = ['go', 'build', '-o', `${executable}.new`, `${importPath}/cnitool`];
  await run(compile, { env, timeout: 600_000 });
  renameSync(`${executable}.new`, executable);
}

/** Either of the two programs that run a network by hand with the same arguments and environment. */
export class NetworkTool {
  private readonly host: Host;
  private readonly executable: string;

  constructor(host: Host, executable: string) {
    this.host = host;
    this.executable = executable;
  }

  /**
   * Runs a verb on a network of /etc/cni/net.d.
   * @param capabilities what is passed as runtimeConfig, such as portMappings.
   */
  try(verb: 'add' | 'check' | 'del', network: string, netns: string, capabilities?: object): Promise<Output> {
    return this.host.tryRun([this.executable, verb, network, netns], {
      env: {
        CNI_PATH: suites.ours,
        NETCONFPATH: '/etc/cni/net.d',
        ...(capabilities && { CAP_ARGS: JSON.stringify(capabilities) }),
      },
    });
  }

  /** The same, and it must succeed. @returns standard output. */
  async run(...args: Parameters<NetworkTool['try']>): Promise<string> {
    const output = await this.try(...args);
    if (output.exit !== 0)
      throw new Error(`${output.argv.join(' ')}: exit ${output.exit}\n${output.stderr}${output.stdout}`);
    return output.stdout;
  }
}
