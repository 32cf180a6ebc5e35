/** Calling plugins as a runtime does, with the clock running. */

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { type Suite, suites } from '../../test/support/plugin.ts';

export { type Suite, suites };

/** The order in which each call is made by both. */
export const bothSuites = ['ours', 'reference'] as const;

export interface PluginConf {
  type: string;
  [key: string]: unknown;
}

/** A chain of plugins, as a conflist has it. */
export interface Network {
  name: string;
  plugins: PluginConf[];
}

export interface Verb {
  suite: Suite;
  command: string;
  containerId?: string;
  netns?: string;
}

/** What a runtime sets. */
export const environment = (verb: Verb): NodeJS.ProcessEnv => ({
  PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
  CNI_COMMAND: verb.command,
  CNI_CONTAINERID: verb.containerId ?? '',
  CNI_NETNS: verb.netns ?? '',
  CNI_IFNAME: 'eth0',
  CNI_PATH: suites[verb.suite],
});

/**
 * Runs one plugin.
 * @returns how long it took in milliseconds, and what it printed.
 * @throws Error when it fails.
 */
export function call(plugin: string, verb: Verb, config: object): { time: number; output: string } {
  const input = JSON.stringify({ cniVersion: '1.0.0', ...config });
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(join(suites[verb.suite], plugin), {
    input,
    env: environment(verb),
    encoding: 'utf8',
  });
  const time = performance.now() - start;
  if (status !== 0) throw new Error(`${verb.suite} ${plugin} ${verb.command}: ${stdout}${stderr}`);
  return { time, output: stdout };
}

/** An attachment under way: what each plugin needs to know for DEL. */
export interface Attached {
  containerId: string;
  netns: string;
  result: object;
}

/** ADD of a whole chain. @returns the time of each plugin, and what is to be given to {@link delChain}. */
export function addChain(
  network: Network,
  suite: Suite,
  containerId: string,
  netns: string,
): { times: number[]; attached: Attached } {
  let result: object | undefined;
  const times = network.plugins.map((plugin) => {
    const { time, output } = call(
      plugin.type,
      { suite, command: 'ADD', containerId, netns },
      { name: network.name, ...plugin, ...(result && { prevResult: result }) },
    );
    result = JSON.parse(output) as object;
    return time;
  });
  return { times, attached: { containerId, netns, result: result! } };
}

/** DEL of a whole chain, last plugin first. @returns the times in the order of the plugins. */
export function delChain(network: Network, suite: Suite, { containerId, netns, result }: Attached): number[] {
  return network.plugins
    .toReversed()
    .map(
      (plugin) =>
        call(
          plugin.type,
          { suite, command: 'DEL', containerId, netns },
          { name: network.name, ...plugin, prevResult: result },
        ).time,
    )
    .reverse();
}

/** The same for many at once: the chain of one container, without blocking. */
export async function runChainAsync(
  network: Network,
  command: 'ADD' | 'DEL',
  suite: Suite,
  { containerId, netns, result }: Omit<Attached, 'result'> & { result?: object },
): Promise<object | undefined> {
  let last = result;
  for (const plugin of command === 'ADD' ? network.plugins : network.plugins.toReversed()) {
    const config = { cniVersion: '1.0.0', name: network.name, ...plugin, ...(last && { prevResult: last }) };
    const output = await new Promise<string>((resolve, reject) => {
      const child = spawn(join(suites[suite], plugin.type), [], {
        env: environment({ suite, command, containerId, netns }),
      });
      let text = '';
      child.stdout.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      child.on('error', reject);
      child.on('close', (status) =>
        status === 0 ? resolve(text) : reject(new Error(`${suite} ${plugin.type} ${command}: ${text}`)),
      );
      child.stdin.end(JSON.stringify(config));
    });
    if (command === 'ADD') last = JSON.parse(output) as object;
  }
  return last;
}

let namespaces = 0;

/** Makes a namespace for a container. @returns its path. */
export function addNamespace(): { name: string; netns: string } {
  const name = `bench${namespaces++}`;
  execFileSync('ip', ['netns', 'add', name]);
  return { name, netns: `/run/netns/${name}` };
}

/** Takes a container's namespace away. */
export function removeNamespace(name: string): void {
  execFileSync('ip', ['netns', 'delete', name]);
}
