/** A call of a plugin, as a runtime makes it, which may be killed meanwhile. */

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { pluginConfig } from '../../test/support/chain.ts';
import { type PrintedResult, suites } from '../../test/support/plugin.ts';
import { cleanEnv } from '../../test/support/run.ts';
import type { Contender } from '../bench/call.ts';
import type { SoakAgent } from './agent.ts';
import { carryOut, type Kill } from './kills.ts';
import type { Pod } from './pod.ts';
import type { Times } from './times.ts';

/** What is called, and who does it. */
export interface SoakCall {
  readonly contender: Contender;
  readonly command: 'ADD' | 'DEL' | 'GC';
  /** Name of the plugin. */
  readonly plugin: string;
  /** What it reads. */
  readonly config: object;
  /** None for GC. */
  readonly pod?: Pod;
  readonly kill?: Kill | undefined;
}

/** How a call ended. */
export interface Outcome {
  readonly isDone: boolean;
  readonly result: PrintedResult | undefined;
  /** The message of a plugin that failed. */
  readonly message: string;
  /** Whether it, something that it started, or the agent was killed meanwhile, so that it may fail. */
  readonly isDisturbed: boolean;
  /** Whether the agent has to undo it: only the launcher was killed, before it passed on a result. */
  readonly isToBeUndone: boolean;
}

/** Directories for CNI_PATH. The agent leaves calls with a relative one to the executable. */
const paths: Readonly<Record<Contender, string>> = {
  agent: suites.ours,
  alone: `${suites.ours}:relative`,
  reference: suites.reference,
};

/** Makes calls. */
export class Caller {
  readonly agent: SoakAgent;
  private readonly times: Times;

  constructor(agent: SoakAgent, times: Times) {
    this.agent = agent;
    this.times = times;
  }

  /** Runs a plugin, however it ends. */
  async run(call: SoakCall): Promise<Outcome> {
    const { contender, command, plugin, config, pod, kill } = call;
    const isAgentCall = contender === 'agent';
    const killsBefore = this.agent.kills;
    const start = performance.now();
    const file = join(contender === 'reference' ? suites.reference : suites.ours, plugin);
    const child = spawn(file, [], {
      env: {
        ...cleanEnv,
        CNI_COMMAND: command,
        CNI_PATH: paths[contender],
        ...(pod && {
          CNI_CONTAINERID: pod.containerId,
          CNI_NETNS: pod.netns,
          CNI_IFNAME: pod.ifname,
        }),
      },
    });
    const over = new AbortController();
    const usual = this.times.usual(contender, command);
    const killing =
      kill && carryOut(kill, child, { agent: this.agent, isAgentCall, usual, over: over.signal });
    const { exit, stdout, stderr } = await outputOf(child, JSON.stringify(config));
    over.abort();
    const victim = await killing;
    const isAgentHit = isAgentCall && this.agent.kills !== killsBefore;
    const isDisturbed = victim !== undefined || isAgentHit;
    if (exit === 0 && !isDisturbed) this.times.add(contender, command, performance.now() - start);
    return {
      isDone: exit === 0,
      result: exit === 0 && command === 'ADD' ? (JSON.parse(stdout) as PrintedResult) : undefined,
      message: exit === 0 ? '' : `exit ${exit}: ${messageOf(stdout) || stderr.trim()}`,
      isDisturbed,
      isToBeUndone: command === 'ADD' && victim === 'launcher' && !isAgentHit && stdout === '',
    };
  }
}

/** The configuration of each plugin of a network's chain. @param keys to be added. */
export function configsOf(pod: Pod, keys: object = {}): { plugin: string; config: object }[] {
  const { conflist } = pod.network;
  return conflist.plugins.map((plugin) => ({
    plugin: plugin.type,
    config: { ...pluginConfig(conflist, plugin, pod.capabilities), ...keys },
  }));
}

function outputOf(
  child: ReturnType<typeof spawn>,
  input: string,
): Promise<{ exit: number | string; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    let [stdout, stderr] = ['', ''];
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ exit: code ?? String(signal), stdout, stderr }));
    // It may be killed before it has read everything.
    child.stdin!.on('error', () => {}).end(input);
  });
}

/** What a CNI error says; everything that was printed if it is not one. */
function messageOf(printed: string): string {
  try {
    const { msg, details } = JSON.parse(printed) as { msg?: string; details?: string };
    return [msg, details].filter(Boolean).join(': ');
  } catch {
    return printed.trim();
  }
}
