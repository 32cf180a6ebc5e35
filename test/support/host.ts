/**
 * Stand-ins for a node and its pods. A host has a network and a mount namespace of its own, with empty /run,
 * /var/lib/cni and /etc/cni: plugins run in it with their default paths and meet nobody else's state. All of
 * it is gone when the test ends, even when the test is killed.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { cleanEnv, type Output, type RunOptions, run, tryRun } from './run.ts';

/** Where this project's executables are, unless CNI_BIN names another directory. */
export const binDir = process.env.CNI_BIN ?? join(import.meta.dirname, '../../dist/bin');

/** What is needed of AVA's `t`: a place for clean-up. */
export interface Teardown {
  teardown(step: () => void | Promise<void>): void;
}

/** A network namespace to run programs in. */
export class Namespace {
  readonly enter: readonly string[];

  constructor(enter: readonly string[]) {
    this.enter = enter;
  }

  /** Runs a program that must succeed. @returns its standard output. */
  run(argv: readonly string[], options?: RunOptions): Promise<string> {
    return run([...this.enter, ...argv], options);
  }

  /** Runs a program to its end, whether it succeeds or not. */
  tryRun(argv: readonly string[], options?: RunOptions): Promise<Output> {
    return tryRun([...this.enter, ...argv], options);
  }

  /** Starts a program that runs until the test ends. @returns once it has printed its first line. */
  async start(t: Teardown, argv: readonly string[]): Promise<ChildProcess> {
    const [file, ...args] = [...this.enter, ...argv] as [string, ...string[]];
    const child = spawn(file, args, { env: cleanEnv, stdio: ['pipe', 'pipe', 'inherit'] });
    t.teardown(() => end(child));
    await firstOutput(child, argv);
    return child;
  }
}

/** A pod's network namespace, as a runtime makes it: empty but for `lo`, under /run/netns of its host. */
export class Pod extends Namespace {
  readonly name: string;
  /** CNI_NETNS, as seen by plugins that run in the host. */
  readonly netns: string;
  /** CNI_CONTAINERID that goes with it. */
  readonly containerId: string;
  private readonly host: Host;

  constructor(host: Host, name: string) {
    super([
      'nsenter',
      `--mount=/proc/${host.pid}/ns/mnt`,
      `--net=/proc/${host.pid}/root/run/netns/${name}`,
      '--',
    ]);
    this.host = host;
    this.name = name;
    this.netns = `/run/netns/${name}`;
    this.containerId = `container-${name}`;
  }

  /**
   * Sets "lo" up and down once: it keeps the addresses and the qdisc that it gets when it is first up.
   */
  async useLoopback(): Promise<void> {
    for (const state of ['up', 'down']) await this.run(['ip', 'link', 'set', 'lo', state]);
  }

  /** Deletes the namespace, as a runtime or a reboot may do before DEL. */
  async remove(): Promise<void> {
    await this.host.run(['ip', 'netns', 'delete', this.name]);
  }
}

/** A node's network namespace, with private /run, /var/lib/cni and /etc/cni. */
export class Host extends Namespace {
  readonly pid: number;

  constructor(pid: number) {
    super(['nsenter', `--net=/proc/${pid}/ns/net`, `--mount=/proc/${pid}/ns/mnt`, '--']);
    this.pid = pid;
  }

  /** Path of a file of the host, such as /var/lib/cni/networks, as seen from outside. */
  file(path: string): string {
    return join(`/proc/${this.pid}/root`, path);
  }

  /** Makes a pod's namespace. */
  async addPod(): Promise<Pod> {
    const name = `pod-${randomName()}`;
    await this.run(['ip', 'netns', 'add', name]);
    return new Pod(this, name);
  }
}

/**
 * Makes a host, with `lo` up and nothing else. It is gone with the test.
 * @param options.mayHaveAgent whether it has an agent if CNI_TEST_AGENT is set; false for tests of the
 *   process that carries out a call.
 */
export async function makeHost(t: Teardown, { mayHaveAgent = true } = {}): Promise<Host> {
  // `cat` ends with the pipe from this process, and the namespaces end with `cat`.
  const script = `set -e
    mkdir -p /var/lib/cni /etc/cni
    for directory in /run /var/lib/cni /etc/cni; do mount -t tmpfs -o mode=755 tmpfs $directory; done
    mount -t sysfs sysfs /sys
    mkdir /run/netns /etc/cni/net.d
    ip link set lo up
    echo 0 > /proc/sys/net/ipv4/ip_forward
    echo ready
    exec cat > /dev/null`;
  const child = spawn('unshare', ['--net', '--mount', 'sh', '-c', script], {
    env: cleanEnv,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => end(child));
  await firstOutput(child, ['unshare']);
  const host = new Host(child.pid!);
  if (mayHaveAgent && process.env.CNI_TEST_AGENT) await startAgent(t, host);
  return host;
}

/** Makes a host with a parent interface, "up0", and a device to move, "dev0": each one end of a veth pair. */
export async function makeHostWithDevices(t: Teardown, options?: { mayHaveAgent?: boolean }): Promise<Host> {
  const host = await makeHost(t, options);
  for (const [name, peer] of [
    ['up0', 'up1'],
    ['dev0', 'dev1'],
  ] as const)
    await host.run(['ip', 'link', 'add', name, 'up', 'type', 'veth', 'peer', 'name', peer]);
  return host;
}

/** Starts the suite's agent in a host; it runs until the test ends. */
export function startAgent(t: Teardown, host: Host): Promise<ChildProcess> {
  return host.start(t, [join(binDir, 'cni'), 'agent']);
}

/** Eight random hexadecimal digits, so that tests that run at once do not meet. */
export function randomName(): string {
  return randomBytes(4).toString('hex');
}

async function firstOutput(child: ChildProcess, argv: readonly string[]): Promise<void> {
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`${argv.join(' ')} ended with exit code ${code} before it was ready`);
  });
  await Promise.race([once(child.stdout!, 'data'), ended]);
  ended.catch(() => {}); // From now on, it may end in any way.
}

/** Kills a process, unless it has ended. @returns once it has. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}
