/** `cni`, the operators' command, on a host of its own with one network, "net". */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PluginConf } from './chain.ts';
import { type Host, makeHost, type Pod, type Teardown } from './host.ts';
import { suites } from './plugin.ts';
import type { Output } from './run.ts';

/** What an operator does on a host. */
export interface Operator {
  readonly host: Host;
  /** Runs `cni …` to its end, whatever that is. */
  tryCni(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<Output>;
  /** Runs `cni …`, which must succeed. @returns its standard output. */
  cni(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<string>;
  /** Attaches a new pod, with port 80 published. */
  add(hostPort?: number): Promise<Pod>;
  /** Detaches a pod. */
  del(pod: Pod, hostPort?: number): Promise<string>;
}

/**
 * Makes a host with a network.
 * @param options.env of every command.
 */
export async function operatorOf(
  t: Teardown,
  plugins: readonly PluginConf[],
  { env = {}, cniVersion = '1.1.0' }: { env?: NodeJS.ProcessEnv; cniVersion?: string } = {},
): Promise<Operator> {
  const host = await makeHost(t);
  const network = { cniVersion, name: 'net', plugins };
  writeFileSync(host.file('/etc/cni/net.d/10-net.conflist'), JSON.stringify(network));
  const tryCni: Operator['tryCni'] = (args, more) =>
    host.tryRun([join(suites.ours, 'cni'), ...args], { env: { CNI_PATH: suites.ours, ...env, ...more } });
  const cni: Operator['cni'] = async (args, more) => {
    const { exit, stdout, stderr } = await tryCni(args, more);
    if (exit !== 0) throw new Error(`cni ${args.join(' ')}: exit ${exit}\n${stderr}${stdout}`);
    return stdout;
  };
  const publishing = (hostPort: number) => ({
    CAP_ARGS: JSON.stringify({ portMappings: [{ hostPort, containerPort: 80, protocol: 'tcp' }] }),
  });
  return {
    host,
    tryCni,
    cni,
    async add(hostPort = 8080) {
      const pod = await host.addPod();
      await cni(['add', 'net', pod.netns], publishing(hostPort));
      return pod;
    },
    del: (pod, hostPort = 8080) => cni(['del', 'net', pod.netns], publishing(hostPort)),
  };
}
