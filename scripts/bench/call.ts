/** Calling plugins as a runtime does, with the clock running. */

import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { waitForEnd } from '../../agent/pipe.ts';
import { alone } from '../../lib/group-commit.ts';
import { Programs } from '../../lib/kernel/programs.ts';
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

/** A chain of plugins, as in a conflist. */
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

const path = '/usr/sbin:/usr/bin:/sbin:/bin';
/** Starts plugins without copying this process, which would take longer than the launcher itself. */
const programs = new Programs({ PATH: path }, { waitForEnd, together: alone });

/** The environment variables that a runtime sets. */
export const environment = (verb: Verb) => ({
  PATH: path,
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
export async function call(
  plugin: string,
  verb: Verb,
  config: object,
): Promise<{ time: number; output: string }> {
  const options = {
    input: JSON.stringify({ cniVersion: '1.0.0', ...config }),
    environment: environment(verb),
  };
  prepareFor(verb.contender);
  const start = performance.now();
  const { status, stdout, stderr } = await programs.run(
    join(directories[verb.contender], plugin),
    [],
    options,
  );
  const time = performance.now() - start;
  if (status !== 0) throw new Error(`${verb.contender} ${plugin} ${verb.command}: ${stdout}${stderr}`);
  return { time, output: stdout };
}

/** Whether a contender supports a version of the specification. */
export async function supports(contender: Contender, version: string): Promise<boolean> {
  const { output } = await call('bridge', { contender, command: 'VERSION' }, {});
  return (JSON.parse(output) as { supportedVersions: string[] }).supportedVersions.includes(version);
}

/** An attachment under way: what each plugin needs to know for DEL. */
export interface Attached {
  containerId: string;
  netns: string;
  result: object;
}

/** ADD of a whole chain. @returns the time of each plugin, and what {@link delChain} needs. */
export async function addChain(
  network: Network,
  contender: Contender,
  { containerId, netns }: Omit<Attached, 'result'>,
): Promise<{ times: number[]; attached: Attached }> {
  let result: object | undefined;
  const times: number[] = [];
  for (const plugin of network.plugins) {
    const { time, output } = await call(
      plugin.type,
      { contender, command: 'ADD', containerId, netns },
      { name: network.name, ...plugin, ...(result && { prevResult: result }) },
    );
    result = JSON.parse(output) as object;
    times.push(time);
  }
  return { times, attached: { containerId, netns, result: result! } };
}

/** DEL of a whole chain, last plugin first. @returns the times in the order of the plugins. */
export async function delChain(
  network: Network,
  contender: Contender,
  { containerId, netns, result }: Attached,
): Promise<number[]> {
  const times: number[] = [];
  for (const plugin of network.plugins.toReversed()) {
    const { time } = await call(
      plugin.type,
      { contender, command: 'DEL', containerId, netns },
      { name: network.name, ...plugin, prevResult: result },
    );
    times.unshift(time);
  }
  return times;
}

let namespaces = 0;

/** Makes a namespace for a container. @returns its name and its path. */
export function addNamespace(): { name: string; netns: string } {
  const name = `bench${namespaces++}`;
  execFileSync('ip', ['netns', 'add', name]);
  return { name, netns: `/run/netns/${name}` };
}

/** Removes a container's namespace. */
export function removeNamespace(name: string): void {
  execFileSync('ip', ['netns', 'delete', name]);
}
