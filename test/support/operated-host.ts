/** A host whose pods were attached by `cni add`, so that the result cache has records of them. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Conflist } from './chain.ts';
import { type Host, makeHost, type Pod, type Teardown } from './host.ts';
import { suites } from './plugin.ts';
import { cleanEnv, type Output } from './run.ts';

/** What an operator has on a host: `cni` and the plugins in PATH, and the suite as CNI_PATH. */
export class OperatedHost {
  readonly host: Host;
  readonly env = { PATH: `${suites.ours}:${cleanEnv.PATH}`, CNI_PATH: suites.ours };

  constructor(host: Host) {
    this.host = host;
  }

  /** Makes a host on which no runtime is configured. */
  static async make(t: Teardown, networks: readonly Conflist[]): Promise<OperatedHost> {
    const host = await makeHost(t, { mayHaveAgent: false });
    // The runtimes of the machine have plugins elsewhere.
    const mask =
      'for d in /etc/containerd /etc/crio /etc/containers; do test ! -d $d || mount -t tmpfs tmpfs $d; done';
    await host.run(['sh', '-c', mask]);
    const operated = new OperatedHost(host);
    for (const network of networks) operated.configure(network);
    return operated;
  }

  /** Puts a network down where runtimes look for it. */
  configure(network: Conflist): void {
    writeFileSync(this.host.file(`/etc/cni/net.d/${network.name}.conflist`), JSON.stringify(network));
  }

  /** Runs `cni …` to its end, whatever that is. */
  cni(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Output> {
    return this.host.tryRun([join(suites.ours, 'cni'), ...args], { env: { ...this.env, ...env } });
  }

  /** Runs a command line that must succeed. @param timeout milliseconds. @returns its standard output. */
  sh(commandLine: string, timeout = 60_000): Promise<string> {
    return this.host.run(['sh', '-c', `set -e\n${commandLine}`], { env: this.env, timeout });
  }

  /** Attaches a new pod. @param env of `cni add`, such as CAP_ARGS. */
  async attach(network: string, env: NodeJS.ProcessEnv = {}): Promise<Pod> {
    const pod = await this.host.addPod();
    const { exit, stderr } = await this.cni(['add', network, pod.netns], env);
    if (exit !== 0) throw new Error(`cni add ${network}: exit ${exit}\n${stderr}`);
    return pod;
  }
}
