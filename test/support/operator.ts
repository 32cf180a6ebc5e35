/** `cni`, the operators' command, on a host of its own. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Conflist, PluginConf } from './chain.ts';
import { type Host, makeHost, type Pod, type Teardown } from './host.ts';
import { suites } from './plugin.ts';
import { cleanEnv, type Output, patience } from './run.ts';

/** What an operator does on a host. Its functions need no `this`. */
export interface Operator {
  readonly host: Host;
  /** For every command: `cni` and the plugins are in PATH, and the suite is CNI_PATH. */
  readonly env: NodeJS.ProcessEnv;
  /** Writes a network's configuration where runtimes look for it. */
  configure(network: Conflist): void;
  /** Runs `cni …` to its end, whether it succeeds or not. */
  tryCni(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<Output>;
  /** Runs `cni …`, which must succeed. @returns its standard output. */
  cni(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<string>;
  /** Runs a command line that must succeed. @param timeout milliseconds. @returns its standard output. */
  sh(commandLine: string, timeout?: number): Promise<string>;
  /** Attaches a new pod to a network. @param env of `cni add`, such as {@link publish} makes. */
  attach(network: string, env?: NodeJS.ProcessEnv): Promise<Pod>;
  /** Attaches a new pod to network "net", with port 80 published. */
  add(hostPort?: number): Promise<Pod>;
  /** Detaches a pod that {@link add} attached. */
  del(pod: Pod, hostPort?: number): Promise<string>;
}

/** Environment of `cni add` that publishes port 80 of the pod. */
export const publish = (hostPort: number, protocol = 'tcp', hostIP?: string) => ({
  CAP_ARGS: JSON.stringify({ portMappings: [{ hostPort, containerPort: 80, protocol, hostIP }] }),
});

/**
 * Makes a host with networks, on which no runtime is configured.
 * @param options.env of every command, besides CNI_PATH and PATH.
 * @param options.mayHaveAgent whether it has an agent if CNI_TEST_AGENT is set.
 */
export async function makeOperator(
  t: Teardown,
  networks: readonly Conflist[],
  { env: more = {}, mayHaveAgent = false }: { env?: NodeJS.ProcessEnv; mayHaveAgent?: boolean } = {},
): Promise<Operator> {
  const host = await makeHost(t, { mayHaveAgent });
  // The machine's own runtimes have their plugins elsewhere.
  const mask =
    'for d in /etc/containerd /etc/crio /etc/containers; do test ! -d $d || mount -t tmpfs tmpfs $d; done';
  await host.run(['sh', '-c', mask]);
  const configure = (network: Conflist) =>
    writeFileSync(host.file(`/etc/cni/net.d/${network.name}.conflist`), JSON.stringify(network));
  for (const network of networks) configure(network);

  const env = { PATH: `${suites.ours}:${cleanEnv.PATH}`, CNI_PATH: suites.ours, ...more };
  const tryCni: Operator['tryCni'] = (args, own) =>
    host.tryRun([join(suites.ours, 'cni'), ...args], { env: { ...env, ...own } });
  const cni: Operator['cni'] = async (args, own) => {
    const { exit, stdout, stderr } = await tryCni(args, own);
    if (exit !== 0) throw new Error(`cni ${args.join(' ')}: exit ${exit}\n${stderr}${stdout}`);
    return stdout;
  };
  const attach: Operator['attach'] = async (network, own) => {
    const pod = await host.addPod();
    await cni(['add', network, pod.netns], own);
    return pod;
  };
  return {
    host,
    env,
    configure,
    tryCni,
    cni,
    sh: (commandLine, timeout = patience) =>
      host.run(['sh', '-c', `set -e\n${commandLine}`], { env, timeout }),
    attach,
    add: (hostPort = 8080) => attach('net', publish(hostPort)),
    del: (pod, hostPort = 8080) => cni(['del', 'net', pod.netns], publish(hostPort)),
  };
}

/**
 * Makes a host with one network, "net". It has an agent if CNI_TEST_AGENT is set.
 * @param options.env of every command.
 */
export function operatorOf(
  t: Teardown,
  plugins: readonly PluginConf[],
  { env = {}, cniVersion = '1.1.0' }: { env?: NodeJS.ProcessEnv; cniVersion?: string } = {},
): Promise<Operator> {
  return makeOperator(t, [{ cniVersion, name: 'net', plugins: [...plugins] }], { env, mayHaveAgent: true });
}
