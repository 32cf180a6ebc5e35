/** Calling plugins as a runtime does, with the clock running. */

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { suites } from '../../test/support/plugin.ts';
import { exposeAgent } from './agent.ts';

/** What is compared: this suite with its agent, the same without one, and the reference plugins. */
export const contenders = ['agent', 'alone', 'reference'] as const;
export type Contender = (typeof contenders)[number];

/** Where a contender's executables are. */
export const directories: Readonly<Record<Contender, string>> = {
  agent: suites.ours,
  alone: suites.ours,
  reference: suites.reference,
};

/** Lets the calls that follow find the agent, or not. */
export function prepareFor(contender: Contender): void {
  exposeAgent(contender === 'agent');
}

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
  contender: Contender;
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
  CNI_PATH: directories[verb.contender],
});

/**
 * Runs one plugin.
 * @returns how long it took in milliseconds, and what it printed.
 * @throws Error when it fails.
 */
export function call(plugin: string, verb: Verb, config: object): { time: number; output: string } {
  const input = JSON.stringify({ cniVersion: '1.0.0', ...config });
  prepareFor(verb.contender);
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(join(directories[verb.contender], plugin), {
    input,
    env: environment(verb),
    encoding: 'utf8',
  });
  const time = performance.now() - start;
  if (status !== 0) throw new Error(`${verb.contender} ${plugin} ${verb.command}: ${stdout}${stderr}`);
  return { time, output: stdout };
}

/** Whether a contender speaks a version of the specification. */
export function supports(contender: Contender, version: string): boolean {
  const { output } = call('bridge', { contender, command: 'VERSION' }, {});
  return (JSON.parse(output) as { supportedVersions: string[] }).supportedVersions.includes(version);
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
  contender: Contender,
  containerId: string,
  netns: string,
): { times: number[]; attached: Attached } {
  let result: object | undefined;
  const times = network.plugins.map((plugin) => {
    const { time, output } = call(
      plugin.type,
      { contender, command: 'ADD', containerId, netns },
      { name: network.name, ...plugin, ...(result && { prevResult: result }) },
    );
    result = JSON.parse(output) as object;
    return time;
  });
  return { times, attached: { containerId, netns, result: result! } };
}

/** DEL of a whole chain, last plugin first. @returns the times in the order of the plugins. */
export function delChain(
  network: Network,
  contender: Contender,
  { containerId, netns, result }: Attached,
): number[] {
  return network.plugins
    .toReversed()
    .map(
      (plugin) =>
        call(
          plugin.type,
          { contender, command: 'DEL', containerId, netns },
          { name: network.name, ...plugin, prevResult: result },
        ).time,
    )
    .reverse();
}

/** Like {@link call}, without blocking, and after {@link prepareFor}. @returns what it printed. */
export function callAsync(plugin: string, verb: Verb, config: object): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(join(directories[verb.contender], plugin), [], { env: environment(verb) });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    child.on('error', reject);
    child.on('close', (status) =>
      status === 0
        ? resolve(text)
        : reject(new Error(`${verb.contender} ${plugin} ${verb.command}: ${text}`)),
    );
    // VERSION ends without reading it.
    child.stdin.on('error', () => {}).end(JSON.stringify({ cniVersion: '1.0.0', ...config }));
  });
}

/** The chain of one container of many that come or go at once. @returns the result of ADD. */
export async function runChainAsync(
  network: Network,
  command: 'ADD' | 'DEL',
  contender: Contender,
  { containerId, netns, result }: Omit<Attached, 'result'> & { result?: object },
): Promise<object | undefined> {
  let last = result;
  for (const plugin of command === 'ADD' ? network.plugins : network.plugins.toReversed()) {
    const config = { name: network.name, ...plugin, ...(last && { prevResult: last }) };
    const output = await callAsync(plugin.type, { contender, command, containerId, netns }, config);
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
